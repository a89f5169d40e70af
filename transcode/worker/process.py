"""A transcoding process: takes packets of its streams from its socket, gives back what comes of them, and ends with its socket.

Keeps true: one message is handled at a time; what comes of a picture leaves before the next is looked at, and what comes of sound together
with that of all that was read at once; each packet is answered by output, PROGRESS or LATE; a picture that has waited here for longer than
may be is not shown but decoded for what follows, which is what catches up, save one a second where all are late; what a stranger's stream
can do here is bounded by `confine`. This is one of the four places where any exception is caught: it is told to the gateway, and the
process ends.
"""

import contextlib
import mmap
import os
import resource
import signal
import socket
import struct
import time
import traceback
from collections.abc import Iterable, Sequence

import av.logging
from av import FFmpegError

from protocols.errors import ProtocolError
from protocols.media import EncodedPacket, Kind, Track
from transcode import messages
from transcode.limits import WorkerLimits
from transcode.look_messages import pack_looked, read_look
from transcode.messages import MessageFrame, MessageReader, StreamReport, Usage, WorkerMessage
from transcode.mux_messages import pack_fragment, read_mux
from transcode.plan import AudioTarget, VideoTarget
from transcode.slate_messages import pack_clip, pack_no_clip, read_slate
from transcode.worker import sandbox
from transcode.worker.audio import AudioTranscoder
from transcode.worker.encoders import try_encoder
from transcode.worker.look import Looker
from transcode.worker.mux import fragment
from transcode.worker.slate import slate
from transcode.worker.video import VideoTranscoder

Transcoder = AudioTranscoder | VideoTranscoder

_OPEN_FILES = 16
_REPORT_EVERY = 1_000_000_000  # ns
_SHOWN_EVERY = 1_000_000_000  # ns: a picture at least, however late
_LONGEST_FAULT = 2000  # characters
_MAX_STREAMS = 64
_COUNT = struct.Struct("=I")  # of packets, modulo 2**32


def run(sock: socket.socket, limits: WorkerLimits, devices: Sequence[str], done: mmap.mmap) -> None:
    """The life of a worker, in its own process: returns when the gateway has closed the socket. `devices`: see `sandbox`; `done` is kept
    by who waits for the process (see `WorkerProcess`)."""
    confine(sock, limits, devices)
    worker = WorkerProcess(sock, limits, done)
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
    """The streams that one process serves and the loop that feeds them."""

    def __init__(self, sock: socket.socket, limits: WorkerLimits, done: memoryview | mmap.mmap) -> None:
        """`done` is shared with who waits for this process, and holds how many packets it has been through with: their outputs may not have
        left yet when it ends."""
        self.taken = 0
        self._sock = sock
        self._done = done
        self._out: list[bytes] = []  # what has not left yet
        self._cpu_allowance = limits.cpu
        self._sound_allowance = limits.sound_cpu
        self._late_after = limits.video_queue * 1_000_000  # ns
        self._shown: dict[int, int] = {}  # by stream: when something of it last left
        self._inbox = MessageReader()
        self._streams: dict[int, Transcoder] = {}
        self._busy: dict[int, int] = {}  # by stream: ns of CPU
        self._late: dict[int, int] = {}  # by stream: pictures that had waited for too long
        self._announced: dict[int, tuple[Track, ...]] = {}
        self._looker = Looker()
        self._next_report = 0

    def serve(self) -> None:
        while count := self._sock.recv_into(self._inbox.room()):
            for frame in self._inbox.received(count):
                self._handle(frame)
            now = time.monotonic_ns()
            if now >= self._next_report:
                self._next_report = now + _REPORT_EVERY
                self._report()
            self._flush()

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
                self._out.append(messages.pack(WorkerMessage.TRIED, 0, self.taken, why_not.encode(errors="replace")))
            case WorkerMessage.EFFORT:
                self._set_effort(frame)
            case WorkerMessage.MUX:
                self._mux(frame)
            case WorkerMessage.SLATE:
                self._make_slate(frame)
            case WorkerMessage.LOOK:
                self._look(frame)
            case _:
                raise ValueError(f"message {frame.kind} is not for a worker")

    def _open(self, stream: int, track: Track, target: AudioTarget | VideoTarget, shown: int | None) -> None:
        existing = self._streams.get(stream)
        if existing is not None:
            existing.reopen(track)
            return
        if len(self._streams) >= _MAX_STREAMS:
            raise ValueError("too many streams in one worker")
        self._busy[stream] = self._late[stream] = 0
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
        begun = time.thread_time_ns()
        if isinstance(transcoder, AudioTranscoder):
            # The kernel ends the process by it; so nobody's sound waits for long for a packet that a codec does not come to an end with
            signal.setitimer(signal.ITIMER_PROF, self._sound_allowance)
            self._give(frame.stream, transcoder, transcoder.take(packet))
            signal.setitimer(signal.ITIMER_PROF, 0)
        else:
            late = not silent and self._is_late(frame.stream, sent)
            self._give(frame.stream, transcoder, transcoder.take(packet, silent or late), late)
            self._flush()
        self._busy[frame.stream] += time.thread_time_ns() - begun
        _COUNT.pack_into(self._done, 0, self.taken & 0xFFFFFFFF)

    def _give(self, stream: int, transcoder: Transcoder, outputs: Iterable[EncodedPacket], late: bool = False) -> None:
        """Answer a packet by what has come of it, if anything has."""
        answered = False
        for output in outputs:
            self._put(stream, transcoder, output)
            answered = True
        self._late[stream] += late
        if answered:
            self._shown[stream] = time.monotonic_ns()
        else:
            self._out.append(messages.pack(WorkerMessage.LATE if late else WorkerMessage.PROGRESS, stream, self.taken))

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
        self._out.append(pack_fragment(self.taken, init, made))
        self._flush()
        _COUNT.pack_into(self._done, 0, self.taken & 0xFFFFFFFF)

    def _make_slate(self, frame: MessageFrame) -> None:
        self.taken += 1
        try:
            made = pack_clip(self.taken, *slate(*read_slate(frame.body)))
        except (FFmpegError, ProtocolError, ValueError) as error:  # ValueError: a size of which there are no pictures
            made = pack_no_clip(self.taken, str(error))  # the gateway goes on without
        self._answer(made)

    def _look(self, frame: MessageFrame) -> None:
        self.taken += 1
        self._answer(pack_looked(self.taken, self._looker.look(read_look(frame.body))))

    def _answer(self, made: bytes) -> None:
        self._out.append(made)
        self._flush()
        _COUNT.pack_into(self._done, 0, self.taken & 0xFFFFFFFF)

    def _close(self, stream: int) -> None:
        transcoder = self._streams.pop(stream, None)
        if transcoder is None:
            return  # it was told before, by who no longer waits for the answer
        for output in transcoder.finish():
            self._put(stream, transcoder, output)
        self._out.append(messages.pack_stats(stream, self.taken, self._totals(stream, transcoder)))
        self._out.append(messages.pack(WorkerMessage.CLOSED, stream, self.taken))
        for kept in (self._announced, self._shown, self._busy, self._late):
            kept.pop(stream, None)
        self._report()

    def _set_effort(self, frame: MessageFrame) -> None:
        transcoder = self._streams[frame.stream]
        if isinstance(transcoder, VideoTranscoder):
            transcoder.set_effort(messages.read_effort(frame.body))
            if not transcoder.outputs:  # there will be no packet before which it could be told
                self._announce(frame.stream, transcoder)

    def _put(self, stream: int, transcoder: Transcoder, output: EncodedPacket) -> None:
        self._announce(stream, transcoder)
        self._out += messages.pack_output(stream, self.taken, output, transcoder.outputs), output.data
        if isinstance(transcoder, VideoTranscoder):
            self._flush()  # before the next layer is encoded

    def _announce(self, stream: int, transcoder: Transcoder) -> None:
        """Tell what the output is, before the first packet that is so."""
        outputs = transcoder.outputs
        if self._announced.get(stream) is not outputs:
            if self._announced.get(stream) != outputs:
                self._out.append(messages.pack_tracks(stream, self.taken, outputs))
            self._announced[stream] = outputs

    def _note(self, text: str) -> None:
        self._out.append(messages.pack(WorkerMessage.NOTE, 0, self.taken, text.encode(errors="replace")))

    def _flush(self) -> None:
        if self._out:
            said, self._out = b"".join(self._out), []
            self._sock.sendall(said)

    def _report(self) -> None:
        for stream, transcoder in self._streams.items():
            self._out.append(messages.pack_stats(stream, self.taken, self._totals(stream, transcoder)))
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu = usage.ru_utime + usage.ru_stime
        self._out.append(messages.pack_usage(self.taken, Usage(int(cpu * 1e9), usage.ru_maxrss * 1024)))
        # a loop without end in a codec runs into this, even where the gateway can no longer end it
        _limit(resource.RLIMIT_CPU, int(cpu) + self._cpu_allowance)

    def _totals(self, stream: int, transcoder: Transcoder) -> StreamReport:
        dropped = transcoder.dropped + self._late[stream]
        return StreamReport(transcoder.decoded, transcoder.encoded, transcoder.errors, dropped, self._busy[stream])


def _limit(which: int, value: int) -> None:
    """Set a limit, within what is there, so that it cannot be raised again; that of CPU time moves on and keeps its hard limit."""
    hard = resource.getrlimit(which)[1]
    soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (soft, hard if which == resource.RLIMIT_CPU else soft))


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()
