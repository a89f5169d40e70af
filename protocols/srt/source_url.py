"""The address of a stream to be pulled: `srt://host:port?streamid=…&passphrase=…&latency=…`, as srt-live-transmit writes it. Sans-IO."""

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from protocols.errors import Reason, Rejected
from protocols.srt.admission import Access

_KEY_BYTES: Final = frozenset({0, 16, 24, 32})
_PARAMS: Final = frozenset({"streamid", "passphrase", "latency", "pbkeylen", "mode", "transtype"})


@dataclass(frozen=True, slots=True)
class SourceUrl:
    """What an address says; `latency` in ms."""

    host: str
    port: int
    stream_id: str = field(default="", repr=False)
    access: Access = field(default_factory=Access)
    key_bytes: int = 0  # 0: the listener's choice

    def __str__(self) -> str:
        """The address without its secrets."""
        return f"srt://[{self.host}]:{self.port}" if ":" in self.host else f"srt://{self.host}:{self.port}"


def parse_source(url: str) -> SourceUrl:
    """Raises `Rejected` (BAD_REQUEST) with words that hold no secret."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _bad("it is not to be read") from None
    if parts.scheme != "srt" or not host or not port:
        raise _bad("it is srt://host:port?streamid=…&passphrase=…&latency=…")
    # A stream id in its own syntax (#!::…) may stand unquoted, as ffmpeg takes it: then it looks like a fragment.
    query = parts.query + (f"#{parts.fragment}" if parts.fragment else "")
    pairs = (item.partition("=") for item in query.split("&") if item)
    given = {unquote(name): unquote(value) for name, _, value in pairs}  # "+" is itself, not a space, as in libsrt's own tools
    if given.keys() - _PARAMS:
        raise _bad(f"unknown parameters; known are {', '.join(sorted(_PARAMS))}")
    if given.get("mode", "caller") != "caller" or given.get("transtype", "live") != "live":
        raise _bad("only mode=caller and transtype=live")
    stream_id = given.get("streamid", "")
    if len(stream_id.encode()) > 512:
        raise _bad("the stream id is longer than 512 bytes")
    latency, key_bytes = given.get("latency", ""), given.get("pbkeylen", "0")
    if latency and not latency.isdecimal():
        raise _bad("latency is a number of ms")
    if not key_bytes.isdecimal() or int(key_bytes) not in _KEY_BYTES:
        raise _bad("pbkeylen is 16, 24 or 32")
    try:
        access = Access(given.get("passphrase") or None, latency_ms=int(latency) if latency else None)
    except ValueError as error:
        raise _bad(str(error)) from None
    return SourceUrl(host, port, stream_id, access, int(key_bytes))


def _bad(why: str) -> Rejected:
    return Rejected(Reason.BAD_REQUEST, f"SRT source address: {why}")
