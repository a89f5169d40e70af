"""One session's worker as the gateway sees it: its streams, in a process of its own or in one that serves the sound of several sessions.

Keeps true: a worker that crashes or hangs is replaced without its streams ending, once; the next crash soon after is told to the owner as a
failure. Who crashes a process that is shared, or takes too much of it, goes on in one of their own, so that others are disturbed by them
once and no more.
"""

import asyncio
from collections.abc import Callable

from protocols.errors import Rejected
from protocols.media import EncodedPacket, Track
from transcode import messages
from transcode.adaptation import Effort
from transcode.group_cache import GroupCache
from transcode.host.crashes import Crashes
from transcode.host.figures import Figures, WorkerStats
from transcode.host.fragments import Fragments
from transcode.host.handle import ProcessHandle
from transcode.host.stream import OnAdaptation, WorkerStage
from transcode.look_messages import Look, LookedAt, pack_look, read_looked
from transcode.messages import MessageFrame, WorkerMessage
from transcode.mux_messages import read_fragment
from transcode.plan import AudioTarget, VideoTarget
from transcode.slate_messages import Clip, SlatePicture, pack_slate, read_clip
from transcode.stage import OnTracks, Sink, Stage

OnNote = Callable[[str], None]
"""Told in words what a worker has to say to the operator; on the event loop, must not block or raise."""

OnFailure = Callable[[str], None]
"""Told once, in words, that a worker has failed for good; on the event loop, must not block or raise."""

Apart = Callable[[], ProcessHandle]
"""Gives a process of its own to who cannot stay in a shared one; raises `Rejected` or `OSError` where there can be none."""


class Worker:
    """Made by `Workers.start` and `Workers.sound`. Streams are opened with `audio` and `video`; leave with `aclose`."""

    def __init__(self, name: str, process: ProcessHandle, apart: Apart) -> None:
        self.name = name
        self.limits = process.limits
        self.failure: str | None = None
        self.last_crash = ""
        self._apart = apart
        self._process = process
        self._loop = asyncio.get_running_loop()
        self.fragments = Fragments(self._send_part)
        """Parts of HLS streams that it makes."""
        self._stages: list[WorkerStage] = []
        self._figures = Figures()
        self._on_failure: list[OnFailure] = []
        self._on_note: list[OnNote] = []
        self._tried: asyncio.Future[str] | None = None
        self._slated: asyncio.Future[Clip | str] | None = None
        self._looked: asyncio.Future[Look] | None = None
        self._crashes = Crashes(process.limits)
        self._closing = False
        process.join(self, self.fragments)

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

    async def slate(self, like: Track, shown: SlatePicture) -> Clip | str:
        """Pictures like those of this track, or in words why none can be made of what is to be `shown`. One at a time, in a worker for
        nothing else."""
        self._slated = self._loop.create_future()
        if not self._send_part(pack_slate(like, shown)):
            return "it is too large, or its worker cannot take it now"
        return await self._slated

    async def look(self, at: LookedAt) -> Look:
        """What is seen and heard of it; nothing where that cannot be told. One at a time, in a worker for one stream and nothing else."""
        self._looked = self._loop.create_future()
        if not self._send_part(pack_look(at)):
            return Look()
        return await self._looked

    @property
    def pid(self) -> int:
        """0 while there is no process."""
        return self._process.pid

    @property
    def closed(self) -> bool:
        return self._closing or self.failure is not None

    @property
    def adaptation(self) -> Effort | None:
        """What a video is encoded with, where that is less than was planned."""
        return next((stage.adaptation for stage in self._stages if stage.adaptation is not None), None)

    @property
    def stats(self) -> WorkerStats:
        return self._figures.stats(self.pid, self._stages)

    def shed(self) -> bool:
        """Leave out a layer, the top one that is encoded, to make room for others; False where none can be spared."""
        return any(stage.shed() for stage in self._stages)

    async def aclose(self) -> None:
        """End the process where nobody else is in it (see `ProcessHandle.aclose`). Idempotent."""
        self.abandon()
        if self._process.closed:
            await self._process.aclose()

    def abandon(self) -> None:
        """The same without waiting for it. Idempotent."""
        self._closing = True
        for stage in list(self._stages):
            stage.on_closed()
        self.fragments.give_up()
        self._end_slate("its worker was ended")
        self._end_look(Look())
        self._leave()

    # The link of a stage

    @property
    def up(self) -> bool:
        return self._process.up and not self.closed

    @property
    def backlog(self) -> int:
        return self._process.backlog

    def send(self, message: bytes) -> None:
        if not self.closed:
            self._process.send(message)

    def send_packet(self, stage: WorkerStage, packet: EncodedPacket, silent: bool) -> None:
        self._process.send_packet(stage, packet, silent)

    def forget(self, stage: WorkerStage) -> None:
        if stage in self._stages:
            self._stages.remove(stage)
            self._process.forget(stage)
            self._figures.closed(stage)

    def _send_part(self, message: bytes) -> bool:
        return bool(message) and not self.closed and self._process.send_part(self, message)

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
        number = 0 if self.closed else self._process.number(self)
        stage = WorkerStage(self, number, track, target, sink, on_tracks, group, shown, on_adaptation)
        if self.closed:
            stage.on_closed()
        else:
            self._stages.append(stage)
            self._process.serve(stage)
        return stage

    # What the process says

    def on_message(self, frame: MessageFrame) -> None:
        match frame.kind:
            case WorkerMessage.FRAGMENT:
                self.fragments.on_fragment(*read_fragment(frame.body))
            case WorkerMessage.SLATED:
                self._end_slate(read_clip(frame.body))
            case WorkerMessage.LOOKED:
                self._end_look(read_looked(frame.body))
            case WorkerMessage.TRIED:
                self._end_trial(messages.read_text(frame.body))
            case WorkerMessage.NOTE:
                self._note(messages.read_text(frame.body))

    def on_usage(self, cpu_ns: int, peak_rss: int) -> None:
        self._figures.cpu_ns += cpu_ns
        self._figures.peak_rss = peak_rss

    def on_excess(self, cores: float) -> None:
        self._note(f"its sound takes {cores:.2f} of a CPU core, and goes on in a worker of its own")
        self._go_apart()
        if not self.closed:
            self._figures.moved(self._stages)
            for stage in self._stages:
                stage.restore(None)

    def on_crash(self, why: str, *, blamed: bool) -> None:
        self.last_crash = why
        self._end_trial(f"it crashed: {why[-100:]}")
        self._end_slate(f"its worker crashed: {why[-100:]}")
        self._end_look(Look())
        self.fragments.give_up()
        suspects = [self._process.suspect(stage) for stage in self._stages]
        if blamed:
            if self._crashes.too_many(self._loop.time()):
                self.on_end(why)
                return
            if self._process.shared:
                self._go_apart()
        if not self.closed:
            self._figures.restarts += 1
            self._figures.moved(self._stages)
            for stage, suspect in zip(list(self._stages), suspects, strict=True):
                stage.restore(suspect)

    def on_end(self, why: str) -> None:
        if self.closed:
            return
        self.failure = f"transcoding has failed: {why}"
        for stage in list(self._stages):
            stage.on_closed()
        self.fragments.give_up()
        self._end_slate(f"its worker failed: {self.failure}")
        self._end_look(Look())
        self._leave()
        for callback in self._on_failure:
            callback(self.failure)

    def _note(self, text: str) -> None:
        for callback in self._on_note:
            callback(text)

    def _end_trial(self, why_not: str) -> None:
        if self._tried is not None and not self._tried.done():
            self._tried.set_result(why_not)

    def _end_slate(self, clip: Clip | str) -> None:
        if self._slated is not None and not self._slated.done():
            self._slated.set_result(clip)

    def _end_look(self, look: Look) -> None:
        if self._looked is not None and not self._looked.done():
            self._looked.set_result(look)

    def _go_apart(self) -> None:
        """Into a process of its own, in which its streams are opened anew."""
        self._leave()
        try:
            self._process = self._apart()
        except (OSError, Rejected) as error:
            self.on_end(str(error))
            return
        self._process.join(self, self.fragments)
        for stage in self._stages:
            stage.number = self._process.number(self)
            self._process.serve(stage)

    def _leave(self) -> None:
        self._process.leave(self)
        if not self._process.sessions:
            self._process.abandon()
