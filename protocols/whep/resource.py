"""WHEP over HTTP: `POST /whep/{call}` makes a viewer; its resource has PATCH, DELETE, an event stream that says who is in which slot and
what layers there are, and an address at which it asks for a layer.
`?without=` names a participant that this viewer is not to be shown: those who publish need not be sent their own picture.

What is kept true: the call's owner admits before a peer exists; a viewer is in its audience exactly as long as its peer lives; a slow
reader of events gets the newest state, and costs no queue.
"""

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType

from aiohttp import hdrs, web

from protocols.errors import Reason, Rejected
from protocols.webrtc.http import HttpProblem, HttpSession, Resources, SubResource, bearer, read_body
from protocols.webrtc.sdp import answer
from protocols.webrtc.sdp.description import Fragment, Offer, parse_offer
from protocols.webrtc.sdp.unserved import unsent
from protocols.webrtc.send.sender import Sender
from protocols.webrtc.transport.peer import Peer
from protocols.webrtc.transport.places import Standing
from protocols.webrtc.transport.udp_mux import UdpMux
from protocols.whep import layer
from protocols.whep.viewer import Program, Viewer, ViewerAdmission

_EVENTS = 'rel="urn:ietf:params:whep:ext:core:server-sent-events"; events="layers"'
_LAYER = 'rel="urn:ietf:params:whep:ext:core:layer"'
_HEARTBEAT = 15.0  # s: proxies close what is silent for longer
_WRITE_TIMEOUT = 10.0  # s

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


class WhepSession:
    """One viewer behind a resource."""

    def __init__(
        self,
        peer: Peer,
        offer: Offer,
        accepted: Sequence[answer.Accepted | None],
        viewer: Viewer,
        audience: ViewerAdmission,
        on_ended: Callable[[Viewer], None],
    ) -> None:
        self.peer = peer
        self.viewer = viewer
        self.answer = answer.render(offer, accepted, peer.transport)
        self._offer = offer
        self._accepted = accepted
        self._audience = audience
        self._on_ended = on_ended

    @property
    def etag(self) -> str:
        return self.peer.transport.ice.ufrag

    @property
    def remote_ufrag(self) -> str:
        return self.peer.remote_ice.ufrag

    def restart(self, fragment: Fragment) -> str:
        if fragment.ice is not None:
            self.peer.restart(fragment.ice)
        return answer.render_fragment(self._offer, self._accepted, self.peer.transport)

    def close(self, why: str) -> None:
        self.peer.close(why)

    async def run(self) -> None:
        try:
            self._audience.add_viewer(self.viewer)
            await self.viewer.run()
        finally:
            self.peer.close()
            self._audience.remove_viewer(self.viewer)
            self._on_ended(self.viewer)


class WhepResource:
    """The endpoint. `routes` go into the owner's application; `aclose` ends every viewer with close_notify."""

    def __init__(self, mux: UdpMux, program: Program, *, cors_origins: Sequence[str] = ("*",)) -> None:
        self._mux = mux
        self._program = program
        self._live: set[Viewer] = set()
        self._totals: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        extra = [
            SubResource("events", _EVENTS, hdrs.METH_GET, self._events),
            SubResource("layer", _LAYER, hdrs.METH_POST, self._layer),
        ]
        self._resources = Resources("/whep/{call}", self._create, origins=cors_origins, extra=extra)

    @property
    def viewers(self) -> int:
        """Viewers that are connected or connecting."""
        return len(self._resources.sessions)

    @property
    def joined(self) -> int:
        """Viewers since the start."""
        return self._resources.created

    def refusals(self) -> Mapping[str, int]:
        """By reason, those who were not let in to watch."""
        return self._refused

    def counters(self) -> Iterator[tuple[str, str, int]]:
        """Name, meaning and value of each total over all viewers that are or were, for metrics."""
        for name, (meaning, total) in _COUNTERS.items():
            live = sum(total(sender) for viewer in self._live for sender in viewer.senders)
            yield name, meaning, self._totals[name] + live

    def routes(self) -> list[web.RouteDef]:
        return self._resources.routes()

    async def aclose(self) -> None:
        await self._resources.aclose("the gateway is shutting down")

    async def _create(self, request: web.Request) -> WhepSession:
        try:
            return await self._admitted(request)
        except Rejected as refusal:
            self._refused[refusal.reason.label] += 1
            raise

    async def _admitted(self, request: web.Request) -> WhepSession:
        audience = await self._program.admit(request.match_info["call"], bearer(request), request.remote or "")
        standing = Standing.KNOWN if audience.known else Standing.ANONYMOUS
        async with self._mux.turn(request.remote or "", standing, audience.user) as place:
            offer = parse_offer(await read_body(request))
            accepted = _accepted(offer)
            peer = self._mux.add(offer, place)
        viewer = Viewer(peer, accepted, without=request.query.get("without", ""))
        self._live.add(viewer)
        return WhepSession(peer, offer, accepted, viewer, audience, self._ended)

    def _ended(self, viewer: Viewer) -> None:
        self._live.discard(viewer)
        for name, (_, total) in _COUNTERS.items():
            self._totals[name] += sum(total(sender) for sender in viewer.senders)

    async def _layer(self, request: web.Request, session: HttpSession) -> web.StreamResponse:
        """draft-ietf-wish-whep-03, Video Layer Selection: 200 where the wish can be followed."""
        assert isinstance(session, WhepSession)
        wanted = layer.parse(await read_body(request, layer.MAX_BYTES))
        layers = session.viewer.wish(wanted.media, wanted.wish)
        if layers is None:
            raise HttpProblem(HTTPStatus.UNPROCESSABLE_ENTITY, "mediaId names no picture of this session")
        if wanted.wish.layer and wanted.wish.layer not in layers:
            there = ", ".join(layers) or "none"
            raise HttpProblem(HTTPStatus.CONFLICT, f"there is no such layer now; those that there are: {there}")
        return web.Response()

    async def _events(self, request: web.Request, session: HttpSession) -> web.StreamResponse:
        """Server-sent events (HTML standard §9.2): the whole state at once and at each change."""
        assert isinstance(session, WhepSession)
        viewer, closed = session.viewer, session.peer.closed
        with viewer.watching() as changed:
            if changed is None:
                raise HttpProblem(HTTPStatus.TOO_MANY_REQUESTS, "too many event streams of one viewer")
            headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"} | self._resources.cors(request)
            stream = web.StreamResponse(headers=headers)
            stream.content_type = "text/event-stream"
            await stream.prepare(request)
            try:
                message = _state(viewer)
                while not closed.is_set():
                    changed.clear()
                    async with asyncio.timeout(_WRITE_TIMEOUT):
                        await stream.write(message)
                    message = await _next_event(viewer, changed)
            except TimeoutError:  # it does not read: the end of the stream would wait for it too
                if request.transport is not None:
                    request.transport.abort()
            except ConnectionError:
                pass  # it has gone
            return stream


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


async def _next_event(viewer: Viewer, changed: asyncio.Event) -> bytes:
    try:
        async with asyncio.timeout(_HEARTBEAT):
            await changed.wait()
    except TimeoutError:
        return b": still here\n\n"
    return _state(viewer)


def _state(viewer: Viewer) -> bytes:
    return _event("", viewer.describe()) + _event("event: layers\n", viewer.layers())


def _event(head: str, data: Mapping[str, object]) -> bytes:
    return f"{head}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
