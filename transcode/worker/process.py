"""One session's transcoding process: takes packets from its socket, gives back what comes of them, and ends with its socket.

Keeps true: one message is handled at a time and its output leaves before the next is looked at, so nothing waits; each packet is answered
by output, PROGRESS or LATE; a picture that has waited here for longer than may be is not shown but decoded for what follows, which is what
catches up, save one a second where all are late; what a stranger's stream can do here is bounded by `confine`. This is one of the four
places where any exception is caught: it is told to the gateway, and the process ends.
"""

import contextlib
import os
import resource
import signal
import socket
import time
import traceback
from collections.abc import Sequence

import av.logging
from av import FFmpegError

from protocols.errors import ProtocolError
from protocols.media import EncodedPacket, Kind, Track
from transcode import messages
from transcode.limits import WorkerLimits
from transcode.messages import MessageFrame, MessageReader, WorkerMessage, WorkerReport
from transcode.mux_messages import pack_fragment, read_mux
from transcode.plan import AudioTarget, VideoTarget
from transcode.worker import sandbox
from transcode.worker.audio import AudioTranscoder
from transcode.worker.encoders import try_encoder
from transcode.worker.mux import fragment
from transcode.worker.video import VideoTranscoder

Transcoder = AudioTranscoder | VideoTranscoder

_OPEN_FILES = 16
_REPORT_EVERY = 1_000_000_000  # ns
_SHOWN_EVERY = 1_000_000_000  # ns: a picture at least, however late
_LONGEST_FAULT = 2000  # characters
_MAX_STREAMS = 16


def run(sock: socket.socket, limits: WorkerLimits, devices: Sequence[str]) -> None:
    """The life of a worker, in its own process: returns when the gateway has closed the socket. `devices`: see `sandbox`."""
    confine(sock, limits, devices)
    worker = WorkerProcess(sock, limits)
    try:
        worker.serve()
    except Exception:
        fault = traceback.format_exc(limit=-4)[-_LONGEST_FAULT:]
        with contextlib.suppress(OSError):
            sock.sendall(messages.pack(WorkerMessage.FAULT, 0, worker.taken, fault.encode(errors="replace")))
        raise


def confine(sock: socket.socket, limits: WorkerLimits, devices: Sequence[str]) -> None:
    """Bound this process: memory, files, core dumps, priority, and what it may ask of the kernel; silence libav; leave ending to the
    socket, not to signals for the group."""
    av.logging.set_level(None)
    os.environ["SVT_LOG"] = "1"  # errors: SVT-AV1 writes to standard error by itself
    mapped = int(_read("/proc/self/statm").split()[0]) * resource.getpagesize()
    _limit(resource.RLIMIT_AS, mapped + limits.memory)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    os.nice(limits.niceness)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sandbox.enter(sock.fileno(), devices)


class WorkerProcess:
    """The streams of one session and the loop that feeds them."""

    def __init__(self, sock: socket.socket, limits: WorkerLimits) -> None:
        self.taken = 0
        self._sock = sock
        self._cpu_allowance = limits.cpu
        self._late_after = limits.video_queue * 1_000_000  # ns
        self._late = 0  # pictures that had waited for longer
        self._shown: dict[int, int] = {}  # by stream: when something of it last left
        self._inbox = MessageReader()
        self._streams: dict[int, Transcoder] = {}
        self._announced: dict[int, tuple[Track, ...]] = {}
        self._closed = WorkerReport()  # the totals of streams that are closed
        self._next_report = 0

    def serve(self) -> None:
        while count := self._sock.recv_into(self._inbox.room()):
            for frame in self._inbox.received(count):
                self._handle(frame)
            now = time.monotonic_ns()
            if now >= self._next_report:
                self._next_report = now + _REPORT_EVERY
                self._report()

    def _handle(self, frame: MessageFrame) -> None:
        match frame.kind:
            case WorkerMessage.PACKET:
                self._take(frame)
            case WorkerMessage.OPEN:
                self._open(frame.stream, *messages.read_open(frame.body))
            case WorkerMessage.CLOSE:
                self._close(frame.stream)
            case WorkerMessage.KEYFRAME:
                self._streams[frame.stream].request_keyframe()
            case WorkerMessage.BITRATE:
                self._streams[frame.stream].set_bitrate(messages.read_bitrate(frame.body))
            case WorkerMessage.TRIAL:
                why_not = try_encoder(bytes(frame.body).decode())
                self._sock.sendall(messages.pack(WorkerMessage.TRIED, 0, self.taken, why_not.encode(errors="replace")))
            case WorkerMessage.EFFORT:
                self._set_effort(frame)
            case WorkerMessage.MUX:
                self._mux(frame)
            case _:
                raise ValueError(f"message {frame.kind} is not for a worker")

    def _open(self, stream: int, track: Track, target: AudioTarget | VideoTarget, shown: int | None) -> None:
        existing = self._streams.get(stream)
        if existing is not None:
            existing.reopen(track)
            return
        if len(self._streams) >= _MAX_STREAMS:
            raise ValueError("too many streams in one worker")
        if isinstance(target, VideoTarget):
            assert track.kind is Kind.VIDEO
            self._streams[stream] = VideoTranscoder(track, target, shown, note=self._note)
        else:
            assert track.kind is Kind.AUDIO
            self._streams[stream] = AudioTranscoder(track, target)

    def _take(self, frame: MessageFrame) -> None:
        transcoder = self._streams[frame.stream]
        packet, silent, sent = messages.read_packet(frame.body, frame.stream)
        self.taken += 1
        answered = False
        late = not silent and isinstance(transcoder, VideoTranscoder) and self._is_late(frame.stream, sent)
        for output in transcoder.take(packet, silent or late):
            self._put(frame.stream, transcoder, output)
            answered = True
        self._late += late
        if answered:
            self._shown[frame.stream] = time.monotonic_ns()
        else:
            self._sock.sendall(messages.pack(WorkerMessage.LATE if late else WorkerMessage.PROGRESS, frame.stream, self.taken))

    def _is_late(self, stream: int, sent: int) -> bool:
        """Of a packet of video: whether it has waited for too long, and there is no need to show something at last."""
        now = time.monotonic_ns()
        return now - sent > self._late_after and now - self._shown.get(stream, 0) < _SHOWN_EVERY

    def _mux(self, frame: MessageFrame) -> None:
        self.taken += 1
        try:
            init, made = fragment(*read_mux(frame.body))
        except (FFmpegError, ProtocolError):
            init = made = b""  # the gateway counts it and puts a gap in its place
        self._sock.sendall(pack_fragment(self.taken, init, made))

    def _close(self, stream: int) -> None:
        transcoder = self._streams.pop(stream)
        for output in transcoder.finish():
            self._put(stream, transcoder, output)
        self._announced.pop(stream, None)
        self._shown.pop(stream, None)
        self._closed = _sum([self._closed, _totals(transcoder)])
        self._report()
        self._sock.sendall(messages.pack(WorkerMessage.CLOSED, stream, self.taken))

    def _set_effort(self, frame: MessageFrame) -> None:
        transcoder = self._streams[frame.stream]
        if isinstance(transcoder, VideoTranscoder):
            transcoder.set_effort(messages.read_effort(frame.body))
            if not transcoder.outputs:  # there will be no packet before which it could be told
                self._announce(frame.stream, transcoder)

    def _put(self, stream: int, transcoder: Transcoder, output: EncodedPacket) -> None:
        self._announce(stream, transcoder)
        self._sock.sendall(messages.pack_output(stream, self.taken, output, transcoder.outputs) + output.data)

    def _announce(self, stream: int, transcoder: Transcoder) -> None:
        """Tell what the output is, before the first packet that is so."""
        outputs = transcoder.outputs
        if self._announced.get(stream) is not outputs:
            if self._announced.get(stream) != outputs:
                self._sock.sendall(messages.pack_tracks(stream, self.taken, outputs))
            self._announced[stream] = outputs

    def _note(self, text: str) -> None:
        self._sock.sendall(messages.pack(WorkerMessage.NOTE, 0, self.taken, text.encode(errors="replace")))

    def _report(self) -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu = usage.ru_utime + usage.ru_stime
        totals = _sum([self._closed, *map(_totals, self._streams.values())])
        report = WorkerReport(
            totals.decoded, totals.encoded, totals.errors, totals.dropped + self._late, int(cpu * 1e9), usage.ru_maxrss * 1024
        )
        self._sock.sendall(messages.pack_stats(self.taken, report))
        # a loop without end in a codec runs into this, even where the gateway can no longer end it
        _limit(resource.RLIMIT_CPU, int(cpu) + self._cpu_allowance)


def _totals(transcoder: Transcoder) -> WorkerReport:
    return WorkerReport(transcoder.decoded, transcoder.encoded, transcoder.errors, transcoder.dropped)


def _sum(reports: list[WorkerReport]) -> WorkerReport:
    return WorkerReport(
        sum(report.decoded for report in reports),
        sum(report.encoded for report in reports),
        sum(report.errors for report in reports),
        sum(report.dropped for report in reports),
    )


def _limit(which: int, value: int) -> None:
    """Set a limit, within what is there, so that it cannot be raised again; that of CPU time moves on and keeps its hard limit."""
    hard = resource.getrlimit(which)[1]
    soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (soft, hard if which == resource.RLIMIT_CPU else soft))


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()
