"""What an ICE-lite agent says of itself: its credentials and its host candidates (RFC 8445 §2.5, RFC 8839). Sans-IO.

What is kept true: the first candidate is IPv4 over UDP where there is one, because some encoders (ffmpeg) read only the first.
"""

import ipaddress
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

_HOST_PREFERENCE = 126  # RFC 8445 §5.1.2.2
_COMPONENT = 1  # RTP and RTCP share it: rtcp-mux always


@dataclass(frozen=True, slots=True)
class Credentials:
    """One side's ufrag and password of one ICE session."""

    ufrag: str
    password: str = field(repr=False)

    @classmethod
    def random(cls) -> "Credentials":
        """64 and 128 bits, more than RFC 8445 §5.3 demands: the ufrag also names the peer on a shared port."""
        return cls(secrets.token_hex(8), secrets.token_hex(16))


@dataclass(frozen=True, slots=True)
class Candidate:
    """One host candidate: UDP `address:port` that peers can reach."""

    address: str
    port: int
    priority: int

    @property
    def version(self) -> int:
        return ipaddress.ip_address(self.address).version

    def __str__(self) -> str:
        """The value of `a=candidate:` (RFC 8839 §5.1); the foundation differs by address."""
        return f"{self.priority} {_COMPONENT} udp {self.priority} {self.address} {self.port} typ host"


def host_candidates(addresses: Iterable[str], port: int) -> tuple[Candidate, ...]:
    """Candidates in order of preference: IPv4 first, else as given.

    Raises `ValueError` for what is not an IP address.
    """
    parsed = dict.fromkeys(ipaddress.ip_address(address) for address in addresses)
    ordered = sorted(parsed, key=lambda address: address.version)
    return tuple(
        Candidate(str(address), port, _HOST_PREFERENCE << 24 | (65535 - index) << 8 | 256 - _COMPONENT)
        for index, address in enumerate(ordered)
    )
