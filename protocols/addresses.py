"""Which addresses are of the public internet: asked before this machine calls an address that somebody else has named."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

_NAT64: Final = IPv6Network("64:ff9b::/96")  # RFC 6052 §2.1


def is_public(host: str) -> bool:
    """Whether a numeric address leads to the public internet, also where it wraps another (mapped, NAT64, 6to4, Teredo).

    Raises:
        ValueError: it is not numeric.
    """
    address = ip_address(host)
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is None and address in _NAT64:
            inner = IPv4Address(address.packed[-4:])
        if inner is not None:
            return is_public(str(inner))
    return address.is_global and not address.is_multicast
