"""One session's worker process as the gateway sees it: its socket, its queue, and its life.

Keeps true: the event loop never blocks on a worker; a packet is written at once; what comes back is parsed as from a stranger; a worker
that crashes or hangs (a packet in hand and no progress) is replaced without its streams ending, once; the next crash soon after is
told to the owner as a failure.
"""

import asyncio
import signal
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from protocols.errors import ProtocolError
from protocols.media import EncodedPacket, Track
from transcode import messages
from transcode.child import Child, Launch
from transcode.economy import Effort
from transcode.fragments import Fragments
from transcode.limits import WorkerLimits
from transcode.messages import Frame, Inbox, Message, WorkerReport
from transcode.mux_messages import read_fragment
from transcode.plan import AudioTarget, VideoTarget
from transcode.stage import OnTracks, Sink, Stage
from transcode.stream import OnEconomy, WorkerStage

OnNote = Callable[[str], None]
"""Told in words what a worker has to say to the operator; on the event loop, must not block or raise."""

OnFailure = Callable[[str], None]
"""Told once, in words, that a worker has failed for good; on the event loop, must not block or raise."""

_MAX_STREAM_NUMBER = 0xFFFF


@dataclass(slots=True)
class WorkerStats:
    """Plain totals over all restarts."""

    pid: int = 0
    restarts: int = 0
    dropped: int = 0  # packets, before the worker or in it
    lowered: int = 0  # steps down to cheaper encoding, since it could not keep up
    decoded: int = 0
    encoded: int = 0
    errors: int = 0
    cpu_ns: int = 0  # as last reported, at most about 1 s old
    peak_rss: int = 0  # bytes

    def plus(self, *others: "WorkerStats") -> "WorkerStats":
        """The totals of several workers, with the pid of none and the peak of the largest."""
        each = (self, *others)
        sums = {name: sum(getattr(one, name) for one in each) for name in _SUMMED}
        return WorkerStats(**sums, peak_rss=max(one.peak_rss for one in each))


_SUMMED = ("restarts", "dropped", "lowered", "decoded", "encoded", "errors", "cpu_ns")


class Worker:
    """Made by `Workers.start`. Streams are opened with `audio` and `video`; leave with `aclose`."""

    def __init__(self, name: str, launch: Launch, limits: WorkerLimits) -> None:
        self.name = name
        self.limits = limits
        self.failure: str | None = None
        self.last_crash = ""
        self._launch = launch
        self._loop = asyncio.get_running_loop()
        self.fragments = Fragments(self._send_part)
        """Parts of HLS streams that it makes."""
        self._stages: dict[int, WorkerStage] = {}
        self._gone_dropped = self._gone_lowered = 0  # by stages that are closed
        self._next_number = 0
        self._on_failure: list[OnFailure] = []
        self._on_note: list[OnNote] = []
        self._tried: asyncio.Future[str] | None = None
        self._crashes: deque[float] = deque(maxlen=limits.restarts + 1)
        self._restarts = 0
        self._earlier: list[WorkerReport] = []  # the last reports of workers that have ended
        self._report = WorkerReport()
        self._closing = False
        self._exited = asyncio.Event()
        self._fault = ""
        self._hung = False
        self._child: Child
        self._sock: socket.socket | None = None
        self._inbox = Inbox()
        self._outbox: deque[memoryview] = deque()
        self._outbox_size = 0
        self._unanswered: deque[tuple[WorkerStage | Fragments, int]] = deque()  # and dts
        self._taken = 0
        self._last_progress = 0.0
        self._hang_timer: asyncio.TimerHandle | None = None
        self._connect()

    def audio(self, track: Track, target: AudioTarget, sink: Sink, on_tracks: OnTracks | None = None) -> Stage:
        """Transcode an audio track to Opus."""
        return self._open(track, target, sink, on_tracks)

    def video(
        self,
        track: Track,
        target: VideoTarget,
        sink: Sink,
        on_tracks: OnTracks | None = None,
        shown: int | None = None,
        on_economy: OnEconomy | None = None,
    ) -> Stage:
        """Transcode a video track to H.264 in the layers of `target`, from the first picture after the pts `shown` (ns) on."""
        return self._open(track, target, sink, on_tracks, shown, on_economy)

    def on_failure(self, callback: OnFailure) -> None:
        self._on_failure.append(callback)

    def on_note(self, callback: OnNote) -> None:
        self._on_note.append(callback)

    async def trial(self, encoder: str) -> str:
        """Why an H.264 encoder does not work here; empty if it does. One at a time, in a worker for nothing else."""
        self._tried = self._loop.create_future()
        self.send(messages.pack(Message.TRIAL, body=encoder.encode()))
        return await self._tried

    @property
    def closed(self) -> bool:
        return self._closing or self.failure is not None

    @property
    def economy(self) -> Effort | None:
        """What a video is encoded with, where that is less than was planned."""
        return next((stage.economy for stage in self._stages.values() if stage.economy is not None), None)

    @property
    def stats(self) -> WorkerStats:
        reports = [*self._earlier, self._report]
        return WorkerStats(
            pid=self._child.pid if self._sock is not None else 0,
            restarts=self._restarts,
            dropped=self._gone_dropped
            + sum(stage.stats.dropped for stage in self._stages.values())
            + sum(report.dropped for report in reports),
            lowered=self._gone_lowered + sum(stage.stats.lowered for stage in self._stages.values()),
            decoded=sum(report.decoded for report in reports),
            encoded=sum(report.encoded for report in reports),
            errors=sum(report.errors for report in reports),
            cpu_ns=sum(report.cpu_ns for report in reports),
            peak_rss=self._report.peak_rss,
        )

    def shed(self) -> bool:
        """Leave out a layer, the top one that is encoded, to make room for others; False where none can be spared."""
        return any(stage.shed() for stage in self._stages.values())

    async def aclose(self) -> None:
        """End the process: by closing its socket, or by force where that takes too long. Idempotent."""
        self.abandon()
        for _ in range(2):
            if not self._child.watched:
                return
            try:
                async with asyncio.timeout(self.limits.close):
                    await self._exited.wait()
            except TimeoutError:
                self._child.kill()

    def abandon(self) -> None:
        """Close the socket, by which the process ends, without waiting for that. Idempotent."""
        self._closing = True
        self._disconnect()
        for stage in list(self._stages.values()):
            stage.on_closed()
        self.fragments.give_up()

    # The link of a stage

    @property
    def up(self) -> bool:
        return self._sock is not None

    @property
    def backlog(self) -> int:
        return self._outbox_size

    def send(self, message: bytes) -> None:
        if self._sock is not None:
            self._write(message)

    def send_packet(self, stage: WorkerStage, packet: EncodedPacket, silent: bool) -> None:
        if self._sock is not None:
            self._expect(stage, packet.dts)
            self._write(messages.pack_packet(stage.number, packet, silent), packet.data)

    def _send_part(self, message: bytes) -> bool:
        if self._sock is None or self._outbox_size > self.limits.backlog:
            return False
        self._expect(self.fragments, 0)
        self._write(message)
        return True

    def _expect(self, stage: WorkerStage | Fragments, dts: int) -> None:
        """An answer, from now on."""
        if not self._unanswered:
            self._last_progress = self._loop.time()
            if self._hang_timer is None:
                self._hang_timer = self._loop.call_later(self.limits.hang, self._check_progress)
        self._unanswered.append((stage, dts))

    def forget(self, stage: WorkerStage) -> None:
        if self._stages.pop(stage.number, None) is not None:
            self._gone_dropped += stage.stats.dropped
            self._gone_lowered += stage.stats.lowered

    def _open(
        self,
        track: Track,
        target: AudioTarget | VideoTarget,
        sink: Sink,
        on_tracks: OnTracks | None,
        shown: int | None = None,
        on_economy: OnEconomy | None = None,
    ) -> WorkerStage:
        while self._next_number in self._stages:
            self._next_number = (self._next_number + 1) & _MAX_STREAM_NUMBER
        number = self._next_number
        self._next_number = (number + 1) & _MAX_STREAM_NUMBER
        stage = WorkerStage(self, number, track, target, sink, on_tracks, shown, on_economy)
        self._stages[number] = stage
        if self.closed:
            stage.on_closed()
        return stage

    # The socket

    def _connect(self) -> None:
        self._child = self._launch(self._on_exit)
        self._sock = self._child.sock
        self._exited.clear()
        self._inbox = Inbox()
        self._taken = 0
        self._fault = ""
        self._hung = False
        self._loop.add_reader(self._sock, self._readable)

    def _disconnect(self) -> None:
        if self._sock is None:
            return
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self._sock = None
        self._outbox.clear()
        self._outbox_size = 0
        if self._hang_timer is not None:
            self._hang_timer.cancel()
            self._hang_timer = None

    def _write(self, head: bytes, data: bytes = b"") -> None:
        assert self._sock is not None
        sent = 0
        if not self._outbox:
            try:
                sent = self._sock.sendmsg((head, data))
            except BlockingIOError:
                pass
            except OSError:
                return  # it has ended: the read side says so
            if sent == len(head) + len(data):
                return
            self._loop.add_writer(self._sock, self._writable)
        for part in (head, data):
            if sent < len(part):
                self._outbox.append(memoryview(part)[sent:])
                self._outbox_size += len(part) - sent
            sent = max(0, sent - len(part))

    def _writable(self) -> None:
        assert self._sock is not None
        while self._outbox:
            part = self._outbox[0]
            try:
                sent = self._sock.send(part)
            except BlockingIOError:
                return
            except OSError:
                break
            self._outbox_size -= sent
            if sent < len(part):
                self._outbox[0] = part[sent:]
                return
            self._outbox.popleft()
        self._loop.remove_writer(self._sock)

    def _readable(self) -> bool:
        """Handle what has come; False where nothing had."""
        sock = self._sock
        if sock is None:
            return False
        try:
            count = sock.recv_into(self._inbox.room())
        except BlockingIOError:
            return False
        except OSError:
            count = 0
        if count == 0:
            self._lose()
            return False
        try:
            for frame in self._inbox.received(count):
                self._handle(frame)
                if self._sock is not sock:  # closed by what a sink did
                    return False
        except ProtocolError as error:
            self._fault = str(error)
            self._lose()
            return False
        return True

    def _handle(self, frame: Frame) -> None:
        self._progress(frame.taken)
        stage = self._stages.get(frame.stream)
        match frame.kind:
            case Message.OUTPUT if stage is not None:
                stage.on_output(messages.read_output(frame.body, stage.tracks))
            case Message.TRACKS if stage is not None:
                stage.on_output_tracks(messages.read_tracks(frame.body))
            case Message.CLOSED if stage is not None:
                stage.on_closed()
            case Message.FRAGMENT:
                self.fragments.on_fragment(*read_fragment(frame.body))
            case Message.STATS:
                self._report = messages.read_stats(frame.body)
            case Message.TRIED:
                self._end_trial(messages.read_text(frame.body))
            case Message.NOTE:
                text = messages.read_text(frame.body)
                for callback in self._on_note:
                    callback(text)
            case Message.FAULT:
                self._fault = bytes(frame.body[:2000]).decode(errors="replace")

    def _end_trial(self, why_not: str) -> None:
        if self._tried is not None and not self._tried.done():
            self._tried.set_result(why_not)

    def _progress(self, taken: int) -> None:
        count = (taken - self._taken) & 0xFFFFFFFF
        if count == 0:
            return
        if count > len(self._unanswered):
            raise ProtocolError("a worker that answers more than it was asked")
        self._taken = taken
        self._last_progress = self._loop.time()
        for _ in range(count):
            stage, _ = self._unanswered.popleft()
            stage.on_taken()

    # Crashes and hangs

    def _check_progress(self) -> None:
        self._hang_timer = None
        self._readable()  # if it was us who stood still, the answers are here
        if not self._unanswered or self._sock is None:
            return
        idle = self._loop.time() - self._last_progress
        if idle >= self.limits.hang:
            self._hung = True
            self._fault = f"no progress for {idle:.1f} s"
            self._lose()
        else:
            self._hang_timer = self._loop.call_later(self.limits.hang - idle, self._check_progress)

    def _lose(self) -> None:
        """The socket is of no more use: see that the process ends. Its exit starts the next."""
        self._disconnect()
        if self._child.watched:
            self._child.kill()
        elif not self._exited.is_set():
            self._fail("the fork server has gone")

    def _on_exit(self, status: int) -> None:
        self._exited.set()
        while self._readable():
            pass  # what it gave before it ended is good
        self._disconnect()
        if self._closing or self.failure is not None:
            return
        self.last_crash = self._fault or (f"signal {-status}" if status < 0 else f"exit {status}")
        self._end_trial(f"it crashed: {self.last_crash[-100:]}")
        now = self._loop.time()
        while self._crashes and now - self._crashes[0] > self.limits.restart_window:
            self._crashes.popleft()
        self._crashes.append(now)
        if len(self._crashes) > self.limits.restarts:
            self._fail(self.last_crash)
            return
        # Killed from outside (the kernel short of memory, an operator): no packet of the stream is to blame
        innocent = status == -signal.SIGKILL and not self._hung
        suspect = None if innocent or not self._unanswered else self._unanswered[0]
        self._unanswered.clear()
        self.fragments.give_up()
        self._earlier.append(self._report)
        self._report = WorkerReport()
        try:
            self._connect()
        except OSError as error:
            self._fail(str(error))
            return
        self._restarts += 1
        for stage in list(self._stages.values()):
            stage.restore(suspect[1] if suspect is not None and suspect[0] is stage else None)

    def _fail(self, why: str) -> None:
        if self.failure is not None or self._closing:
            return
        self.failure = f"transcoding has failed: {why}"
        self._unanswered.clear()
        for stage in list(self._stages.values()):
            stage.on_closed()
        self.fragments.give_up()
        for callback in self._on_failure:
            callback(self.failure)
