"""HTTP to addresses that a configuration names: not into private networks, whatever a name resolves to, unless that is allowed.

Kept true: it is the address that is connected to which is judged, so that no second look-up can answer otherwise (DNS rebinding).
"""

import socket

import aiohttp
from aiohttp.connector import AddrInfoType

from protocols.addresses import is_public


class Private(OSError):
    """The address is not of the public internet."""

    def __init__(self) -> None:
        super().__init__("the address is not of the public internet: allow private ones in the configuration")


def connector(allow_private: bool, connections: int) -> aiohttp.TCPConnector:
    """At most `connections` at once. Where private addresses are not allowed, requests to them raise `aiohttp.ClientConnectorError` of
    `Private`."""
    return aiohttp.TCPConnector(limit=connections, use_dns_cache=False, socket_factory=None if allow_private else _public_only)


def is_private(error: BaseException) -> bool:
    """Whether a request failed because of what this file keeps true."""
    return isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, Private)


def _public_only(address: AddrInfoType) -> socket.socket:
    family, kind, protocol, _, sockaddr = address
    if not is_public(str(sockaddr[0])):
        raise Private
    return socket.socket(family, kind, protocol)
