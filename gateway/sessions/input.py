"""One encoder's connection to a seat, from its acceptance to its end: it is accepted, watched and read, and its media go into a pipeline.

Kept true: it is read until it ends, until it has given nothing of use for too long, or until somebody breaks that off; however it ends, its
pipeline is closed, its totals stay counted, and its encoder is told why.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol, assert_never

from gateway.sessions.closing import close_in_time
from gateway.sessions.pipeline import Pipeline
from gateway.sessions.socket_watch import WatchPolicy, watched
from protocols.errors import ProtocolError, Rejected
from protocols.media import EncodedPacket, LeftOut, Track, TracksChanged
from protocols.publisher import Publisher

ACCEPT_TIMEOUT_S = 10.0

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

    async def begin(self, input: "Input", tracks: tuple[Track, ...]) -> Pipeline:
        """What its media, which have these tracks, go into. Raises `Rejected`."""

    def expect(self, tracks: tuple[Track, ...]) -> None:
        """Its tracks are these from here on."""

    def started(self, input: "Input", tracks: tuple[Track, ...]) -> None:
        """Its media, which have these tracks, are with the outputs."""

    def heard(self, packet: EncodedPacket) -> None:
        """It gave this, which goes into its pipeline next."""

    def lacks(self, input: "Input", item: LeftOut) -> None:
        """Something of its stream is left out."""

    def failed(self, input: "Input") -> None:
        """It ends because something is wrong with it, which its `why_ended` says."""

    def stopped(self, input: "Input") -> None:
        """It is not read any more, after its media were with the outputs."""

    def drained(self, input: "Input") -> None:
        """All that was to be made of its media is made; its pipeline is there for the last time."""

    def retired(self, input: "Input", pipeline: Pipeline) -> None:
        """It has no pipeline any more."""


class Input:
    """See the file."""

    def __init__(
        self, publisher: Publisher, owner: InputOwner, policy: InputPolicy, on_look: Callable[[int, int], None]
    ) -> None:
        """`on_look` as of `socket_watch.watched`."""
        self.publisher = publisher
        self.pipeline: Pipeline | None = None
        self.left_out: list[LeftOut] = []
        """Of its stream."""
        self.why_ended = ""
        self.refused = ""
        """The label of the reason, where there was no room for it."""
        self.aborted = False
        """It is not to be read any more."""
        self.has_started = False
        """Media of it are, or were, with the outputs."""
        self._owner = owner
        self._policy = policy
        self._on_look = on_look
        self._scope: asyncio.Timeout | None = None

    async def run(self) -> None:
        """From its acceptance to its end, however it ends."""
        try:
            async with asyncio.timeout(ACCEPT_TIMEOUT_S):
                await self.publisher.accept()
        except (TimeoutError, ProtocolError) as error:
            self.why_ended = str(error) or "the encoder did not answer"
            await self.publisher.aclose()
            return
        self._owner.accepted(self)
        try:
            await self._read()
        finally:
            await self._stop()

    def abort(self, why: str) -> None:
        """Stop reading; the encoder is then told why."""
        self.why_ended, self.aborted = why, True
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(asyncio.get_running_loop().time())

    def leave_out(self, item: LeftOut) -> None:
        self.left_out.append(item)
        self._owner.lacks(self, item)

    async def _read(self) -> None:
        policy = self._policy
        try:
            async with watched(self.publisher, policy.watch, policy.max_bitrate, self.abort, self._on_look):
                async with asyncio.timeout(0 if self.aborted else policy.track_timeout_s) as self._scope:
                    async for item in self.publisher:
                        await self._take(item)
            self.why_ended = "the encoder ended the stream"
        except TimeoutError:
            if not self.aborted:
                why = " ".join(["no video or audio of a known codec came:", *(each.text for each in self.left_out)])
                self._fail(why if self.left_out else f"{why} choose H.264 and AAC in the encoder")
        except ProtocolError as error:
            self._fail(str(error))
        except Rejected as refusal:
            self.refused = refusal.reason.label
            self._fail(refusal.detail)
        finally:
            self._scope = None

    async def _take(self, item: Item) -> None:
        match item:
            case EncodedPacket():
                if self.pipeline is not None:
                    self._owner.heard(item)
                    await self.pipeline.push(item)
            case TracksChanged(tracks):
                if tracks:
                    await self._show(tracks)
            case LeftOut():
                self.leave_out(item)
            case _ as never:
                assert_never(never)

    async def _show(self, tracks: tuple[Track, ...]) -> None:
        if self.pipeline is None:
            self.pipeline = await self._owner.begin(self, tracks)
            self._found()
        self._owner.expect(tracks)
        await self.pipeline.change(tracks)
        if not self.has_started:
            self.has_started = True
            self._owner.started(self, tracks)

    def _found(self) -> None:
        """It has given something of use."""
        if self._scope is not None and not self.aborted:
            self._scope.reschedule(None)

    def _fail(self, why: str) -> None:
        self.why_ended = why
        self._owner.failed(self)

    async def _stop(self) -> None:
        if self.has_started:
            self._owner.stopped(self)
        if self.pipeline is not None:
            try:
                await close_in_time(self.pipeline.aclose(), "the worker did not end in time", self._owner.id)
            finally:
                if self.has_started:
                    self._owner.drained(self)
                # In one step: a scrape in between would see the totals go back.
                pipeline, self.pipeline = self.pipeline, None
                self._owner.retired(self, pipeline)
        await close_in_time(self.publisher.aclose(self.why_ended), "the publisher did not close in time", self._owner.id)
