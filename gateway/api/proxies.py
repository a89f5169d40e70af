"""Whose request it is where a proxy passes it on: the address that the nearest trusted proxy saw, from `X-Forwarded-For`.

Kept true: what was written by anybody but a trusted proxy is not believed. Limits by address (wrong keys, events, viewers) depend on it:
behind a proxy that is not told of here, all clients would share one address.
"""

from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from aiohttp import web
from aiohttp.typedefs import Middleware

from protocols.addresses import unmapped

Network = IPv4Network | IPv6Network


def forwarded(trusted: Sequence[Network]) -> Middleware:
    """Gives each handler a request whose `remote` is the client's. It comes first: a request that was read cannot be changed."""

    @web.middleware
    async def middleware(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        chain = ",".join(request.headers.getall("X-Forwarded-For", ()))
        client = client_of(request.remote or "", chain, trusted) if chain else ""
        return await handler(request.clone(remote=client) if client and client != request.remote else request)

    return middleware


def client_of(peer: str, chain: str, trusted: Sequence[Network]) -> str:
    """The last address of `chain, peer` that is no trusted proxy's; who stands before it may have written anything."""
    client = peer
    for written in reversed(chain.split(",")[-32:]):
        if not _is_one_of(client, trusted):
            return client
        try:
            client = str(ip_address(written.strip().strip("[]")))
        except ValueError:
            return client
    return client


def _is_one_of(address: str, networks: Sequence[Network]) -> bool:
    try:
        parsed = unmapped(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)
