"""Viewers that are served in this process (`protocols.whep.fanout.Fanout`): their peers are on this process's own port.

What is kept true: however a viewer ends, its totals stay counted.
"""

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType

from protocols.errors import Reason, Rejected
from protocols.media import Kind, Track
from protocols.webrtc.sdp import answer
from protocols.webrtc.sdp.description import Fragment, Offer, parse_offer
from protocols.webrtc.sdp.unserved import unsent
from protocols.webrtc.send.sender import Sender
from protocols.webrtc.send.simulcast import Wish
from protocols.webrtc.send.source import Source, SourceClock, call_at_on
from protocols.webrtc.transport.peer import Peer
from protocols.webrtc.transport.places import Place
from protocols.webrtc.transport.udp_mux import UdpMux
from protocols.whep.fanout import CallViewer, ShownSource, TrackFeedback, ViewerOffer, ViewerState
from protocols.whep.slot import ShownParticipant
from protocols.whep.viewer import Viewer

# Of each total over the senders its meaning, and where it is.
_COUNTERS: Mapping[str, tuple[str, Callable[[Sender], int]]] = MappingProxyType(
    {
        "packets": ("RTP packets sent to viewers", lambda sender: sender.stream.packets),
        "bytes": ("Bytes of RTP sent to viewers", lambda sender: sender.stream.payload_bytes),
        "frames": ("Frames sent to viewers", lambda sender: sender.frames),
        "retransmitted": ("Packets sent again because a viewer missed them", lambda sender: sender.stream.retransmitted),
        "nacks": ("Packets that viewers reported missing", lambda sender: sender.stream.nacks),
        "plis": ("Key frames that viewers asked for", lambda sender: sender.plis),
        "turns": ("Changes to another layer of a picture", lambda sender: sender.turns),
        "replays": ("Groups of pictures sent again from the cache", lambda sender: sender.replays),
        "dropped": ("Packets that viewers were not sent: too late, or no key frame before them", lambda sender: sender.dropped),
    }
)
COUNTERS: Mapping[str, str] = MappingProxyType({name: meaning for name, (meaning, _) in _COUNTERS.items()})
"""Each total over all viewers, with its meaning."""


class LocalViewer:
    """One viewer of this process as its HTTP resource knows it (`protocols.whep.fanout.ViewerConnection`)."""

    lost = False  # with this process there would be nobody to ask

    def __init__(self, peer: Peer, offer: Offer, accepted: Sequence[answer.Accepted | None], viewer: Viewer) -> None:
        self.peer = peer
        self.viewer = viewer
        self.answer = answer.render(offer, accepted, peer.transport)
        self._offer = offer
        self._accepted = accepted

    @property
    def etag(self) -> str:
        return self.peer.transport.ice.ufrag

    @property
    def remote_ufrag(self) -> str:
        return self.peer.remote_ice.ufrag

    @property
    def closed(self) -> asyncio.Event:
        return self.peer.closed

    @property
    def state(self) -> ViewerState:
        return ViewerState(_json(self.viewer.describe()), _json(self.viewer.layers()))

    def restart(self, fragment: Fragment) -> str:
        if fragment.ice is not None:
            self.peer.restart(fragment.ice)
        return answer.render_fragment(self._offer, self._accepted, self.peer.transport)

    async def wish(self, media: str | None, wish: Wish) -> Sequence[str] | None:
        return self.viewer.wish(media, wish)

    def watching(self) -> AbstractContextManager[asyncio.Event | None]:
        return self.viewer.watching()

    async def run(self) -> None:
        await self.viewer.run()


class LocalCall:
    """One call as the viewers of this process are shown it (`protocols.whep.fanout.CallFanout`)."""

    def __init__(self) -> None:
        self.viewers: set[Viewer] = set()
        self._participants: dict[str, ShownParticipant] = {}

    @property
    def empty(self) -> bool:
        return not self.viewers and not self._participants

    def publish(self, participant: str, track: Track, clock: SourceClock, feedback: TrackFeedback) -> Source:
        return Source(
            track,
            clock,
            call_at_on(asyncio.get_running_loop()),
            on_keyframe_wanted=feedback.keyframe,
            on_bitrate=feedback.bitrate,
            on_sent=feedback.sent,
        )

    def show(self, participant: str, sources: Mapping[Kind, Sequence[ShownSource]], muted: frozenset[Kind]) -> None:
        own = {kind: tuple(each for each in layers if isinstance(each, Source)) for kind, layers in sources.items()}
        shown = self._participants[participant] = ShownParticipant(participant, participant, own, muted)
        for viewer in self.viewers:
            viewer.show(shown.id, shown.name, shown.sources, shown.muted)

    def hide(self, participant: str) -> None:
        self._participants.pop(participant, None)
        for viewer in self.viewers:
            viewer.hide(participant)

    def add(self, viewer: CallViewer) -> None:
        assert isinstance(viewer, Viewer)
        self.viewers.add(viewer)
        for shown in self._participants.values():
            viewer.show(shown.id, shown.name, shown.sources, shown.muted)

    def remove(self, viewer: CallViewer) -> None:
        assert isinstance(viewer, Viewer)
        self.viewers.discard(viewer)


class LocalFanout:
    """All viewers of this process, on `mux`."""

    def __init__(self, mux: UdpMux) -> None:
        self._mux = mux
        self._live: set[Viewer] = set()
        self._totals: Counter[str] = Counter()

    async def offer(self, offer: ViewerOffer, place: Place) -> LocalViewer:
        return self.connect(offer, place)

    def connect(self, offer: ViewerOffer, place: Place) -> LocalViewer:
        """As `offer`, without anything to wait for."""
        described = parse_offer(offer.sdp)
        accepted = _accepted(described)
        peer = self._mux.add(described, place)
        viewer = Viewer(peer, accepted, without=offer.without)
        self._live.add(viewer)
        peer.task.add_done_callback(lambda _: self._ended(viewer))
        return LocalViewer(peer, described, accepted, viewer)

    def call(self, cid: str) -> LocalCall:
        return LocalCall()

    def counters(self) -> Iterator[tuple[str, str, int]]:
        for name, (meaning, total) in _COUNTERS.items():
            live = sum(total(sender) for viewer in self._live for sender in viewer.senders)
            yield name, meaning, self._totals[name] + live

    def _ended(self, viewer: Viewer) -> None:
        self._live.discard(viewer)
        for name, (_, total) in _COUNTERS.items():
            self._totals[name] += sum(total(sender) for sender in viewer.senders)


def _accepted(offer: Offer) -> Sequence[answer.Accepted | None]:
    """What of it is sent to them. Raises `Rejected`."""
    accepted = answer.sending(offer, cname=secrets.token_hex(8))
    if why := unsent(offer, accepted):
        raise Rejected(Reason.UNSUPPORTED_MEDIA, why)
    if not any(accepted):
        raise Rejected(
            Reason.UNSUPPORTED_MEDIA,
            "offer to receive H.264 (packetization-mode=1), VP8, VP9 or AV1 (both of profile 0) or Opus, bundled, with rtcp-mux",
        )
    return accepted


def _json(data: Mapping[str, object]) -> str:
    return json.dumps(data, separators=(",", ":"))
