"""The stage of a video that passes and is offered in smaller layers as well: the source itself on top, the others from a worker.

Keeps true: what passes is not delayed by what is encoded beside it.
"""

from collections.abc import Callable
from dataclasses import replace

from protocols.media import EncodedPacket, Track
from transcode.ladder import NAMES
from transcode.stage import OnTracks, Sink, Stage

TOP = NAMES[0]


class Layered:
    """A `Stage` of one that passes and one that makes the layers below it."""

    def __init__(self, track: Track, sink: Sink, on_tracks: OnTracks, below: Callable[[OnTracks], Stage]) -> None:
        """`below` makes the other stage, whose output goes to the same sink, and its tracks to what it is called with."""
        self._top = replace(track, layer=TOP)
        self._sink = sink
        self._on_tracks = on_tracks
        self._below = below(self._below_changed)

    @property
    def tracks(self) -> tuple[Track, ...]:
        return (self._top, *self._below.tracks)

    def process(self, packet: EncodedPacket) -> None:
        self._sink(replace(packet, layer=TOP))
        self._below.process(packet)

    def reconfigure(self, track: Track) -> None:
        self._top = replace(track, layer=TOP)
        self._below.reconfigure(track)
        self._on_tracks(self.tracks)

    def request_keyframe(self, layer: str = "") -> bool:
        return layer not in ("", TOP) and self._below.request_keyframe(layer)

    @property
    def starved(self) -> bool:
        return self._below.starved

    def set_bitrate(self, bits_per_second: int) -> None:
        """Nothing: the source's bitrate is the source's, and the layers below are so many times smaller."""

    async def aclose(self) -> None:
        await self._below.aclose()

    def _below_changed(self, tracks: tuple[Track, ...]) -> None:
        self._on_tracks((self._top, *tracks))
