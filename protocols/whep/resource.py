"""WHEP over HTTP: `POST /whep/{call}` makes a viewer; its resource has PATCH, DELETE, an event stream that says who is in which slot and
what layers there are, and an address at which it asks for a layer.
`?without=` names a participant that this viewer is not to be shown: those who publish need not be sent their own picture.

What is kept true: the call's owner admits before a peer exists; a viewer is in its audience exactly as long as its peer lives; a slow
reader of events gets the newest state, and costs no queue.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from http import HTTPStatus

from aiohttp import hdrs, web

from protocols.errors import Rejected
from protocols.webrtc.http import HttpProblem, HttpSession, Resources, SubResource, bearer, read_body
from protocols.webrtc.sdp.description import Fragment
from protocols.webrtc.transport.places import Standing
from protocols.webrtc.transport.udp_mux import UdpMux
from protocols.whep import layer
from protocols.whep.fanout import Fanout, ViewerConnection, ViewerOffer, ViewerState
from protocols.whep.local_fanout import LocalFanout
from protocols.whep.viewer import Program, ViewerAdmission

_EVENTS = 'rel="urn:ietf:params:whep:ext:core:server-sent-events"; events="layers"'
_LAYER = 'rel="urn:ietf:params:whep:ext:core:layer"'
_LOST = b"event: lost\ndata: {}\n\n"  # and nobody will say goodbye by DTLS: offer again at once
_HEARTBEAT = 15.0  # s: proxies close what is silent for longer
_WRITE_TIMEOUT = 10.0  # s


class WhepSession:
    """One viewer behind a resource."""

    def __init__(self, connection: ViewerConnection, audience: ViewerAdmission) -> None:
        self.connection = connection
        self.answer = connection.answer
        self._audience = audience

    @property
    def etag(self) -> str:
        return self.connection.etag

    @property
    def remote_ufrag(self) -> str:
        return self.connection.remote_ufrag

    def restart(self, fragment: Fragment) -> str | Awaitable[str]:
        return self.connection.restart(fragment)

    def close(self, why: str) -> None:
        self.connection.viewer.close(why)

    async def run(self) -> None:
        viewer = self.connection.viewer
        try:
            self._audience.add_viewer(viewer)
            await self.connection.run()
        finally:
            viewer.close("")
            self._audience.remove_viewer(viewer)


class WhepResource:
    """The endpoint. `routes` go into the owner's application; `aclose` ends every viewer with close_notify."""

    def __init__(
        self, mux: UdpMux, program: Program, fanout: Fanout | None = None, *, cors_origins: Sequence[str] = ("*",)
    ) -> None:
        """`mux` has the places for viewers; `fanout` serves them (None: this process, on `mux`)."""
        self._mux = mux
        self._program = program
        self._fanout = fanout if fanout is not None else LocalFanout(mux)
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
        return self._fanout.counters()

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
            offer = ViewerOffer(await read_body(request), request.query.get("without", ""))
            connection = await self._fanout.offer(offer, place)
        return WhepSession(connection, audience)

    async def _layer(self, request: web.Request, session: HttpSession) -> web.StreamResponse:
        """draft-ietf-wish-whep-03, Video Layer Selection: 200 where the wish can be followed."""
        assert isinstance(session, WhepSession)
        wanted = layer.parse(await read_body(request, layer.MAX_BYTES))
        layers = await session.connection.wish(wanted.media, wanted.wish)
        if layers is None:
            raise HttpProblem(HTTPStatus.UNPROCESSABLE_ENTITY, "mediaId names no picture of this session")
        if wanted.wish.layer and wanted.wish.layer not in layers:
            there = ", ".join(layers) or "none"
            raise HttpProblem(HTTPStatus.CONFLICT, f"there is no such layer now; those that there are: {there}")
        return web.Response()

    async def _events(self, request: web.Request, session: HttpSession) -> web.StreamResponse:
        """Server-sent events (HTML standard §9.2): the whole state at once and at each change."""
        assert isinstance(session, WhepSession)
        viewer = session.connection
        with viewer.watching() as changed:
            if changed is None:
                raise HttpProblem(HTTPStatus.TOO_MANY_REQUESTS, "too many event streams of one viewer")
            headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"} | self._resources.cors(request)
            stream = web.StreamResponse(headers=headers)
            stream.content_type = "text/event-stream"
            await stream.prepare(request)
            try:
                message = _told(viewer.state)
                while not viewer.closed.is_set():
                    changed.clear()
                    async with asyncio.timeout(_WRITE_TIMEOUT):
                        await stream.write(message)
                    message = await _next_event(viewer, changed)
                if viewer.lost:
                    await stream.write(_LOST)
            except TimeoutError:  # it does not read: the end of the stream would wait for it too
                if request.transport is not None:
                    request.transport.abort()
            except ConnectionError:
                pass  # it has gone
            return stream


async def _next_event(viewer: ViewerConnection, changed: asyncio.Event) -> bytes:
    try:
        async with asyncio.timeout(_HEARTBEAT):
            await changed.wait()
    except TimeoutError:
        return b": still here\n\n"
    return _told(viewer.state)


def _told(state: ViewerState) -> bytes:
    return f"data: {state.slots}\n\nevent: layers\ndata: {state.layers}\n\n".encode()
