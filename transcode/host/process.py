"""One session's worker process as the gateway sees it: its streams and its life.

Keeps true: a worker that crashes or hangs (`unanswered`) is replaced without its streams ending, once; the next crash soon after is told to
the owner as a failure.
"""

import asyncio
import signal
from collections import deque
from collections.abc import Callable
from time import monotonic_ns

from protocols.media import EncodedPacket, Track
from transcode import messages
from transcode.adaptation import Effort
from transcode.group_cache import GroupCache
from transcode.host.child import Child, Launch
from transcode.host.figures import Figures, WorkerStats
from transcode.host.fragments import Fragments
from transcode.host.pipe import Pipe
from transcode.host.stream import OnAdaptation, WorkerStage
from transcode.host.unanswered import Unanswered
from transcode.limits import WorkerLimits
from transcode.messages import MessageFrame, WorkerMessage
from transcode.mux_messages import read_fragment
from transcode.plan import AudioTarget, VideoTarget
from transcode.stage import OnTracks, Sink, Stage

OnNote = Callable[[str], None]
"""Told in words what a worker has to say to the operator; on the event loop, must not block or raise."""

OnFailure = Callable[[str], None]
"""Told once, in words, that a worker has failed for good; on the event loop, must not block or raise."""

_MAX_STREAM_NUMBER = 0xFFFF


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
        self._figures = Figures()
        self._next_number = 0
        self._on_failure: list[OnFailure] = []
        self._on_note: list[OnNote] = []
        self._tried: asyncio.Future[str] | None = None
        self._crashes: deque[float] = deque(maxlen=limits.restarts + 1)
        self._closing = False
        self._exited = asyncio.Event()
        self._fault = ""  # why the present process ends, as far as it is known before its exit
        self._hung = False
        self._child: Child
        self._pipe: Pipe
        self._unanswered: Unanswered
        self._connect()

    def audio(self, track: Track, target: AudioTarget, sink: Sink, on_tracks: OnTracks | None = None) -> Stage:
        """Transcode an audio track to Opus or AAC."""
        return self._open(track, target, sink, on_tracks, None)

    def video(
        self,
        track: Track,
        target: VideoTarget,
        sink: Sink,
        group: GroupCache,
        on_tracks: OnTracks | None = None,
        shown: int | None = None,
        on_adaptation: OnAdaptation | None = None,
    ) -> Stage:
        """Transcode a video track in the layers of `target`, from the first picture after the pts `shown` (ns) on. `group` is the track's
        (see `WorkerStage`)."""
        return self._open(track, target, sink, on_tracks, group, shown, on_adaptation)

    def on_failure(self, callback: OnFailure) -> None:
        self._on_failure.append(callback)

    def on_note(self, callback: OnNote) -> None:
        self._on_note.append(callback)

    async def trial(self, encoder: str) -> str:
        """Why an H.264 encoder does not work here; empty if it does. One at a time, in a worker for nothing else."""
        self._tried = self._loop.create_future()
        self.send(messages.pack(WorkerMessage.TRIAL, body=encoder.encode()))
        return await self._tried

    @property
    def pid(self) -> int:
        """0 while there is no process."""
        return self._child.pid if self.up else 0

    def end(self, fault: str) -> None:
        """End the present process by force; its exit starts the next one, in which its streams go on. Empty: the fault is known already."""
        self._fault = fault or self._fault
        self._disconnect()
        if self._child.watched:
            self._child.kill()
        elif not self._exited.is_set():
            self._fail("the fork server has gone")

    @property
    def closed(self) -> bool:
        return self._closing or self.failure is not None

    @property
    def adaptation(self) -> Effort | None:
        """What a video is encoded with, where that is less than was planned."""
        return next((stage.adaptation for stage in self._stages.values() if stage.adaptation is not None), None)

    @property
    def stats(self) -> WorkerStats:
        return self._figures.stats(self.pid, (stage.stats for stage in self._stages.values()))

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
        return self._pipe.open

    @property
    def backlog(self) -> int:
        return self._pipe.backlog

    def send(self, message: bytes) -> None:
        self._pipe.write(message)

    def send_packet(self, stage: WorkerStage, packet: EncodedPacket, silent: bool) -> None:
        if self.up:
            self._unanswered.expect(stage, packet.dts)
            self._pipe.write(messages.pack_packet(stage.number, packet, silent, monotonic_ns()), packet.data)

    def _send_part(self, message: bytes) -> bool:
        if not self.up or self.backlog > self.limits.backlog:
            return False
        self._unanswered.expect(self.fragments, 0)
        self._pipe.write(message)
        return True

    def forget(self, stage: WorkerStage) -> None:
        if self._stages.pop(stage.number, None) is not None:
            self._figures.closed(stage.stats)

    def _open(
        self,
        track: Track,
        target: AudioTarget | VideoTarget,
        sink: Sink,
        on_tracks: OnTracks | None,
        group: GroupCache | None,
        shown: int | None = None,
        on_adaptation: OnAdaptation | None = None,
    ) -> WorkerStage:
        while self._next_number in self._stages:
            self._next_number = (self._next_number + 1) & _MAX_STREAM_NUMBER
        number = self._next_number
        self._next_number = (number + 1) & _MAX_STREAM_NUMBER
        stage = WorkerStage(self, number, track, target, sink, on_tracks, group, shown, on_adaptation)
        self._stages[number] = stage
        if self.closed:
            stage.on_closed()
        return stage

    # The process

    def _connect(self) -> None:
        self._child = self._launch(self._on_exit)
        self._exited.clear()
        self._fault = ""
        self._hung = False
        self._pipe = Pipe(self._child.sock, self._handle, self.end)
        self._unanswered = Unanswered(self.limits.hang, self._pipe.read, self._on_hang)

    def _disconnect(self) -> None:
        self._pipe.close()
        self._unanswered.stop()

    def _handle(self, frame: MessageFrame) -> None:
        self._unanswered.answered(frame.taken)
        stage = self._stages.get(frame.stream)
        match frame.kind:
            case WorkerMessage.OUTPUT if stage is not None:
                stage.on_output(messages.read_output(frame.body, stage.tracks))
            case WorkerMessage.LATE if stage is not None:
                stage.on_late()
            case WorkerMessage.TRACKS if stage is not None:
                stage.on_output_tracks(messages.read_tracks(frame.body))
            case WorkerMessage.CLOSED if stage is not None:
                stage.on_closed()
            case WorkerMessage.FRAGMENT:
                self.fragments.on_fragment(*read_fragment(frame.body))
            case WorkerMessage.STATS:
                self._figures.report = messages.read_stats(frame.body)
            case WorkerMessage.TRIED:
                self._end_trial(messages.read_text(frame.body))
            case WorkerMessage.NOTE:
                text = messages.read_text(frame.body)
                for callback in self._on_note:
                    callback(text)
            case WorkerMessage.FAULT:
                self._fault = bytes(frame.body[:2000]).decode(errors="replace")

    def _end_trial(self, why_not: str) -> None:
        if self._tried is not None and not self._tried.done():
            self._tried.set_result(why_not)

    # Crashes and hangs

    def _on_hang(self, idle: float) -> None:
        self._hung = True
        self.end(f"no progress for {idle:.1f} s")

    def _on_exit(self, status: int) -> None:
        self._exited.set()
        while self._pipe.read():
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
        suspect = None if innocent else self._unanswered.first
        self.fragments.give_up()
        try:
            self._connect()
        except OSError as error:
            self._fail(str(error))
            return
        self._figures.restarted()
        for stage in list(self._stages.values()):
            stage.restore(suspect[1] if suspect is not None and suspect[0] is stage else None)

    def _fail(self, why: str) -> None:
        if self.failure is not None or self._closing:
            return
        self.failure = f"transcoding has failed: {why}"
        for stage in list(self._stages.values()):
            stage.on_closed()
        self.fragments.give_up()
        for callback in self._on_failure:
            callback(self.failure)
