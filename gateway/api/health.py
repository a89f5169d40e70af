"""Is the gateway well, and does it take new streams: `/livez`, `/readyz`, and `POST /drain`, by which an operator sends it home.

Kept true: only the machine itself may drain it, or who shows a server's token; a web page that the operator looks at and a client behind a
proxy on this machine are neither.
"""

from aiohttp import hdrs, web

from gateway.access.authorizer import Authorizer
from gateway.node.drain import Drain
from protocols.addresses import unmapped
from protocols.errors import Reason, Rejected

LONGEST_WAIT_S = 24 * 3600
# What proxies and web browsers add: with one of these, a connection from this machine is not the operator's.
_FOREIGN = (hdrs.ORIGIN, hdrs.FORWARDED, hdrs.VIA, "X-Forwarded-For", "X-Real-IP", "Sec-Fetch-Site")


class Health:
    """See the file."""

    def __init__(self, drain: Drain, authorizer: Authorizer) -> None:
        self._drain = drain
        self._authorizer = authorizer

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/livez", self._livez),
            web.get("/healthz", self._livez),
            web.get("/readyz", self._readyz),
            web.post("/drain", self._begin),
        ]

    async def _livez(self, request: web.Request) -> web.Response:
        """That this answers says all: the event loop runs."""
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        if self._drain.begun:
            return web.Response(status=503, text=f"draining: {self._drain.streams} streams left\n")
        return web.Response(text="ready\n")

    async def _begin(self, request: web.Request) -> web.Response:
        """Begins the drain; with `?wait_s=N` answers once no stream is left, or after N seconds: 200 when none is left, else 202."""
        self._permit(request)
        wait_s = _seconds(request.query.get("wait_s", "0"))
        self._drain.begin(f"asked for by {request.remote}")
        done = not self._drain.streams or (wait_s > 0 and await self._drain.finished(wait_s))
        return web.json_response({"draining": True, "streams": self._drain.streams}, status=200 if done else 202)

    def _permit(self, request: web.Request) -> None:
        if _is_of_this_machine(request):
            return
        _, _, token = request.headers.get(hdrs.AUTHORIZATION, "").rpartition(" ")  # alone or after Bearer, as in the API
        api_key = request.query.get("api_key") or request.headers.get("X-Api-Key") or ""
        identity = self._authorizer.identify(token, api_key=api_key, address=request.remote or "")
        if not identity.server or identity.call_cids is not None:
            raise Rejected(
                Reason.FORBIDDEN, "only this machine itself or a server's token may drain the gateway: run `gateway drain` here"
            )


def _is_of_this_machine(request: web.Request) -> bool:
    if any(name in request.headers for name in _FOREIGN) or not request.remote:
        return False
    own = request.transport.get_extra_info("sockname") if request.transport is not None else None
    to_itself = own is not None and own[0] == request.remote  # where http.host is an address of the network
    return to_itself or unmapped(request.remote).is_loopback


def _seconds(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and int(text) <= LONGEST_WAIT_S):
        raise Rejected(Reason.BAD_REQUEST, f"wait_s is a number of seconds up to {LONGEST_WAIT_S}")
    return int(text)
