"""Sessions over HTTP as WHIP and WHEP have them (RFC 9725; draft-ietf-wish-whep): one endpoint that makes resources, each a peer.

What is kept true: a body is bounded before it is read, and an offer is read of those who may make a session and of nobody else; the address
of a resource is unguessable, holds no secret of the caller and is the capability to change it; an error is problem+json (RFC 9457) and
never ends a session; every answer but an event stream has a Content-Length, since encoders fail on chunks; DELETE can be repeated.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol, TypeAlias

from aiohttp import hdrs, web

from protocols.bounded_map import BoundedMap
from protocols.defects import log_defect
from protocols.errors import ProtocolError, Rejected
from protocols.webrtc.sdp.description import MAX_BYTES, Fragment, parse_fragment

SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"

_PROBLEM = "application/problem+json"
_READ_TIMEOUT = 10.0  # s
_CLOSE_TIMEOUT = 3.0  # s
_RETRY_AFTER = 2  # s
_DELETED = 1024  # resources that have ended and may still be deleted
_RETRIED = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_EXPOSED = "Location, Link, ETag"

_log = logging.getLogger(__name__)

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpSession(Protocol):
    """One peer behind a resource."""

    @property
    def answer(self) -> str:
        """The SDP answer."""

    @property
    def etag(self) -> str:
        """Names the ICE session: another one after a restart. Without quotes."""

    @property
    def remote_ufrag(self) -> str: ...

    def restart(self, fragment: Fragment) -> str | Awaitable[str]:
        """ICE restart: the fragment that tells our new end, at once or, where another process must be asked, soon."""

    def close(self, why: str) -> None:
        """End it; `run` returns soon."""

    async def run(self) -> None:
        """Its life: returns when the peer has gone or `close` has been called."""


class Create(Protocol):
    """Makes a session for a request, whose body (`read_body`) is an offer; raises `Rejected`, `ProtocolError` or `HttpProblem`. Who asks is
    known before the body is read."""

    async def __call__(self, request: web.Request, /) -> HttpSession: ...


@dataclass(frozen=True, slots=True)
class SubResource:
    """Something at `name` below each session, advertised to its client in a Link header."""

    name: str
    link: str  # the parameters of the link, its relation first
    method: str
    answer: Callable[[web.Request, HttpSession], Awaitable[web.StreamResponse]]


class HttpProblem(Exception):
    """An answer that is an error of HTTP, not of the media."""

    def __init__(self, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}


class Resources:
    """The sessions of one endpoint at `path` (an aiohttp pattern, such as `/whep/{call}`).

    Args:
        extra: sub-resources of each session.
        alias: another path of the endpoint, and where the resources made there are, a path like `path`.
        authorise: asked before a resource is changed or deleted; raises `Rejected`.
        links: values of Link headers that whoever made a session is told, such as ICE servers.
    """

    def __init__(
        self,
        path: str,
        create: Create,
        *,
        origins: Sequence[str] = ("*",),
        extra: Sequence[SubResource] = (),
        alias: tuple[str, str] | None = None,
        authorise: Callable[[web.Request, HttpSession], None] | None = None,
        links: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        self.sessions: dict[str, HttpSession] = {}
        self.created = 0
        self._path = path
        self._create = create
        self._origins = frozenset(origins)
        self._extra = extra
        self._alias = alias
        self._authorise = authorise
        self._links = links
        self._tasks: dict[asyncio.Task[None], str] = {}
        self._deleted: BoundedMap[str, None] = BoundedMap(_DELETED)
        self._closing = False

    def routes(self) -> list[web.RouteDef]:
        resource = self._path + "/{resource}"
        endpoint_methods = {hdrs.METH_POST: self._post}
        resource_methods = {hdrs.METH_PATCH: self._patch, hdrs.METH_DELETE: self._delete}
        routes = self._routes(self._path, endpoint_methods, {"Accept-Post": SDP})
        routes += self._routes(resource, resource_methods, {"Accept-Patch": FRAGMENT})
        if self._alias is not None:
            routes += self._routes(self._alias[0], endpoint_methods, {"Accept-Post": SDP})
        for each in self._extra:
            routes += self._routes(f"{resource}/{each.name}", {each.method: self._bind(each.answer)}, {})
        return routes

    async def aclose(self, why: str) -> None:
        """End every session, and take no more."""
        self._closing = True
        for session in tuple(self.sessions.values()):
            session.close(why)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSE_TIMEOUT)

    def cors(self, request: web.Request) -> dict[str, str]:
        """What lets a page of an allowed origin read the answer (Fetch standard)."""
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None or not self._origins & {"*", origin}:
            return {}
        headers: dict[str, str] = {hdrs.ACCESS_CONTROL_EXPOSE_HEADERS: _EXPOSED}
        if "*" in self._origins:
            return headers | {hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: "*"}
        return headers | {hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: origin, hdrs.VARY: hdrs.ORIGIN}

    # Methods

    async def _post(self, request: web.Request) -> web.Response:
        if self._closing:
            raise _closed()
        if media_type(request) != SDP:
            raise HttpProblem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send the offer as {SDP}", {"Accept-Post": SDP})
        if not _accepts_sdp(request.headers.get(hdrs.ACCEPT)):
            raise HttpProblem(HTTPStatus.NOT_ACCEPTABLE, f"the answer is {SDP}")
        session = await self._create(request)
        self.created += 1
        name = secrets.token_urlsafe(24)
        self.sessions[name] = session
        task = asyncio.get_running_loop().create_task(session.run())
        self._tasks[task] = name
        task.add_done_callback(self._ended)
        if self._closing:  # meanwhile: those that there were have been ended
            session.close("the gateway is shutting down")
            raise _closed()
        path = request.rel_url.raw_path
        location = f"{self._alias[1] if self._alias and path == self._alias[0] else path}/{name}"
        response = web.Response(status=HTTPStatus.CREATED, text=session.answer, content_type=SDP)
        response.headers[hdrs.LOCATION] = location
        response.headers[hdrs.ETAG] = f'"{session.etag}"'
        for each in self._extra:
            response.headers.add(hdrs.LINK, f"<{location}/{each.name}>; {each.link}")
        for link in self._links() if self._links else ():
            response.headers.add(hdrs.LINK, link)
        return response

    async def _patch(self, request: web.Request) -> web.Response:
        session = self._permitted(request)
        if media_type(request) != FRAGMENT:
            raise HttpProblem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send {FRAGMENT}", {"Accept-Patch": FRAGMENT})
        condition = request.headers.get(hdrs.IF_MATCH)
        if condition is None:
            raise HttpProblem(HTTPStatus.PRECONDITION_REQUIRED, "If-Match with the ETag is missing")  # RFC 9725 §4.3.1
        # RFC 9725 §4.3.3 says `*`; its drafts printed it quoted, and clients send both.
        anything = condition.strip() in ("*", '"*"')
        if not anything and f'"{session.etag}"' not in [each.strip() for each in condition.split(",")]:
            raise HttpProblem(HTTPStatus.PRECONDITION_FAILED, "the ETag is of another ICE session")
        fragment = parse_fragment(await read_body(request))
        if fragment.ice is None or fragment.ice.ufrag == session.remote_ufrag:
            # An ICE-lite agent has no use for the peer's candidates: it answers checks from wherever they come.
            return web.Response(status=HTTPStatus.NO_CONTENT)
        restarted = session.restart(fragment)
        text = restarted if isinstance(restarted, str) else await restarted
        return web.Response(text=text, content_type=FRAGMENT, headers={hdrs.ETAG: f'"{session.etag}"'})

    async def _delete(self, request: web.Request) -> web.Response:
        name = request.match_info["resource"]
        if name not in self._deleted:
            self._permitted(request).close("deleted by the peer")
            self._gone(name)
        return web.Response(status=HTTPStatus.OK)  # OBS takes nothing but 200

    # Inside

    def _routes(self, path: str, methods: Mapping[str, Handler], accepts: Mapping[str, str]) -> list[web.RouteDef]:
        allow = ", ".join([*methods, hdrs.METH_OPTIONS])

        async def options(request: web.Request) -> web.Response:
            headers = {hdrs.ALLOW: allow, **accepts}
            if hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers:
                headers |= {
                    hdrs.ACCESS_CONTROL_ALLOW_METHODS: allow,
                    hdrs.ACCESS_CONTROL_ALLOW_HEADERS: "Authorization, Content-Type, If-Match",
                    hdrs.ACCESS_CONTROL_MAX_AGE: "86400",
                }
            return web.Response(status=HTTPStatus.NO_CONTENT, headers=headers)

        async def other(request: web.Request) -> web.Response:
            raise HttpProblem(HTTPStatus.METHOD_NOT_ALLOWED, f"this address takes {allow}", {hdrs.ALLOW: allow})

        handlers = {**methods, hdrs.METH_OPTIONS: options, hdrs.METH_ANY: other}
        return [web.route(method, path, self._answering(handler)) for method, handler in handlers.items()]

    def _answering(self, handler: Handler) -> Handler:
        """`handler` with CORS, and with refusals and broken formats as problem+json."""

        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                response = await handler(request)
            except HttpProblem as error:
                response = problem(error.status, error.detail, error.headers)
            except Rejected as refusal:
                later = {"Retry-After": str(refusal.wait_s)} if refusal.wait_s else {}
                response = problem(HTTPStatus(refusal.reason.status), refusal.detail, later)
            except ProtocolError as error:
                response = problem(HTTPStatus.BAD_REQUEST, str(error))
            if not response.prepared:
                response.headers.update(self.cors(request))
            return response

        return answer

    def _bind(self, handler: Callable[[web.Request, HttpSession], Awaitable[web.StreamResponse]]) -> Handler:
        async def found(request: web.Request) -> web.StreamResponse:
            return await handler(request, self._find(request))

        return found

    def _find(self, request: web.Request) -> HttpSession:
        session = self.sessions.get(request.match_info["resource"])
        if session is None:
            raise HttpProblem(HTTPStatus.NOT_FOUND, "there is no such session, or it has ended")
        return session

    def _permitted(self, request: web.Request) -> HttpSession:
        """The session, for one who may change it."""
        session = self._find(request)
        if self._authorise is not None:
            self._authorise(request, session)
        return session

    def _gone(self, name: str) -> None:
        """It answers 404 from now on, but DELETE goes on being 200: OBS sends it twice, and browsers after the goodbye of DTLS."""
        self.sessions.pop(name, None)
        self._deleted[name] = None

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._gone(self._tasks.pop(task))
        log_defect(_log, "a session ended", task)


def problem(status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """An error in words (RFC 9457)."""
    response = web.json_response(
        {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail},
        status=status,
        content_type=_PROBLEM,
        headers=headers,
    )
    if status in _RETRIED:
        response.headers.setdefault(hdrs.RETRY_AFTER, str(_RETRY_AFTER))
    if status == HTTPStatus.UNAUTHORIZED:
        response.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        response.force_close()  # the rest of the body is not read
    return response


def bearer(request: web.Request) -> str | None:
    """The token of RFC 6750 §2.1, if the request has one."""
    scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def media_type(request: web.Request) -> str:
    """The body's, without parameters (RFC 9110 §8.3.1); empty: it has none. aiohttp's own takes a fifth of a second for 8 KB of them."""
    return request.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()


async def read_body(request: web.Request, limit: int = MAX_BYTES) -> bytes:
    """The body, of at most `limit` bytes. Raises `Problem`."""
    if (request.content_length or 0) > limit:
        raise HttpProblem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {limit} bytes")
    body = bytearray()
    try:
        async with asyncio.timeout(_READ_TIMEOUT):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit:
                    raise HttpProblem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {limit} bytes")
    except TimeoutError:
        raise HttpProblem(HTTPStatus.REQUEST_TIMEOUT, "the body did not come in time") from None
    return bytes(body)


def _accepts_sdp(header: str | None) -> bool:
    if header is None:
        return True
    ranges = [part.partition(";")[0].strip().lower() for part in header.split(",")]
    return any(each in (SDP, "application/*", "*/*", "*") for each in ranges)


def _closed() -> HttpProblem:
    return HttpProblem(HTTPStatus.SERVICE_UNAVAILABLE, "the gateway is shutting down: try again in a moment")
