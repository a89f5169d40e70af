"""One track on its way through a worker process: the gateway's side, a `Stage`.

Keeps true: from the first packet on, at most so many ms of media wait for the worker to be shown (of audio the oldest is dropped, video up
to the next key frame, all counted); the group of pictures under way is at hand, so that a worker which starts anew shows a picture at once:
it decodes the group in silence up to now. What is only decoded for what follows is not late, however much of it there is. Of audio the
worker has few packets at a time, so that nobody waits for long whose sound is made by the same one; those that it ended with are given to
the next one again.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from protocols.media import EncodedPacket, Track
from transcode import messages
from transcode.adaptation import Adaptation, Effort, steps
from transcode.group_cache import GroupCache
from transcode.limits import WorkerLimits
from transcode.messages import StreamReport, WorkerMessage
from transcode.plan import AudioTarget, VideoTarget
from transcode.stage import OnTracks, Sink

OnAdaptation = Callable[[Effort, bool], None]
"""Told what a video is encoded with from here on, and whether that is cheaper than before."""

_MS = 1_000_000
_LONGEST_DURATION = 200 * _MS
# Of media that may come while a worker decodes the group it began with: longer, and it does not catch up by itself.
_CATCH_UP = 1000 * _MS
_MOST_PENDING = 5000  # packets, whatever their times are
_MOST_GIVEN = 4  # packets of audio that the worker may have in hand: 85 ms of AAC


@dataclass(slots=True)
class StreamStats:
    """Plain totals since the start."""

    packets_in: int = 0
    packets_out: int = 0
    dropped: int = 0  # on the way to the worker: it was too far behind, or the message too large
    lowered: int = 0  # steps down to cheaper encoding


class Link(Protocol):
    """What a stage needs of its worker."""

    @property
    def limits(self) -> WorkerLimits: ...

    @property
    def up(self) -> bool:
        """False while the worker starts anew, and for good after it was closed or has failed."""

    @property
    def backlog(self) -> int:
        """Bytes that the worker's socket has not taken yet."""

    def send(self, message: bytes) -> None: ...

    def send_packet(self, stage: "WorkerStage", packet: EncodedPacket, silent: bool) -> None: ...

    def forget(self, stage: "WorkerStage") -> None: ...


class WorkerStage:
    """A `Stage` whose work is done by a worker process. Made by `Worker.audio` and `Worker.video`."""

    def __init__(
        self,
        link: Link,
        number: int,
        track: Track,
        target: AudioTarget | VideoTarget,
        sink: Sink,
        on_tracks: OnTracks | None,
        group: GroupCache | None,
        shown: int | None = None,
        on_adaptation: OnAdaptation | None = None,
    ) -> None:
        """`group` is the track's, kept by the owner: each packet is added to it before it is processed here; None for audio. Pictures up to
        the pts `shown` (ns) are decoded for what follows them and do not come out."""
        self.number = number
        """In the worker's present process."""
        self.stats = StreamStats()
        self.report = StreamReport()
        """The last one of that process."""
        self._link = link
        self._source = track
        self._target = target
        self._sink = sink
        self._on_tracks = on_tracks
        self._outputs = _expected_outputs(track, target)
        self._on_adaptation = on_adaptation
        video = isinstance(target, VideoTarget)
        sizes = [(rung.width, rung.height) for rung in target.encoded] if isinstance(target, VideoTarget) else []
        self._steps = steps(sizes, last_may_go=target.passed) if isinstance(target, VideoTarget) else ()
        self._adaptation = Adaptation(len(self._steps) - 1) if video else None
        self._skipped = False  # some of the video, since the worker last took a packet
        limits = link.limits
        self._group = group
        self._queue_limit = (limits.video_queue if video else limits.audio_queue) * _MS
        self._shown = shown
        self._pending: deque[int] = deque()  # duration of each packet that the worker has not taken; 0 if it is not shown
        self._waiting = 0  # their sum
        self._last_dts: int | None = None
        self._primed = 0  # how many of those were shown before the stage began
        self._silent = 0  # how many of those are decoded in silence: while there are any, the worker catches up after a restart
        self._given: deque[EncodedPacket] = deque()  # audio that the worker has not taken
        self._held: deque[EncodedPacket] = deque()  # audio that waits until it has, or is there again
        self._held_bytes = 0
        self._catch_up_until: int | None = None  # dts at which it should have caught up; known when it has begun
        self._skipping = False  # video up to the next key frame
        self._keyframe_asked = False
        self._bitrate: int | None = None
        self._closed: asyncio.Event | None = None
        link.send(messages.pack_open(number, track, target, shown))

    @property
    def tracks(self) -> tuple[Track, ...]:
        return self._outputs

    @property
    def adaptation(self) -> Effort | None:
        """What the video is encoded with, where that is less than was planned, since the worker cannot keep up."""
        return self._steps[self._adaptation.level] if self._adaptation is not None and self._adaptation.level else None

    def shed(self) -> bool:
        """Leave out the top layer that is still encoded, to make room for others; False where none can be spared."""
        adaptation = self._adaptation
        if adaptation is None or self._closed is not None:
            return False
        left_out = self._steps[adaptation.level].shed
        level = next((level for level, step in enumerate(self._steps) if step.shed > left_out), None)
        if level is None or not adaptation.relieve(level):
            return False
        self._work_with_effort(cheaper=True)
        return True

    @property
    def queued(self) -> int:
        """Packets that the worker has not taken yet."""
        return len(self._pending) + len(self._held)

    def process(self, packet: EncodedPacket) -> None:
        if self._closed is not None:
            return
        self.stats.packets_in += 1
        if self._group is None:
            self._hold(packet)
        elif not self._link.up:
            return  # it is in the group
        elif self._admit(packet):
            self._dispatch(packet, silent=self._catching_up)
        else:
            self.stats.dropped += 1

    def reconfigure(self, track: Track) -> None:
        self._source = track
        self._link.send(messages.pack_open(self.number, track, self._target))

    def request_keyframe(self, layer: str = "") -> bool:
        if self._group is None:
            return False
        if not self._keyframe_asked:  # once until it comes, however many viewers ask
            self._keyframe_asked = True
            self._link.send(messages.pack(WorkerMessage.KEYFRAME, self.number))
        return True

    @property
    def starved(self) -> bool:
        return self._skipping and self._waiting <= self._queue_limit // 2

    def set_bitrate(self, bits_per_second: int) -> None:
        if bits_per_second != self._bitrate:
            self._bitrate = bits_per_second
            self._link.send(messages.pack_bitrate(self.number, bits_per_second))

    async def aclose(self) -> None:
        """Let the worker give what it still holds, then close the stream there. Idempotent."""
        if self._closed is None:
            self._closed = asyncio.Event()
            if self._link.up:
                self._feed(len(self._held) + len(self._pending))
                self._link.send(messages.pack(WorkerMessage.CLOSE, self.number))
            else:
                self._closed.set()
        try:
            async with asyncio.timeout(self._link.limits.close):
                await self._closed.wait()
        except TimeoutError:  # a worker that does not answer at all is the owner's concern, and found by its hang limit
            self.stats.dropped += self.queued
        finally:
            self._link.forget(self)

    # What the worker says

    def on_output(self, packet: EncodedPacket) -> None:
        self.stats.packets_out += 1
        if packet.keyframe:
            self._keyframe_asked = False
        self._sink(packet)

    def on_output_tracks(self, tracks: tuple[Track, ...]) -> None:
        self._outputs = tuple(replace(track, id=self._source.id) for track in tracks)
        if self._on_tracks is not None:
            self._on_tracks(self._outputs)

    def on_taken(self) -> None:
        if self._pending:
            self._waiting -= self._pending.popleft()
            if self._given:
                self._given.popleft()
                self._feed(_MOST_GIVEN)
            self._silent = max(0, self._silent - 1)  # these come first
            self._primed = max(0, self._primed - 1)
            if self._catch_up_until is None and self._last_dts is not None:
                self._catch_up_until = self._last_dts + _CATCH_UP
            if not self._catching_up:
                self._economise()

    def on_late(self) -> None:
        """The worker has left out pictures that had waited for too long."""
        self._skipped = True

    def on_closed(self) -> None:
        """The worker has closed the stream, or has gone for good."""
        if self._closed is None:
            self._closed = asyncio.Event()
        self._closed.set()

    def restore(self, suspect: int | None) -> None:
        """Open the stream in a new worker and bring it up to now. `suspect` is the dts of the packet at which the old one ended: it is left
        out, since it may be what ended it."""
        if self._closed is not None:
            self._closed.set()
            return
        for packet in reversed(self._given):
            if packet.dts != suspect:
                self._held.appendleft(packet)
                self._held_bytes += len(packet.data)
        self._given.clear()
        self._pending.clear()
        self._waiting = 0
        self._silent = self._primed = 0
        self._catch_up_until = None
        self._keyframe_asked = False
        self._link.send(messages.pack_open(self.number, self._source, self._target))
        if self._bitrate is not None:
            self._link.send(messages.pack_bitrate(self.number, self._bitrate))
        if self._adaptation is not None and self._adaptation.level:
            self._link.send(messages.pack_effort(self.number, self._steps[self._adaptation.level]))
        if self._group is not None:
            packets = self._group.packets if all(map(messages.fits, self._group.packets)) else []
            self._skipping = not packets or packets[0].dts == suspect  # without its key frame a group is worth nothing
            if not self._skipping:
                for packet in packets:
                    if packet.dts != suspect:
                        self._dispatch(packet, silent=True)
        self._feed(_MOST_GIVEN)

    @property
    def _catching_up(self) -> bool:
        """Whether the worker is still at the group with which it started anew, and has time for that."""
        if not self._silent:
            return False
        return self._catch_up_until is None or self._last_dts is None or self._last_dts <= self._catch_up_until

    def _economise(self) -> None:
        """After a packet that the worker has taken: let it work cheaper if it cannot keep up, or dearer if it long could."""
        skipped, self._skipped = self._skipped, False
        if self._adaptation is None or self._last_dts is None:
            return
        before = self._adaptation.level
        if self._adaptation.observe(self._waiting, skipped, self._last_dts):
            self._work_with_effort(cheaper=self._adaptation.level > before)

    def _work_with_effort(self, cheaper: bool) -> None:
        assert self._adaptation is not None
        effort = self._steps[self._adaptation.level]
        self._link.send(messages.pack_effort(self.number, effort))
        self.stats.lowered += cheaper
        if self._on_adaptation is not None:
            self._on_adaptation(effort, cheaper)

    def _dispatch(self, packet: EncodedPacket, silent: bool) -> None:
        # a gap or jump in the source's time is not media that waits
        duration = 0 if self._last_dts is None else max(0, min(packet.dts - self._last_dts, _LONGEST_DURATION))
        self._last_dts = packet.dts
        primed = self._shown is not None and packet.pts <= self._shown
        if silent or primed:
            duration = 0
        if self._group is None:
            self._given.append(packet)
        self._pending.append(duration)
        self._waiting += duration
        self._silent += silent
        self._primed += primed
        self._link.send_packet(self, packet, silent)

    def _admit(self, packet: EncodedPacket) -> bool:
        """Whether a packet of video may go to the worker, or the worker is too far behind for it."""
        full = (
            self._waiting > self._queue_limit + (_CATCH_UP if self._primed else 0)
            or len(self._pending) > _MOST_PENDING
            or self._link.backlog > self._link.limits.backlog
            or not messages.fits(packet)
        )
        if full:
            self._skipped = self._skipping = True
        elif packet.keyframe:
            self._skipping = False
        return not self._skipping

    def _hold(self, packet: EncodedPacket) -> None:
        """Keep audio until the worker can have it, the newest of it."""
        if not messages.fits(packet):
            self.stats.dropped += 1
            return
        self._held.append(packet)
        self._held_bytes += len(packet.data)
        self._feed(_MOST_GIVEN)
        while self._held and (
            packet.dts - self._held[0].dts > self._queue_limit
            or len(self._held) > _MOST_PENDING
            or self._held_bytes > self._link.limits.backlog
        ):
            self._held_bytes -= len(self._held.popleft().data)
            self.stats.dropped += 1

    def _feed(self, most: int) -> None:
        """Give the worker what waits for it, while it has fewer than `most` in hand."""
        while self._held and len(self._pending) < most and self._link.up:
            packet = self._held.popleft()
            self._held_bytes -= len(packet.data)
            self._dispatch(packet, silent=False)


def _expected_outputs(track: Track, target: AudioTarget | VideoTarget) -> tuple[Track, ...]:
    """What is known of the output before the worker says more."""
    if isinstance(target, AudioTarget):
        return (Track(track.id, target.codec, sample_rate=48_000, channels=2),)
    known = bool(target.width)
    return tuple(
        Track(
            track.id,
            target.codec,
            width=rung.width if known else 0,
            height=rung.height if known else 0,
            frame_rate=target.frame_rate,
            reorder=0,
            layer=rung.layer,
        )
        for rung in target.encoded
    )
