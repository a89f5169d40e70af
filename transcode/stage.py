"""One track's way through the gateway: `Stage` takes a publisher's packets and gives the call's packets, in one layer or several.

Passing through and transcoding both implement it, so that changing the decision in mid-stream replaces one object.
"""

from collections.abc import Callable
from typing import Protocol

from protocols.media import EncodedPacket, Track

Sink = Callable[[EncodedPacket], None]
"""Takes one packet of the call's side, on the event loop; must not block or raise."""

OnTracks = Callable[[tuple[Track, ...]], None]
"""Told what comes out from here on (one track a layer, the largest first), before the first packet that is so: facts have changed, a layer
has appeared or was shed. On the event loop, must not block or raise."""


class Stage(Protocol):
    """Packets in by `process`, packets out through the `Sink` it was made with, with `begun` and `arrival` of the packet they came from and
    the `layer` of the track they are of."""

    @property
    def tracks(self) -> tuple[Track, ...]:
        """What comes out: the same track when passing through; H.264 or Opus when transcoding, a track for each layer, largest first."""

    def process(self, packet: EncodedPacket) -> None: ...

    def reconfigure(self, track: Track) -> None:
        """The source's facts have changed (`TracksChanged` with the same codec): the next packets follow them. For another codec make a
        new stage."""

    def request_keyframe(self, layer: str = "") -> bool:
        """True if one of this layer will come (an encoder of ours), False if only the source can make one."""

    @property
    def starved(self) -> bool:
        """It drops what comes until a key frame of the source does: ask for one. Only where it has room for that."""

    def set_bitrate(self, bits_per_second: int) -> None:
        """The call's target for this track; ignored when passing through."""

    async def aclose(self) -> None: ...
