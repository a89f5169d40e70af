"""WHIP over HTTP (RFC 9725): `POST /whip/{call}` with the stream key as Bearer token makes a publisher, and what it makes is a resource.

What is kept true: nothing but an HTTP answer is spent on who may not publish: their offer is not read; the answer waits for the session's
decision and says it in HTTP; the publisher lives exactly as long as its peer; who deletes or changes a resource shows the key that made it.
"""

import asyncio
import hashlib
import hmac
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Self, TypeAlias

from aiohttp import hdrs, web

from protocols.addresses import unmapped
from protocols.errors import ProtocolError, Reason, Rejected
from protocols.metric import MetricFamily
from protocols.publisher import Applicant, BoundPort, Credential, ReachedBy
from protocols.webrtc.http import HttpProblem, HttpSession, Resources, bearer, read_body
from protocols.webrtc.sdp import answer
from protocols.webrtc.sdp import description as sdp
from protocols.webrtc.sdp.unserved import unreceived
from protocols.webrtc.transport.ice_servers import IceServer
from protocols.webrtc.transport.peer import Peer
from protocols.webrtc.transport.udp_mux import UdpMux
from protocols.whip.address import endpoint
from protocols.whip.limits import WhipLimits
from protocols.whip.publisher import WhipPublisher
from protocols.whip.statistics import COUNTERS, counts

_PATH = "/whip/{call}"
_ALIAS = ("/whip", "/whip/-")  # for a key that names its call
_SOFTWARE = 80

Authorise: TypeAlias = Callable[[Applicant], Awaitable[None]]
"""Whether somebody may publish now; raises `Rejected`, and counts and tells who was refused. The session decides all the same."""


@dataclass(frozen=True, slots=True)
class WhipApplicant:
    """Who asks to publish, as far as the head of the request says (a `protocols.publisher.Applicant`)."""

    id: str
    remote: str
    software: str
    credential: Credential
    params: Mapping[str, str]
    protocol: str = "whip"


class WhipSession:
    """One publisher's peer behind a resource."""

    def __init__(self, publisher: WhipPublisher, peer: Peer, token: str, ended: Callable[[WhipPublisher], None]) -> None:
        self.publisher = publisher
        self._ended = ended
        self.answer = answer.render(publisher.offer, publisher.accepted, peer.transport)
        self._peer = peer
        self._token = _digest(token)

    @property
    def etag(self) -> str:
        return self._peer.transport.ice.ufrag

    @property
    def remote_ufrag(self) -> str:
        return self._peer.remote_ice.ufrag

    def restart(self, fragment: sdp.Fragment) -> str:
        if fragment.ice is not None:
            self._peer.restart(fragment.ice)
        return answer.render_fragment(self.publisher.offer, self.publisher.accepted, self._peer.transport)

    def close(self, why: str) -> None:
        self.publisher.end(why)

    async def run(self) -> None:
        try:
            await self.publisher.run(self._peer)
        finally:
            self._ended(self.publisher)

    def permits(self, token: str) -> bool:
        return hmac.compare_digest(self._token, _digest(token))


class WhipListener:
    """A `protocols.publisher.Listener` whose socket is the owner's HTTP server: `routes` go into its application."""

    protocol = "whip"
    ports: Sequence[BoundPort] = ()

    def __init__(
        self,
        mux: UdpMux,
        *,
        authorise: Authorise,
        cors_origins: Sequence[str] = ("*",),
        ice_servers: Sequence[IceServer] = (),
        limits: WhipLimits | None = None,
    ) -> None:
        self._mux = mux
        self._may_publish = authorise
        self._limits = limits or WhipLimits()
        self._ice_servers = tuple(ice_servers)
        self._publishers: asyncio.Queue[WhipPublisher | None] = asyncio.Queue(self._limits.waiting + 1)
        self._refused: Counter[str] = Counter()
        self._totals = dict.fromkeys(COUNTERS, 0)
        self._live: set[WhipPublisher] = set()
        self._resources = Resources(
            _PATH, self._create, origins=cors_origins, alias=_ALIAS, authorise=_authorise, links=self._links
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._resources.aclose("the gateway is shutting down")
        self._publishers.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[WhipPublisher]:
        while (publisher := await self._publishers.get()) is not None:
            yield publisher

    def routes(self) -> list[web.RouteDef]:
        return self._resources.routes()

    def failures(self) -> Mapping[str, int]:
        """None: what fails before it publishes is an HTTP request, and is answered."""
        return {}

    def refusals(self) -> Mapping[str, int]:
        return self._refused

    def counters(self) -> Iterator[MetricFamily]:
        """Each total over all publishers that are or were."""
        live = [counts(publisher.admission, publisher.tracks) for publisher in self._live]
        for name, meaning in COUNTERS.items():
            yield MetricFamily(name, meaning, {(): self._totals[name] + sum(each[name] for each in live)})

    def addresses(self, call: str, by: ReachedBy) -> Mapping[str, str]:
        return {"whip": endpoint(by.origin, call)}

    async def _create(self, request: web.Request) -> WhipSession:
        with self._counting_refusals():
            applicant = self._applicant(request)
        await self._may_publish(applicant)
        with self._counting_refusals():
            publisher = self._publisher(applicant, await read_body(request), request.remote or "")
        self._publishers.put_nowait(publisher)
        peer = await self._decision(publisher)
        self._live.add(publisher)
        return WhipSession(publisher, peer, publisher.credential.key, self._ended)

    @contextmanager
    def _counting_refusals(self) -> Iterator[None]:
        try:
            yield
        except (Rejected, ProtocolError, HttpProblem) as refusal:
            self._refused[refusal.reason.label if isinstance(refusal, Rejected) else Reason.BAD_REQUEST.label] += 1
            raise

    def _refuse_if_busy(self) -> None:
        if self._publishers.qsize() >= self._limits.waiting:
            raise Rejected(Reason.OVERLOADED, "too many encoders connect at once: try again in a moment")

    def _applicant(self, request: web.Request) -> WhipApplicant:
        """Who asks; raises `Rejected` for those of whom nobody need be asked."""
        token = bearer(request)
        if token is None:
            raise Rejected(Reason.UNAUTHORIZED, "send the stream key as the Bearer token")
        self._refuse_if_busy()
        call = request.match_info.get("call")
        params = {"call": call} if call else {}
        return WhipApplicant(secrets.token_urlsafe(12), _remote(request), _software(request), Credential(token), params)

    def _publisher(self, applicant: WhipApplicant, body: bytes, client: str) -> WhipPublisher:
        """Raises `Rejected`, `ProtocolError` and `HttpProblem` for an offer that no session need be asked about."""
        offer = sdp.parse_offer(body)
        accepted = answer.receiving(offer)
        _refuse_if_partial(offer, accepted)
        self._refuse_if_busy()  # others have come meanwhile
        return WhipPublisher(
            self._mux,
            offer,
            accepted,
            credential=applicant.credential,
            params=applicant.params,
            client=client,
            remote=applicant.remote,
            software=applicant.software,
            limits=self._limits,
        )

    async def _decision(self, publisher: WhipPublisher) -> Peer:
        try:
            async with asyncio.timeout(self._limits.decision_s):
                await publisher.decided.wait()
        except TimeoutError:
            publisher.abandon("the session did not decide in time")
            raise Rejected(Reason.OVERLOADED, "the gateway did not decide in time: try again in a moment") from None
        except asyncio.CancelledError:
            publisher.abandon("the encoder has gone")
            raise
        if publisher.refusal is not None:
            raise publisher.refusal
        if publisher.peer is None:
            raise Rejected(Reason.OVERLOADED, "the session has ended: try again in a moment")
        return publisher.peer

    def _links(self) -> list[str]:
        now = int(time.time())
        return [server.link(now) for server in self._ice_servers]

    def _ended(self, publisher: WhipPublisher) -> None:
        self._live.discard(publisher)
        for name, count in counts(publisher.admission, publisher.tracks).items():
            self._totals[name] += count


def _refuse_if_partial(offer: sdp.Offer, accepted: Sequence[answer.Accepted | None]) -> None:
    """RFC 9725 §4.4.3: all that is offered is taken or nothing, for half a stream misleads who sends it."""
    if why := unreceived(offer, accepted):
        raise HttpProblem(HTTPStatus.UNPROCESSABLE_ENTITY, why)
    if not any(accepted):
        raise HttpProblem(HTTPStatus.UNPROCESSABLE_ENTITY, "the offer sends nothing: its m-lines must be sendonly")


def _authorise(request: web.Request, session: HttpSession) -> None:
    """RFC 9725 §4.7: the token comes with every request."""
    token = bearer(request)
    if token is None:
        raise Rejected(Reason.UNAUTHORIZED, "send the stream key that made this resource as the Bearer token")
    if isinstance(session, WhipSession) and not session.permits(token):
        raise Rejected(Reason.FORBIDDEN, "this resource was made with another stream key")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _software(request: web.Request) -> str:
    text = request.headers.get(hdrs.USER_AGENT, "")
    return "".join(each for each in text if " " <= each <= "~")[:_SOFTWARE]


def _remote(request: web.Request) -> str:
    name = request.transport.get_extra_info("peername") if request.transport else None
    if not isinstance(name, tuple) or request.remote != name[0]:  # behind a proxy, whose port says nothing
        return request.remote or ""
    host, port = str(unmapped(name[0])), name[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
