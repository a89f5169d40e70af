"""Whose request it is where a proxy passes it on: the address that the nearest trusted proxy saw, from `X-Forwarded-For`.

Kept true: what was written by anybody but a trusted proxy is not believed. Limits by address (wrong keys, events, viewers) depend on it:
behind a proxy that is not told of here, all clients would share one address.
"""

import logging
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway.api.framework.connections import HEALTH
from gateway.telemetry.log import event
from protocols.addresses import Network, is_public, is_within, unmapped

log = logging.getLogger(__name__)

_ENOUGH: Final = 100  # requests after which one address for all of them is no chance


def forwarded(trusted: Sequence[Network]) -> Middleware:
    """Gives each handler a request whose `remote` is the client's. It comes first: a request that was read cannot be changed. Warns where
    all clients seem to be one in a private network."""
    seen = ClientsSeen()

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        chain = ",".join(request.headers.getall("X-Forwarded-For", ()))
        client = client_of(request.remote or "", chain, trusted) if chain else ""
        if request.path not in HEALTH and seen.are_one_in_private(client or request.remote or ""):
            words = "all HTTP clients have one private address, and share its limits: put the proxy's network in http.trusted_proxies"
            event(log, logging.WARNING, words, address=client or request.remote)
        return await handler(request.clone(remote=client) if client and client != request.remote else request)

    return middleware


class ClientsSeen:
    """Whether all that came so far is one address of a private network: a proxy that nobody has told us of."""

    def __init__(self) -> None:
        self._first: str | None = None
        self._requests = 0  # from there, and from nowhere else; afterwards it is known, and nobody counts

    def are_one_in_private(self, address: str) -> bool:
        """True once, with the request that shows it. This machine's own addresses are the operator's."""
        if self._requests >= _ENOUGH:
            return False
        self._first = self._first if self._first is not None else address
        self._requests = self._requests + 1 if address == self._first else _ENOUGH
        return self._requests == _ENOUGH and address == self._first and _is_private(address)


def _is_private(address: str) -> bool:
    try:
        return not is_public(address) and not unmapped(address).is_loopback
    except ValueError:
        return False


def client_of(peer: str, chain: str, trusted: Sequence[Network]) -> str:
    """The last address of `chain, peer` that is no trusted proxy's; who stands before it may have written anything."""
    client = peer
    for written in reversed(chain.split(",")[-32:]):
        if not is_within(client, trusted):
            return client
        try:
            client = str(ip_address(written.strip().strip("[]")))
        except ValueError:
            return client
    return client
