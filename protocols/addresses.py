"""What internet addresses mean: which one is in disguise, who counts as one client, which are of the public internet. Sans-IO."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

_NAT64: Final = IPv6Network("64:ff9b::/96")  # RFC 6052 §2.1
_LONGEST: Final = 64  # characters of a text that is no address


def unmapped(host: str | bytes) -> IPv4Address | IPv6Address:
    """The address of a numeric host, as text or as its 4 or 16 bytes; of IPv4 mapped into IPv6 (RFC 4291 §2.5.5.2) the IPv4 address.

    Raises:
        ValueError: it is not numeric.
    """
    address = ip_address(host)
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def client_network(host: str) -> str:
    """What counts as one client where something is limited by address: an IPv4 address, or an IPv6 /64, which one subscriber has whole
    (RFC 6177). A text that is no address, as the empty one, counts by itself."""
    try:
        address = unmapped(host)
    except ValueError:
        return host[:_LONGEST]
    return str(address) if isinstance(address, IPv4Address) else str(IPv6Address(int(address) >> 64 << 64))


def host_of(remote: str) -> str:
    """The address of `address:port` and `[address]:port`; what has no port stays."""
    if remote.startswith("["):
        return remote[1:].partition("]")[0]
    return remote.rpartition(":")[0] if remote.count(":") == 1 else remote


def is_public(host: str) -> bool:
    """Whether a numeric address leads to the public internet, also where it wraps another (mapped, NAT64, 6to4, Teredo).

    Raises:
        ValueError: it is not numeric.
    """
    address = unmapped(host)
    if isinstance(address, IPv6Address):
        inner = address.sixtofour or (address.teredo or (None, None))[1]
        if inner is None and address in _NAT64:
            inner = IPv4Address(address.packed[-4:])
        if inner is not None:
            return is_public(str(inner))
    return address.is_global and not address.is_multicast
