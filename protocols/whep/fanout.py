"""Who serves viewers: the contract between who decides (who may watch, which call there is, what is in it, who is muted) and who has the
viewers' connections (answers, DTLS, senders, repair, which layer each gets).

`protocols/whep/local_fanout.py` serves them in this process. Nothing here blocks or raises but `offer`, `restart` and `wish`.
"""

import asyncio
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from protocols.media import Codec, EncodedPacket, Kind, Track
from protocols.webrtc.sdp.description import Fragment
from protocols.webrtc.send.simulcast import Wish
from protocols.webrtc.send.source import SourceClock
from protocols.webrtc.transport.places import Place


class ViewerState(NamedTuple):
    """What a viewer's page is told, as JSON: which slot shows whom, and the layers of each picture (draft-ietf-wish-whep-03)."""

    slots: str
    layers: str


@dataclass(frozen=True, slots=True)
class ViewerOffer:
    """`sdp` as it came, `without` the participant that this viewer is not to be shown, if any."""

    sdp: bytes
    without: str = ""


class CallViewer(Protocol):
    """A viewer as the call knows it."""

    @property
    def takes(self) -> frozenset[Codec]:
        """The video codecs that every picture of this viewer may come in; all that we send where it has none to show."""

    @property
    def leaving(self) -> bool:
        """Whether it has to go, or has gone."""

    def close(self, why: str) -> None:
        """End it."""


class ViewerConnection(Protocol):
    """A viewer as its HTTP resource knows it, from the answer to the end."""

    @property
    def viewer(self) -> CallViewer: ...

    @property
    def answer(self) -> str:
        """The SDP answer."""

    @property
    def etag(self) -> str:
        """Names the ICE session: another one after a restart."""

    @property
    def remote_ufrag(self) -> str: ...

    @property
    def closed(self) -> asyncio.Event: ...

    @property
    def lost(self) -> bool:
        """Whether it was ended by nobody's will and without a goodbye: its process has died."""

    def restart(self, fragment: Fragment) -> str | Awaitable[str]:
        """ICE restart: the fragment that tells our new end, at once or, where another process must be asked, soon."""

    async def wish(self, media: str | None, wish: Wish) -> Sequence[str] | None:
        """Ask for a layer of one picture: `media` is the mid of its m-line or the index of that, None: the first. Gives the names of the
        layers that there are; None if there is no such m-line."""

    def watching(self) -> AbstractContextManager[asyncio.Event | None]:
        """An event that is set whenever `state` has changed, and at the end; None when too many watch."""

    @property
    def state(self) -> ViewerState:
        """The newest, for who is `watching`."""

    async def run(self) -> None:
        """Its life: returns when it has gone."""


class TrackFeedback(Protocol):
    """What those who serve say back of one track."""

    def keyframe(self) -> bool | None:
        """A viewer lacks a key frame; True if one will come, None where that has to be asked elsewhere first. Asked for at most twice a
        second."""

    def bitrate(self, bits_per_second: int) -> None:
        """So much of this track the viewers' ways carry (`protocols.webrtc.send.target`)."""

    def sent(self, packet: EncodedPacket, ready: int, sent: int) -> None:
        """Once a packet: monotonic ns when its payloads were ready, and when the first viewer had them."""


class ShownSource(Protocol):
    """One track of a call, pushed once for all who watch it."""

    track: Track
    """Its facts; the owner changes them as they change, all but the codec."""

    def push(self, packet: EncodedPacket, now: int) -> None:
        """`now` in monotonic ns."""


class CallFanout(Protocol):
    """One call as its viewers are shown it."""

    def publish(self, participant: str, track: Track, clock: SourceClock, feedback: TrackFeedback) -> ShownSource:
        """A track of the participant, to be shown by `show`."""

    def show(self, participant: str, sources: Mapping[Kind, Sequence[ShownSource]], muted: frozenset[Kind]) -> None:
        """Every viewer is shown the participant as it is now: of each kind the layers, the largest first. What it had and has no more has
        ended."""

    def hide(self, participant: str) -> None:
        """The participant has left."""

    def add(self, viewer: CallViewer) -> None: ...

    def remove(self, viewer: CallViewer) -> None: ...


class Fanout(Protocol):
    """All viewers of the gateway."""

    async def offer(self, offer: ViewerOffer, place: Place) -> ViewerConnection:
        """A connection for a viewer who was let in, in this place. Raises `Rejected`, and `ProtocolError` for an offer that is none."""

    def call(self, cid: str) -> CallFanout:
        """For a call that begins."""

    def counters(self) -> Iterator[tuple[str, str, int]]:
        """Name, meaning and value of each total over all viewers that are or were, for metrics."""
