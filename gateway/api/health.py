"""Is the gateway well, and does it take new streams: `/livez`, `/readyz`, and `POST /drain`, by which an operator sends it home.

Kept true: over the network only a server's token for all calls drains it. Who may open the operator's socket, a file of the gateway's own
user (`gateway.node.operator_socket`), needs none: an address says nothing, for proxies and whatever else runs here share it.
"""

from aiohttp import hdrs, web

from gateway.access.authorizer import Authorizer
from gateway.node.drain import Drain
from protocols.errors import Reason, Rejected

LONGEST_WAIT_S = 24 * 3600


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
            web.post("/drain", self._begin_by_token),
        ]

    async def _livez(self, request: web.Request) -> web.Response:
        """That this answers says all: the event loop runs."""
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        if self._drain.begun:
            return web.Response(status=503, text=f"draining: {self._drain.streams} streams left\n")
        return web.Response(text="ready\n")

    async def _begin_by_token(self, request: web.Request) -> web.Response:
        _, _, token = request.headers.get(hdrs.AUTHORIZATION, "").rpartition(" ")  # alone or after Bearer, as in the API
        api_key = request.query.get("api_key") or request.headers.get("X-Api-Key") or ""
        identity = self._authorizer.identify(token, api_key=api_key, address=request.remote or "")
        if not (identity.server and identity.unrestricted):
            words = "only a server's token for all calls may drain the gateway: run `gateway drain` on its machine instead"
            raise Rejected(Reason.FORBIDDEN, words)
        return await begin_drain(self._drain, request, f"asked for by {request.remote}")


async def begin_drain(drain: Drain, request: web.Request, why: str) -> web.Response:
    """Begins the drain; with `?wait_s=N` answers once no stream is left, or after N seconds: 200 when none is left, else 202."""
    wait_s = _seconds(request.query.get("wait_s", "0"))
    drain.begin(why)
    done = not drain.streams or (wait_s > 0 and await drain.finished(wait_s))
    return web.json_response({"draining": True, "streams": drain.streams}, status=200 if done else 202)


def _seconds(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and int(text) <= LONGEST_WAIT_S):
        raise Rejected(Reason.BAD_REQUEST, f"wait_s is a number of seconds up to {LONGEST_WAIT_S}")
    return int(text)
