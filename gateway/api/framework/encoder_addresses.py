"""Where encoders send to, as answers say it: on the host by which the client reached the API, since encoders reach that too."""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

_HOST: Final = re.compile(r"[a-z]+://(\[[^]]*\]|[^:/]*)")


@dataclass(frozen=True, slots=True)
class Addresses:
    """Empty: the gateway does not take this protocol."""

    rtmp: str
    rtmps: str
    srt: str
    whip: str


@dataclass(frozen=True, slots=True)
class Ingress:
    """The ports that listen; 0: not this protocol."""

    rtmp: int
    rtmps: int
    srt: int
    whip: bool

    def addresses(self, cid: str, origin: str) -> Addresses:
        """`origin` is how the client reached the gateway over HTTP. The address names the call, so that a token for many calls will do."""
        found = _HOST.match(origin)
        host = found[1] if found else ""
        app = f"live?call={cid}"
        return Addresses(
            rtmp=f"rtmp://{host}:{self.rtmp}/{app}" if self.rtmp else "",
            rtmps=f"rtmps://{host}:{self.rtmps}/{app}" if self.rtmps else "",
            srt=f"srt://{host}:{self.srt}" if self.srt else "",
            whip=f"{origin}/whip/{quote(cid, safe=':')}" if self.whip else "",
        )
