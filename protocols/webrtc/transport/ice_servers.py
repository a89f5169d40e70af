"""STUN and TURN servers as WHIP and WHEP clients are told them (RFC 9725 §4.6). Sans-IO.

What is kept true: a TURN server's secret leaves only as a credential that expires (draft-uberti-behave-turn-rest-00 §2.2).
"""

import base64
import hmac
import re
from dataclasses import dataclass, field

LIFETIME_S = 12 * 3600
ADDRESS = re.compile(r"(stun|stuns|turn|turns):[A-Za-z0-9.:\[\]-]{1,255}(\?transport=(udp|tcp))?")  # RFC 7064, RFC 7065


@dataclass(frozen=True, slots=True)
class IceServer:
    """`secret` is what a TURN server shares with us; STUN needs none. `ValueError` for what is no address."""

    address: str
    secret: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not ADDRESS.fullmatch(self.address):
            raise ValueError(f"{self.address!r} is no address of a STUN or TURN server")

    def link(self, wall_s: int) -> str:
        """The value of a Link header, valid for `LIFETIME_S` from `wall_s` (Unix seconds)."""
        link = f'<{self.address}>; rel="ice-server"'
        if not self.secret or not self.address.startswith("turn"):
            return link
        username = str(wall_s + LIFETIME_S)
        credential = base64.b64encode(hmac.digest(self.secret.encode(), username.encode(), "sha1")).decode()
        return f'{link}; username="{username}"; credential="{credential}"; credential-type="password"'
