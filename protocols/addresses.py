"""What internet addresses mean: which one is in disguise, who counts as one client, which are of the public internet. Sans-IO.

Which are public is said by a list of our own, the IANA special-purpose address registries (RFC 6890) as of 2024: a library's list changes
with its version, and takes for public what it does not know.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

Network = IPv4Network | IPv6Network

_LONGEST: Final = 64  # characters of a text that is no address

_SPECIAL_V4: Final = tuple(
    IPv4Network(each)
    for each in (
        *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16"),  # this network, loopback, link-local
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"),  # private use, and shared by a carrier (RFC 6598)
        # Protocol assignments (RFC 6890), with the anycast addresses of whatever NAT is nearest: they lead into the network that we are in
        "192.0.0.0/24",
        *("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"),  # documentation
        "192.88.99.0/24",  # relays of 6to4, given up (RFC 7526)
        "198.18.0.0/15",  # benchmarks
        *("224.0.0.0/4", "240.0.0.0/4"),  # multicast; reserved, and the limited broadcast
    )
)
_UNICAST_V6: Final = IPv6Network(
    "2000::/3"
)  # all that is given out; beyond lie loopback, mapped, unique local, site-local, multicast …
_SPECIAL_V6: Final = tuple(
    IPv6Network(each)
    for each in (
        "2001::/23",  # protocol assignments: benchmarks, ORCHID, anycast
        *("2001:db8::/32", "3fff::/20"),  # documentation
    )
)
_NAT64: Final = IPv6Network(
    "64:ff9b::/96"
)  # RFC 6052 §2.1; the local one, 64:ff9b:1::/48 (RFC 8215), is nobody's but the network's own


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


def is_within(host: str, networks: Iterable[Network]) -> bool:
    """Whether it is a numeric address, and in one of these."""
    try:
        address = unmapped(host)
    except ValueError:
        return False
    return any(address in network for network in networks)


def host_of(remote: str) -> str:
    """The address of `address:port` and `[address]:port`; what has no port stays."""
    if remote.startswith("["):
        return remote[1:].partition("]")[0]
    return remote.rpartition(":")[0] if remote.count(":") == 1 else remote


def is_public(host: str) -> bool:
    """Whether a numeric address leads to the public internet. One that wraps IPv4 addresses (mapped, NAT64, 6to4, Teredo) is judged by all
    of these: that is where its packets go.

    Raises:
        ValueError: it is not numeric.
    """
    address = unmapped(host)
    if isinstance(address, IPv6Address):
        wrapped = _wrapped(address)
        if not wrapped:
            return address in _UNICAST_V6 and not any(address in network for network in _SPECIAL_V6)
        return all(map(_is_public_v4, wrapped))
    return _is_public_v4(address)


def _wrapped(address: IPv6Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses that packets to this one are carried to; empty: it is none of that kind."""
    if address in _NAT64:
        return (IPv4Address(address.packed[-4:]),)
    if address.sixtofour is not None:  # RFC 3056 §2
        return (address.sixtofour,)
    return address.teredo or ()  # RFC 4380 §4: server and client


def _is_public_v4(address: IPv4Address) -> bool:
    return not any(address in network for network in _SPECIAL_V4)
