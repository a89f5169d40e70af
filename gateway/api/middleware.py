"""What every HTTP answer goes through: refusals become problem+json (RFC 9457), and a bug is one log line and a 500, nothing more."""

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from aiohttp import web

from protocols.errors import ProtocolError, Rejected
from protocols.webrtc.http import problem

log = logging.getLogger(__name__)

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def errors(request: web.Request, handler: Answer) -> web.StreamResponse:
    try:
        return await handler(request)
    except Rejected as refusal:
        return problem(HTTPStatus(refusal.reason.status), refusal.detail)
    except ProtocolError as error:
        return problem(HTTPStatus.BAD_REQUEST, str(error))
    except web.HTTPException:
        raise
    except Exception:
        # the boundary that the design names
        log.exception("request failed", extra={"method": request.method, "route": str(request.match_info.route.name)})
        return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "an error of the gateway: its log says more")


@web.middleware
async def security_headers(request: web.Request, handler: Answer) -> web.StreamResponse:
    response = await handler(request)
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "no-referrer")
    return response
