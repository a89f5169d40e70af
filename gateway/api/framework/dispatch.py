"""From an HTTP request to an answer of the API, the same way for every route: who asks, what is meant, whether it is allowed, the answer.

Kept true: how often one caller may ask is bounded (`quotas`); the body is read only for who is allowed, it is bounded in bytes and in
time; the rule of the route's line is asked before its function runs; whatever goes wrong is answered in the one form of `errors`.
"""

import asyncio
import json
import logging
import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from time import monotonic_ns, perf_counter_ns
from typing import Any, Final

from aiohttp import web
from pydantic import ValidationError

from gateway.access.credentials import Identity
from gateway.api.framework.errors import ApiError, answer
from gateway.api.framework.openapi import ADDRESS, document
from gateway.api.framework.quotas import QuotaExceeded
from gateway.api.framework.request_credentials import identity_of
from gateway.api.framework.route import BASE, PARAMETERS, AnyRoute, ApiRequest, Scope
from gateway.api.framework.services import Services
from gateway.api.schemas.answers import ApiAnswer, ListAnswer
from gateway.api.schemas.parts import FieldError, Request
from gateway.telemetry.log import event
from protocols.errors import Rejected
from protocols.rate_limit import TokenBucket
from protocols.webrtc.http import media_type

log = logging.getLogger(__name__)

MAX_BODY: Final = 64 * 1024  # bytes
READ_TIMEOUT_S: Final = 10.0
_HOST: Final = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")  # what it may be in an address
_LOG_RATE: Final = 1.0  # lines a second: a client that errs may do so in a loop
_SCHEMES: Final = ("http", "https")
_JSON: Final = "application/json"


class Api:
    """The routes, for the owner's application."""

    def __init__(self, services: Services, table: Sequence[AnyRoute], version: str, counted: Counter[int]) -> None:
        """`counted` has the answers by status."""
        self._services = services
        self._table = table
        self._counted = counted
        self._lines = TokenBucket(_LOG_RATE, 1)
        self._document = json.dumps(document(table, version), separators=(",", ":"))

    def routes(self) -> list[web.RouteDef]:
        served = [web.route(route.method, BASE + route.path, self._bound(route)) for route in self._table]
        return [web.get(ADDRESS, self._describe), *served]

    async def _describe(self, request: web.Request) -> web.Response:
        return web.Response(text=self._document, content_type=_JSON, headers={"Cache-Control": "no-cache"})

    def _bound(self, route: AnyRoute) -> Any:
        async def respond(request: web.Request) -> web.Response:
            response = await self._respond(route, request)
            self._counted[response.status] += 1
            return response

        return respond

    async def _respond(self, route: AnyRoute, request: web.Request) -> web.Response:
        began = perf_counter_ns()
        try:
            given = await self._answer(route, request)
        except ApiError as error:
            return self._refused(route, request, error)
        except QuotaExceeded as refusal:
            later = {"Retry-After": str(refusal.wait_s)}
            return self._refused(route, request, ApiError(refusal.reason.status, refusal.detail, headers=later))
        except Rejected as refusal:
            return self._refused(route, request, ApiError.of(refusal))
        return _response(route, given, perf_counter_ns() - began)

    def _refused(self, route: AnyRoute, request: web.Request, error: ApiError) -> web.Response:
        if self._lines.take(monotonic_ns()):
            event(
                log, logging.INFO, f"refused: {error.message}", operation=route.name, status=error.status, remote=request.remote
            )
        return answer(error)

    async def _answer(self, route: AnyRoute, request: web.Request) -> ApiAnswer:
        identity = identity_of(request, self._services.authorizer)
        self._services.quotas.asked(identity, request.remote or "", for_list=issubclass(route.gives, ListAnswer))
        path = _path(route, request)
        trusted = await self._services.authorizer.administers(identity)
        _check_scope(route, identity, trusted)
        access = None
        if (capability := route.call_capability) is not None:
            access = await self._services.access(identity, f"{path['type']}:{path['id']}", capability)
        body = await _body(route, request)
        parsed: ApiRequest[Any] = ApiRequest(
            identity,
            trusted,
            path,
            body,
            _origin(request),
            request.remote or "",
            datetime.now(UTC),
            access,
            request.query.get("next") if route.pages else None,
        )
        return await route.answer(self._services, parsed)


def _response(route: AnyRoute, given: ApiAnswer, took_ns: int) -> web.Response:
    timed = given.model_copy(update={"duration": f"{took_ns / 1e6:.2f}ms"})
    status = 201 if route.makes and getattr(given, "created", True) else 200
    return web.Response(text=timed.model_dump_json(), status=status, content_type=_JSON, headers={"Cache-Control": "no-store"})


def _path(route: AnyRoute, request: web.Request) -> dict[str, str]:
    path = {name: request.match_info[name] for name in route.parameters}
    for name, value in path.items():
        pattern, meaning = PARAMETERS[name]
        if not re.fullmatch(pattern, value):
            raise ApiError(
                400, f"{name}: {meaning} It matches {pattern}", [FieldError(field=name, message=f"matches {pattern}")]
            )
    return path


async def _body(route: AnyRoute, request: web.Request) -> Request | None:
    if route.takes is None:
        return None
    raw = await _read(request)
    if raw and media_type(request) != _JSON:
        raise ApiError(415, f"send the body as {_JSON}", headers={"Accept-Post": _JSON})
    try:
        body: Request = route.takes.model_validate_json(raw or b"{}")
    except ValidationError as error:
        raise ApiError.invalid(error, route.takes) from None
    return body


async def _read(request: web.Request) -> bytes:
    raw = bytearray()
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            async for chunk in request.content.iter_any():
                raw += chunk
                if len(raw) > MAX_BODY:
                    raise ApiError(413, f"a body may have {MAX_BODY} bytes at most")
    except TimeoutError:
        raise ApiError(408, "the body did not come in time") from None
    return bytes(raw)


def _check_scope(route: AnyRoute, identity: Identity, trusted: bool) -> None:
    if identity.stream_key:  # else one key could make another, which outlives it
        raise ApiError(403, "a stream key is for encoders: use a user's token here")
    if isinstance(route.needs, Scope) and not identity.unrestricted:
        raise ApiError(403, "the token is narrowed to calls, and this is about no call or about all: use one that is not")
    match route.needs:
        case Scope.SERVER if not trusted:
            raise ApiError(403 if identity.user_id else 401, f"this takes {Scope.SERVER.value}")
        case Scope.USER if not identity.user_id and not trusted:
            raise ApiError(401, f"this takes {Scope.USER.value}: send it as Authorization")
        case _:
            pass


def _origin(request: web.Request) -> str:
    """As the client sees it. Nobody but the one who asked is told, so that a proxy's word for the scheme need not be proved."""
    host = request.host if _HOST.fullmatch(request.host) else "127.0.0.1"
    scheme = request.headers.get("X-Forwarded-Proto", request.scheme)
    return f"{scheme if scheme in _SCHEMES else request.scheme}://{host}"
