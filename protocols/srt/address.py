"""Internet addresses as libsrt wants them (struct sockaddr), and as people and encoders read them."""

import socket
import struct
import sys
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from protocols.addresses import unmapped
from protocols.errors import ProtocolError

_BSD = sys.platform == "darwin"  # BSD's sockaddr begins with its length in one byte, Linux's has a two-byte family


@dataclass(frozen=True, slots=True)
class Address:
    """A numeric host (IPv4 also where it came mapped into IPv6) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def server(host: str, port: int) -> str:
    """What encoders call; `host` with IPv6 in brackets."""
    return f"srt://{host}:{port}"


def pack_sockaddr(host: str, port: int) -> bytes:
    """`struct sockaddr_in` or `_in6` of a numeric host; raises `ValueError` for anything else."""
    address = ip_address(host)
    if isinstance(address, IPv6Address):
        scope = int(address.scope_id) if address.scope_id and address.scope_id.isdigit() else 0
        tail = struct.pack("!HI16s", port, 0, address.packed) + struct.pack("=I", scope)
        return _family(socket.AF_INET6, 28) + tail
    return _family(socket.AF_INET, 16) + struct.pack("!H4s8x", port, address.packed)


def unpack_sockaddr(raw: bytes) -> Address:
    """The address in a `struct sockaddr` of either family; longer input is fine."""
    family = raw[1] if _BSD else int.from_bytes(raw[:2], sys.byteorder)
    port = int.from_bytes(raw[2:4], "big")
    if family == socket.AF_INET:
        return Address(str(ip_address(raw[4:8])), port)
    if family == socket.AF_INET6:
        return Address(str(unmapped(raw[8:24])), port)
    raise ProtocolError(f"address family {family} is not of the internet")


def _family(family: int, size: int) -> bytes:
    return bytes((size, family)) if _BSD else struct.pack("=H", family)
