"""The stage of a video that passes and is offered in smaller layers too: the source itself on top, the others from a worker of their own.

Keeps true: what passes is not delayed by what is encoded beside it, and does not end with it: where the worker has failed the top goes on
alone, and the layers are tried again after a while, each time after a longer one.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from protocols.errors import Rejected
from protocols.media import EncodedPacket, Track
from transcode.host.process import OnFailure, Worker
from transcode.ladder import NAMES
from transcode.stage import OnTracks, Sink, Stage

TOP = NAMES[0]
FIRST_WAIT = 30.0  # s until layers that were lost are tried again
LONGEST_WAIT = 600.0  # s; layers that have lived for so long are as good as new


@dataclass(frozen=True, slots=True)
class Below:
    """What makes the layers below: a worker with nothing else to do, and the stage in it."""

    worker: Worker
    stage: Stage


Start = Callable[[Track, OnTracks, OnFailure], Awaitable[Below]]
"""Starts to make the layers below this track, whose output goes to the same sink; raises `Rejected` where there is no room."""

OnLayers = Callable[[bool, str], None]
"""Told whether the layers below are there from here on, and in words what has happened; must not block or raise."""


class Layered:
    """A `Stage` of one that passes and one that makes the layers below it, from `open` on."""

    def __init__(
        self, track: Track, sink: Sink, on_tracks: OnTracks, start: Start, on_layers: OnLayers, first_wait: float = FIRST_WAIT
    ) -> None:
        self._track = track
        self._sink = sink
        self._on_tracks = on_tracks
        self._start = start
        self._on_layers = on_layers
        self._first_wait = self._wait = first_wait
        self._loop = asyncio.get_running_loop()
        self._since = 0.0  # loop time at which the present layers began
        self._below: Below | None = None
        self._begun = True  # the layers have had a key frame
        self._trying: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin to make the layers, from the next key frame on; raises `Rejected` where there is no room for any."""
        self._below = await self._start(self._track, self._below_changed, self._lost)
        self._begun = False
        self._since = self._loop.time()

    @property
    def tracks(self) -> tuple[Track, ...]:
        top = replace(self._track, layer=TOP)
        return (top, *(self._below.stage.tracks if self._below is not None else ()))

    def process(self, packet: EncodedPacket) -> None:
        self._sink(packet._replace(layer=TOP))
        self._begun = self._begun or packet.keyframe
        if self._below is not None and self._begun:
            self._below.stage.process(packet)

    def reconfigure(self, track: Track) -> None:
        self._track = track
        if self._below is not None:
            self._below.stage.reconfigure(track)
        self._on_tracks(self.tracks)

    def request_keyframe(self, layer: str = "") -> bool:
        return layer not in ("", TOP) and self._below is not None and self._below.stage.request_keyframe(layer)

    @property
    def starved(self) -> bool:
        return self._below is not None and self._below.stage.starved

    def set_bitrate(self, bits_per_second: int) -> None:
        """Nothing: the source's bitrate is the source's, and the layers below are so many times smaller."""

    async def aclose(self) -> None:
        trying, self._trying = self._trying, None
        if trying is not None:
            trying.cancel()
            await asyncio.gather(trying, return_exceptions=True)
        below, self._below = self._below, None
        if below is not None:
            await below.stage.aclose()
            below.worker.abandon()

    def _below_changed(self, tracks: tuple[Track, ...]) -> None:
        self._on_tracks((replace(self._track, layer=TOP), *tracks))

    def _lost(self, why: str) -> None:
        """The worker of the layers has failed for good."""
        if self._loop.time() - self._since > LONGEST_WAIT:
            self._wait = self._first_wait
        lost, self._below = self._below, None
        self._on_tracks(self.tracks)
        self._on_layers(False, f"{why}; the layers below the video are gone, and tried again in {self._wait:.0f} s")
        self._trying = asyncio.create_task(self._try_again(lost), name="layers again")

    async def _try_again(self, lost: Below | None) -> None:
        if lost is not None:
            await lost.stage.aclose()
        while self._below is None:
            await asyncio.sleep(self._wait)
            self._wait = min(2 * self._wait, LONGEST_WAIT)
            try:
                await self.open()
            except Rejected as refusal:
                self._on_layers(False, f"no layers below the video: {refusal.detail}")
        self._on_tracks(self.tracks)
        self._on_layers(True, "the layers below the video are there again")
