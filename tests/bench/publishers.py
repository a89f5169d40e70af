"""A process that publishes one FLV file over RTMP to many addresses in real time, with no encoder behind it.

`python -m tests.bench.publishers JOB` with the job as JSON: `{"file": path, "addresses": [rtmp://…], "spread_ms": …}`; the streams start
so far apart. Writes a line `live` once all publish; at the end of its input it stops and writes, as JSON for each stream,
`{"video": [[timestamp in ms, monotonic ns], …], "audio": …}`: when each message was given to the kernel, in one call.
"""

import json
import select
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from heapq import heapify, heapreplace
from pathlib import Path
from urllib.parse import urlsplit

from protocols.rtmp.message import MessageType, MessageWriter
from tests.bench.programme import CHUNK, Message, read

_SEND_BUFFER = 4 << 20
_TIMEOUT = 10.0
_SERVER_HANDSHAKE = 1 + 2 * 1536
_KINDS = {MessageType.VIDEO: "video", MessageType.AUDIO: "audio"}


class Stream:
    """One publisher's socket, where it is in the programme, and when each message was sent."""

    def __init__(self, address: str, messages: Sequence[Message]) -> None:
        self.sent: dict[str, list[tuple[int, int]]] = {"video": [], "audio": []}
        self._messages = messages
        self._next = 0
        self._started = 0
        parts = urlsplit(address)
        app, _, self._name = parts.path[1:].partition("/")
        assert parts.hostname is not None
        self._socket = socket.create_connection((parts.hostname, parts.port or 1935), _TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self._open(app, f"{parts.scheme}://{parts.netloc}/{app}")

    @property
    def due(self) -> int:
        """When the next message is to leave, monotonic ns; far away at the end."""
        if self._next == len(self._messages):
            return 1 << 62
        return self._started + self._messages[self._next].timestamp * 1_000_000

    def start(self, at: int) -> None:
        self._started = at
        self._socket.settimeout(None)  # with one, `MSG_DONTWAIT` would wait

    def send(self) -> None:
        message = self._messages[self._next]
        self._next += 1
        # Before the call: while it runs the gateway works already, and afterwards this process may have lost its turn.
        now = time.monotonic_ns()
        self._socket.sendall(message.wire)
        if message.media:
            self.sent[_KINDS[MessageType(message.type)]].append((message.timestamp, now))
        if self._next % 64 == 0:
            self._discard()

    def _open(self, app: str, url: str) -> None:
        """The handshake (RTMP 1.0 §5.2) and the commands up to a granted publish."""
        self._socket.sendall(b"\x03" + bytes(1536))
        answer = b""
        while len(answer) < _SERVER_HANDSHAKE:
            answer += self._read()
        writer = MessageWriter()
        writer.raw(answer[1:1537])
        writer.chunk_size(CHUNK)
        writer.command("connect", 1.0, {"app": app, "type": "nonprivate", "flashVer": "bench", "tcUrl": url})
        writer.command("createStream", 2.0, None)
        self._socket.sendall(writer.take())
        while b"_result" not in answer[_SERVER_HANDSHAKE:]:
            answer += self._read()
        writer.command("publish", 3.0, None, self._name, "live")
        self._socket.sendall(writer.take())
        while b"NetStream.Publish.Start" not in answer:
            answer += self._read()

    def _read(self) -> bytes:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("the gateway has closed the connection")
        return data

    def _discard(self) -> None:
        """Acknowledgements: of no interest, but their buffer is not endless."""
        with suppress(BlockingIOError):
            self._socket.recv(65536, socket.MSG_DONTWAIT)


def publish(streams: Sequence[Stream], spread: int) -> None:
    """Until the end of the input, or of the programme."""
    begin = time.monotonic_ns() + 50_000_000
    for number, stream in enumerate(streams):
        stream.start(begin + spread * number)
    # The number keeps the comparison away from the streams.
    queue = [(stream.due, number, stream) for number, stream in enumerate(streams)]
    heapify(queue)
    while True:
        due, number, stream = queue[0]
        wait = min(due - time.monotonic_ns(), 100_000_000)
        if wait > 0:
            if select.select([sys.stdin], [], [], wait / 1e9)[0]:
                return
            continue
        stream.send()
        heapreplace(queue, (stream.due, number, stream))


def main(job: dict[str, object]) -> None:
    messages = read(Path(str(job["file"])))
    addresses = job["addresses"]
    assert isinstance(addresses, list)
    streams = [Stream(address, messages) for address in addresses]
    print("live", flush=True)
    publish(streams, int(float(str(job["spread_ms"])) * 1e6))
    print(json.dumps([stream.sent for stream in streams]), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
