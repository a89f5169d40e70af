"""How things go wrong, and how each protocol says so: a broken wire format is a `ProtocolError`, a refusal is `Rejected`.

One `Reason` has its HTTP status (RFC 9110), RTMP status code, SRT reject code and metric label beside it, so that a streamer hears the same
thing whatever the encoder speaks. The SRT code is 1000 + status (SRT Access Control), except that "try later" (429 and 503) is 1402,
SRT_REJX_OVERLOAD: that document gives 402 a meaning of its own.
"""

from enum import Enum
from math import ceil


class ProtocolError(Exception):
    """The peer broke the wire format: the connection ends. The text names what was wrong, never the peer's secrets."""


class Reason(Enum):
    """Why a publisher or viewer is refused: (HTTP status, RTMP `onStatus` code); the name in lower case is the metric label."""

    BAD_REQUEST = (400, "NetStream.Publish.Failed")
    UNAUTHORIZED = (401, "NetStream.Publish.Denied")
    FORBIDDEN = (403, "NetStream.Publish.Denied")
    NOT_FOUND = (404, "NetStream.Publish.Denied")
    METHOD_NOT_ALLOWED = (405, "NetStream.Publish.Failed")
    CONFLICT = (409, "NetStream.Publish.BadName")
    UNSUPPORTED_MEDIA = (415, "NetStream.Publish.Failed")
    TOO_MANY_REQUESTS = (429, "NetStream.Publish.Denied")
    INTERNAL = (500, "NetStream.Publish.Failed")
    OVERLOADED = (503, "NetStream.Publish.Failed")

    @property
    def status(self) -> int:
        return self.value[0]

    @property
    def rtmp_code(self) -> str:
        return self.value[1]

    @property
    def srt_code(self) -> int:
        return _SRT_OVERLOAD if self.status in (429, 503) else 1000 + self.status

    @property
    def label(self) -> str:
        return self.name.lower()


_SRT_OVERLOAD = 1402  # too heavily loaded, or the caller has used up what it may have


class Rejected(Exception):
    """A refusal in words for the streamer: `detail` says what to change, and holds no secret. `wait_s`: after so many seconds they may come
    again; 0: nobody knows."""

    def __init__(self, reason: Reason, detail: str, wait_s: float = 0.0) -> None:
        super().__init__(f"{reason.label}: {detail}")
        self.reason = reason
        self.detail = detail
        self.wait_s = ceil(wait_s)
