"""What every HTTP answer goes through: refusals become problem+json (RFC 9457), those of the API its own form of errors, and a bug is one
log line and a 500, nothing more; pages of other origins may call the API where the operator lets them (Fetch standard, CORS).
"""

import logging
from collections.abc import Collection, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway.api.framework.errors import ApiError, answer
from protocols.errors import ProtocolError, Rejected
from protocols.webrtc.http import problem

log = logging.getLogger(__name__)

_API: Final = "/api/v2/"
_DEFECT: Final = "an error of the gateway: its log says more"
_SAID: Final[Mapping[int, str]] = MappingProxyType(
    {
        404: "there is nothing at this address: /api/v2/openapi.json lists all there is",
        405: "this address does not take this method: see Allow",
    }
)

_PREFLIGHT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE",
        "Access-Control-Allow-Headers": "Authorization, Content-Type, stream-auth-type, X-Api-Key",
        "Access-Control-Max-Age": "86400",
    }
)


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Rejected as refusal:
        return problem(HTTPStatus(refusal.reason.status), refusal.detail)
    except ProtocolError as error:
        return problem(HTTPStatus.BAD_REQUEST, str(error))
    except web.HTTPException as other:
        if not request.path.startswith(_API) or other.status not in _SAID:
            raise
        allow = {"Allow": other.headers["Allow"]} if "Allow" in other.headers else {}
        return answer(ApiError(other.status, _SAID[other.status], headers=allow))
    except (web.RequestPayloadError, ConnectionError):
        raise  # a body that is none, or a client that has gone: the server's to tell and to count
    except Exception:
        # the boundary that the design names
        log.exception("request failed", extra={"method": request.method, "route": str(request.match_info.route.name)})
        if request.path.startswith(_API):
            return answer(ApiError(500, _DEFECT))
        return problem(HTTPStatus.INTERNAL_SERVER_ERROR, _DEFECT)


def cors(origins: Collection[str]) -> Middleware:
    """For the API. Pages of these origins (`*`: of any) may read its answers; no cookie is ever looked at."""

    @web.middleware
    async def allowing(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        if origin is None or not request.path.startswith(_API) or not {"*", origin} & set(origins):
            return await handler(request)
        preflight = request.headers.get("Access-Control-Request-Method")
        response = web.Response(status=204) if request.method == "OPTIONS" and preflight else await handler(request)
        if response.prepared:
            return response
        response.headers["Access-Control-Allow-Origin"] = "*" if "*" in origins else origin
        response.headers["Vary"] = "Origin"
        if response.status == HTTPStatus.NO_CONTENT and preflight:
            response.headers.update(_PREFLIGHT)
        return response

    return allowing


@web.middleware
async def security_headers(request: web.Request, handler: Handler) -> web.StreamResponse:
    response = await handler(request)
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "no-referrer")
    return response
