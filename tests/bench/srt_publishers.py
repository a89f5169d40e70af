"""A process that publishes one transport stream over SRT to many stream ids in real time, with no encoder behind it.

`python -m tests.bench.srt_publishers JOB` with the job as JSON: `{"file": path, "port": …, "stream_ids": […], "spread_ms": …}`. Writes a
line `live` once all are connected; at the end of its input it stops and writes, as JSON for each stream, `{"video": [[media time in ms,
monotonic ns], …]}`: when the last message of each frame was given to libsrt.
"""

import itertools
import json
import select
import sys
import time
from heapq import heapify, heapreplace
from pathlib import Path

from protocols.errors import Reason
from protocols.srt.address import Address
from protocols.srt.libsrt import Libsrt, Option, SrtError, load

_PACKET, _MESSAGE = 188, 1316
_FRAME_NS = 1_000_000_000 / 30
_VIDEO_STARTS = b"\x41\x00"  # payload_unit_start_indicator and PID 0x100, ffmpeg's first


def frames(file: Path) -> list[bytes]:
    """The file cut before each video frame, each with the sound and the tables that follow it."""
    data = file.read_bytes()
    starts = [at for at in range(0, len(data), _PACKET) if data[at + 1 : at + 3] == _VIDEO_STARTS]
    starts[0] = 0
    return [data[start:end] for start, end in itertools.pairwise(starts)]


def _connected(srt: Libsrt, port: int, stream_id: str) -> int:
    """A socket of a caller who comes again, as encoders do, while the gateway says that it is overloaded."""
    while True:
        socket = srt.create()
        srt.set(socket, Option.STREAMID, stream_id)
        try:
            srt.connect(socket, Address("127.0.0.1", port))
        except SrtError:
            if srt.reject_reason(socket) != Reason.OVERLOADED.srt_code:
                raise
        else:
            return socket
        srt.close(socket)


class Stream:
    """One publisher's socket, where it is in the programme, and when each frame was sent."""

    def __init__(self, srt: Libsrt, port: int, stream_id: str, programme: list[bytes], start: int) -> None:
        self.sent: list[tuple[int, int]] = []
        self._srt = srt
        self._programme = programme
        self._start = start
        self._socket = _connected(srt, port, stream_id)

    @property
    def due(self) -> int:
        """When the next frame is to leave, monotonic ns; far away at the end."""
        return round(self._start + len(self.sent) * _FRAME_NS) if len(self.sent) < len(self._programme) else 1 << 62

    def begin(self, at: int) -> None:
        self._start = at

    def send(self) -> None:
        number = len(self.sent)
        frame = self._programme[number]
        last = (len(frame) - 1) // _MESSAGE * _MESSAGE
        for at in range(0, last, _MESSAGE):
            self._srt.send(self._socket, frame[at : at + _MESSAGE])
        now = time.monotonic_ns()  # before the call, after which this process may have lost its turn
        self._srt.send(self._socket, frame[last:])
        self.sent.append((round(number * _FRAME_NS / 1e6), now))


def main(job: dict[str, object]) -> None:
    programme = frames(Path(str(job["file"])))
    ids, port = job["stream_ids"], int(str(job["port"]))
    assert isinstance(ids, list)
    srt = load()
    streams = [Stream(srt, port, stream_id, programme, 0) for stream_id in ids]
    begin, spread = time.monotonic_ns() + 50_000_000, int(float(str(job["spread_ms"])) * 1e6)
    for number, stream in enumerate(streams):
        stream.begin(begin + spread * number)
    print("live", flush=True)
    queue = [(stream.due, number, stream) for number, stream in enumerate(streams)]
    heapify(queue)
    while True:
        due, number, stream = queue[0]
        wait = min(due - time.monotonic_ns(), 100_000_000)
        if wait > 0:
            if select.select([sys.stdin], [], [], wait / 1e9)[0]:
                break
            continue
        stream.send()
        heapreplace(queue, (stream.due, number, stream))
    print(json.dumps([{"video": stream.sent} for stream in streams]), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
