"""Calls: where publishers' media goes. A contract with backends: `embedded` (this gateway is the call) and, later, `whip` (any SFU).

A session joins a call once and stays one participant through its encoder's reconnects; each track that it publishes becomes a
`Publication`, a sink for the packets of the call's side.
"""

from collections.abc import Callable
from typing import Protocol

from protocols.media import Codec, EncodedPacket, Kind, Track


class Publication(Protocol):
    """One track of one participant, as the call sees it: the sound, or one layer of the video."""

    @property
    def track(self) -> Track: ...

    def push(self, packet: EncodedPacket) -> None:
        """Send one packet to the call; never blocks or raises."""

    def update(self, track: Track) -> None:
        """The same track has new facts (size, frame rate), but no other codec: told to whoever shows them."""

    def close(self) -> None:
        """The track has ended; the participant may stay."""


Sent = Callable[[EncodedPacket, int, int], None]
"""Told once per packet: the packet, and the monotonic ns when its payloads were ready and when the first viewer's last was handed over."""


class Participation(Protocol):
    """One session in one call."""

    @property
    def viewers(self) -> int: ...

    @property
    def accepts(self) -> frozenset[Codec]:
        """The call's, at this moment."""

    @property
    def carries(self) -> frozenset[Codec]: ...

    def on_accepts(self, changed: Callable[[], None]) -> None:
        """`changed` is told from now on, in the place of who was before, when the call takes other codecs; it must not block or raise."""

    def publish(self, track: Track, request_keyframe: Callable[[], bool], on_sent: Sent) -> Publication:
        """A track starts, one for each kind and layer. `request_keyframe` is asked when a viewer needs one: True if one will come."""

    def retain(self, kind: Kind, layers: frozenset[str]) -> None:
        """Of this kind there are these layers and no others: what an earlier encoder had beside them has ended."""

    def set_clock(self, media_now: Callable[[int], int]) -> None:
        """The map from monotonic ns to the media time that is live then: both tracks' sender reports follow it."""

    async def leave(self) -> None: ...


class Call(Protocol):
    """A call that takes participants. Raises `Rejected` from `join` when it does not take this one."""

    @property
    def accepts(self) -> frozenset[Codec]:
        """The codecs that can be played by all who are there. They change as viewers come and go."""

    @property
    def carries(self) -> frozenset[Codec]:
        """Those that it would take if all viewers did."""

    async def join(self, user_id: str) -> Participation: ...
