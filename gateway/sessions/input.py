"""One encoder's connection to a seat, from its acceptance to its end: it is accepted, watched and read, and its media go into a pipeline
while it is forwarded; else it stands by, and what comes is parsed and no more.

Kept true: it is read until it ends, until it has given nothing of use for too long, or until somebody breaks that off; however it ends, its
pipeline is closed, its totals stay counted, and its encoder is told why. It goes from one state to the other between two packets.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from time import monotonic_ns
from typing import Final, Protocol, assert_never

from gateway.sessions.closing import close_in_time
from gateway.sessions.pipeline import Pipeline
from gateway.sessions.rivals import Rivals
from gateway.sessions.silence import STALLED_NS, SilenceWatch
from gateway.sessions.socket_watch import SocketRate, WatchPolicy, watched
from gateway.sessions.standby import Standby
from protocols.errors import ProtocolError, Rejected
from protocols.media import EncodedPacket, Kind, LeftOut, Track, TracksChanged
from protocols.publisher import Publisher

ACCEPT_TIMEOUT_S: Final = 10.0
KEYFRAMES_NS: Final = 1_000_000_000  # at least, between two that one that stands by is asked for
LONGEST_WAIT_S: Final = (
    0.1  # between two packets of one that stands by and sends faster than real time: it is not silent by that
)
NOT_LIVE: Final = "another of the stream's encoders is live in its place"

Item = EncodedPacket | TracksChanged | LeftOut


class InputPolicy(Protocol):
    """How a connection is treated."""

    @property
    def watch(self) -> WatchPolicy: ...

    @property
    def max_bitrate(self) -> int:
        """In bit/s, of one track; 0: no limit."""

    @property
    def track_timeout_s(self) -> float | None:
        """From the acceptance to the first track of a codec that is known; None: without an end."""


class InputOwner(Protocol):
    """Whose input it is. What is not awaited neither blocks nor raises."""

    @property
    def id(self) -> str:
        """As the log knows it."""

    def accepted(self, input: "Input") -> None:
        """It is read from here on."""

    async def begin(self, input: "Input", tracks: tuple[Track, ...], since: int) -> Pipeline:
        """What its media, which have these tracks, go into, from those on that came at `since` (monotonic ns). Raises `Rejected`."""

    def expect(self, tracks: tuple[Track, ...]) -> None:
        """The tracks of the one that is forwarded are these from here on."""

    def started(self, input: "Input", tracks: tuple[Track, ...]) -> None:
        """Its media, which have these tracks, go to the outputs."""

    def heard(self, packet: EncodedPacket) -> None:
        """The one that is forwarded gave this, which goes into its pipeline next."""

    def well(self, input: "Input") -> None:
        """Media come of it, for the first time or again."""

    def lacks(self, input: "Input", item: LeftOut) -> None:
        """Something of its stream is left out."""

    def failed(self, input: "Input") -> None:
        """It ends because something is wrong with it, which its `why_ended` says."""

    def stopped(self, input: "Input") -> None:
        """Its media go to the outputs no longer."""

    def drained(self, input: "Input") -> None:
        """The same, and all that was to be made of them is made; its pipeline is there for the last time."""

    def retired(self, input: "Input", pipeline: Pipeline) -> None:
        """It has no pipeline any more."""

    def over(self, input: "Input") -> None:
        """Nothing more comes of it; it is being closed."""


class Input:
    """See the file."""

    def __init__(
        self,
        publisher: Publisher,
        owner: InputOwner,
        policy: InputPolicy,
        rivals: Rivals,
        rank: int,
        barred: frozenset[Kind],
    ) -> None:
        """`rivals` are those for its place."""
        self.publisher = publisher
        self.rank = rank
        """1 is the best."""
        self.barred = barred
        """What no output is given because its user may not send it with this credential."""
        self.started_at = datetime.now(UTC)
        self.tracks: tuple[Track, ...] = ()
        self.pipeline: Pipeline | None = None
        """While it is forwarded."""
        self.left_out: list[LeftOut] = []
        """Of its stream."""
        self.bitrate = 0
        """Of its connection, in bit/s over the last seconds."""
        self.why_ended = ""
        self.refused = ""
        """The label of the reason, where there was no room for it."""
        self.turn = asyncio.Event()
        """It may begin."""
        self.begun = self.aborted = self.ended = False
        """It has; it is not to be read any more; its connection gives nothing more, though some of what it gave may still be made."""
        self.over = asyncio.Event()
        """Nothing more comes of it."""
        self._owner = owner
        self._policy = policy
        self._rivals = rivals
        self._rate = SocketRate(policy.watch.window)
        self._forwarded = self._shown = False
        self._lock = asyncio.Lock()
        self._scope: asyncio.Timeout | None = None
        self._refusal: Rejected | None = None
        self._standby = Standby()
        self._watch = SilenceWatch()
        self._well_since = 0
        self._heard = -STALLED_NS  # when a packet came last, in monotonic ns
        self._keyframe_asked = 0

    @property
    def paused(self) -> bool:
        """It is not read for now, since it is far enough ahead."""
        return self.pipeline is not None and self.pipeline.paused

    def well_since(self, now: int) -> int | None:
        """Since when its media have come without a pause, in monotonic ns; None: nothing comes."""
        silent_at = self._watch.stalled_at
        if silent_at is None or self.over.is_set():
            return None
        return self._well_since if now < silent_at or self.paused else None

    async def run(self) -> None:
        """From its acceptance to its end, however it ends."""
        self.begun = True
        try:
            if await self._accept():
                self._owner.accepted(self)
                try:
                    await self._read()
                finally:
                    await self._leave()
        finally:
            self._end()
            await close_in_time(self.publisher.aclose(self.why_ended), "the publisher did not close in time", self._owner.id)

    def abort(self, why: str) -> None:
        """Stop reading; the encoder is then told why."""
        self.why_ended, self.aborted = why, True
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(asyncio.get_running_loop().time())

    async def forward(self) -> None:
        """Its media go to the outputs from here on, with the group of pictures that is under way."""
        async with self._lock:
            self._forwarded = True
            self.turn.set()
            if self.tracks and not (self.aborted or self.over.is_set()):
                try:
                    await self._show()
                except Rejected as refusal:
                    self._refusal = refusal
                    self.abort(refusal.detail)

    async def stand_by(self) -> None:
        """They do no longer."""
        async with self._lock:
            self._forwarded = False
            self.why_ended = self.why_ended or NOT_LIVE
            await self._close_pipeline()
            if self.why_ended == NOT_LIVE:
                self.why_ended = ""

    def leave_out(self, item: LeftOut) -> None:
        self.left_out.append(item)
        self._owner.lacks(self, item)

    async def _accept(self) -> bool:
        try:
            async with asyncio.timeout(ACCEPT_TIMEOUT_S):
                await self.publisher.accept()
        except (TimeoutError, ProtocolError) as error:
            self.why_ended = str(error) or "the encoder did not answer"
            return False
        return True

    async def _read(self) -> None:
        policy = self._policy
        try:
            async with watched(self.publisher, policy.watch, policy.max_bitrate, self.abort, self._look):
                async with asyncio.timeout(0 if self.aborted else policy.track_timeout_s) as self._scope:
                    async for item in self.publisher:
                        async with self._lock:
                            await self._take(item)
                        if not self._forwarded and isinstance(item, EncodedPacket):
                            await self._keep_pace(item)
            self.why_ended = "the encoder ended the stream" if self.publisher.stats.stopped else "the connection broke off"
        except TimeoutError:
            if self._refusal is not None:
                self._refused(self._refusal)
            elif not self.aborted:
                why = " ".join(["no video or audio of a known codec came:", *(each.text for each in self.left_out)])
                self._fail(why if self.left_out else f"{why} choose H.264 and AAC in the encoder")
        except ProtocolError as error:
            self._fail(str(error))
        except Rejected as refusal:
            self._refused(refusal)
        finally:
            self._scope, self.ended = None, True

    def _look(self, received: int, now: int) -> None:
        self._rivals.note(received, now)
        self.bitrate = self._rate.note(received, now)

    async def _take(self, item: Item) -> None:
        match item:
            case EncodedPacket():
                self._note(item)
                if self.pipeline is not None:
                    self._owner.heard(item)
                    await self.pipeline.push(item)
                elif not self._standby.add(item):
                    self._ask_for_keyframe(item)
            case TracksChanged(tracks):
                if tracks:
                    self.tracks = tracks
                    self._watch.keep(frozenset(track.id for track in tracks))
                    self._standby.expect(tracks)
                    if self._forwarded:
                        await self._show()
                    self._found()
            case LeftOut():
                self.leave_out(item)
            case _ as never:
                assert_never(never)

    def _ask_for_keyframe(self, packet: EncodedPacket) -> None:
        """Where the encoder makes none by itself for long, so that it could not go on at once."""
        if packet.arrival - self._keyframe_asked >= KEYFRAMES_NS:
            self._keyframe_asked = packet.arrival
            self.publisher.request_keyframe(packet.layer)

    def _note(self, packet: EncodedPacket) -> None:
        paused = packet.arrival - self._heard >= STALLED_NS  # else it cannot have been silent
        silent_at = self._watch.stalled_at if paused else None
        self._watch.heard(packet.track, packet.dts, packet.arrival)
        self._heard = packet.arrival
        if paused and (silent_at is None or packet.arrival >= silent_at):
            self._well_since = packet.arrival
            self._owner.well(self)

    async def _show(self) -> None:
        """Its tracks, as they are, go to the outputs."""
        now = monotonic_ns()
        if self.pipeline is None:
            self.pipeline = await self._owner.begin(self, self.tracks, self._standby.oldest or now)
        self._owner.expect(self.tracks)
        await self.pipeline.change(self.tracks)
        if not self._shown:
            self._shown = True
            self._owner.started(self, self.tracks)
        await self._catch_up(self.pipeline, self._standby.take())

    async def _catch_up(self, pipeline: Pipeline, kept: Sequence[EncodedPacket]) -> None:
        if kept:
            self._owner.heard(kept[-1])
            await pipeline.catch_up(kept)

    async def _keep_pace(self, packet: EncodedPacket) -> None:
        """Nobody has it wait who takes its media: it may come no faster than they last."""
        if ahead := self._standby.ahead(packet):
            self.publisher.pause(True)
            await asyncio.sleep(min(ahead / 1e9, LONGEST_WAIT_S))
            self.publisher.pause(False)

    def _found(self) -> None:
        """It has given something of use."""
        if self._scope is not None and not self.aborted:
            self._scope.reschedule(None)

    def _refused(self, refusal: Rejected) -> None:
        self.refused = refusal.reason.label
        self._fail(refusal.detail)

    def _fail(self, why: str) -> None:
        self.why_ended = why
        self._owner.failed(self)

    async def _leave(self) -> None:
        async with self._lock:
            await self._close_pipeline()

    async def _close_pipeline(self) -> None:
        shown, self._shown = self._shown, False
        if shown:
            self._owner.stopped(self)
        if self.pipeline is not None:
            try:
                await close_in_time(self.pipeline.aclose(), "the worker did not end in time", self._owner.id)
            finally:
                if shown:
                    self._owner.drained(self)
                # In one step: a scrape in between would see the totals go back.
                pipeline, self.pipeline = self.pipeline, None
                self._owner.retired(self, pipeline)

    def _end(self) -> None:
        if not self.over.is_set():
            self.over.set()
            self._owner.over(self)
