"""What a WebRTC peer offers (SDP: RFC 8866, RFC 9429) and trickles (RFC 8840), read into plain data. Sans-IO.

What is kept true: an offer is bounded in bytes, m-lines, lines and attributes of each kind, and what the session says is read once, so that
none takes long; whatever a reader is given, it returns data or raises `ProtocolError`; every text that an answer will repeat is a printable
token without spaces. Attributes count at session or media level; unknown ones are ignored. aiortc's reader is not used: it asserts on what
it does not know, knows no `bundle-only` or `rid`, and its work grows with the square of the offer.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from protocols.errors import ProtocolError
from protocols.webrtc.transport.ice import Credentials

MAX_BYTES = 128 * 1024  # a browser that asks for 16 pairs of video and audio sends 100 KB
MAX_MEDIA = 32
MAX_CANDIDATES = 64
MAX_LAYERS = 8
FEEDBACK = ("nack", "nack pli", "ccm fir", "goog-remb", "transport-cc")
"""What of `a=rtcp-fb` we know (RFC 4585 §4.2, RFC 5104 §7.1); the rest is left out."""
_MAX_SOURCES = 32
_MAX_LINES = 8192
_MAX_PARAMETERS = 64  # of one fmtp
_MOST: Mapping[str, int] = MappingProxyType({"rtpmap": 128, "fmtp": 256, "rtcp-fb": 1024, "extmap": 64, "rtcp-xr": 8})
"""Lines of one m-line, or of the session, by attribute. There are 128 payload types; browsers give up to 8 kinds of feedback for each."""

_TOKEN = re.compile(r"[!-~]{1,256}")
_ICE_CHARS = re.compile(r"[A-Za-z0-9+/]+")  # RFC 8839 §5.4
_MEDIA_LINE = re.compile(r"([a-z]{1,16}) (\d{1,5})(?:/\d{1,5})? ([A-Za-z0-9/]{1,32}) ([!-~][ -~]{0,1023})")
_RTPMAP = re.compile(r"(\d{1,3}) ([!-.0-~]{1,32})/(\d{1,9})(?:/(\d{1,2}))?")
_RID = re.compile(r"([A-Za-z0-9_-]{1,16}) send(?: .*)?")  # RFC 8851 §10; of 16 bytes at most, as a one-byte header carries
_EXTMAP = re.compile(r"(\d{1,5})(?:/([a-z]{1,8}))? ([!-~]{1,256})(?: .*)?")
_DIRECTIONS = frozenset({"sendrecv", "sendonly", "recvonly", "inactive"})
_SETUPS = frozenset({"actpass", "active", "passive"})
_FINGERPRINTS = frozenset(
    {"sha-256", "sha-384", "sha-512"}
)  # what a certificate is compared by; RFC 8122 §5 gives up the others
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class OfferedCodec:
    """One payload type of an m-line; `name` in lower case."""

    payload_type: int
    name: str
    clock_rate: int
    channels: int
    parameters: Mapping[str, str]
    feedback: frozenset[str]


@dataclass(frozen=True, slots=True)
class Media:
    """One m-line. `live` is False where the peer has switched it off (port 0 without `bundle-only`, RFC 9143 §6)."""

    kind: str
    protocol: str
    formats: tuple[str, ...]
    mid: str
    direction: str
    ufrag: str  # of the transport that it is offered with; empty for one that leaves that to the bundle
    live: bool
    rtcp_mux: bool
    receiver_round_trip: bool  # it wants to measure the round trip as a receiver (RFC 3611 §5.1)
    codecs: tuple[OfferedCodec, ...]
    extensions: Mapping[str, int]  # URI -> id
    layers: tuple[str, ...]  # rids of the simulcast that is offered, in its order (RFC 8853)
    sources: tuple[int, ...]  # SSRCs that the peer announces, those of repair not among them
    repairs: Mapping[int, int]  # SSRC of a repair stream -> that of its original (RFC 4588 §8.8, RFC 5576 §4.2)


@dataclass(frozen=True, slots=True)
class Offer:
    """What the peer wants and how to reach it. All m-lines of `bundle` share the one transport described here, that of its first."""

    media: tuple[Media, ...]
    bundle: tuple[str, ...]
    ice: Credentials
    fingerprints: tuple[tuple[str, str], ...]  # (hash in lower case, colon-separated hex)
    setup: str


@dataclass(frozen=True, slots=True)
class Fragment:
    """An `application/trickle-ice-sdpfrag` body: new candidates, or with another ufrag an ICE restart (RFC 8840 §4, RFC 9725 §4.3)."""

    ice: Credentials | None
    candidates: int
    complete: bool


class _Section:
    """The attributes of the session or of one m-line, in the order given."""

    __slots__ = ("attributes", "head")

    def __init__(self, head: str) -> None:
        self.head = head
        self.attributes: dict[str, list[str]] = {}

    def first(self, name: str, session: "_Section | None" = None) -> str | None:
        values = self.attributes.get(name) or (session.attributes.get(name) if session else None)
        return values[0] if values else None

    def all(self, name: str) -> Sequence[str]:
        return self.attributes.get(name, ())

    @property
    def direction(self) -> str | None:
        return next((name for name in self.attributes if name in _DIRECTIONS), None)


class _Extension(NamedTuple):
    uri: str
    number: int
    direction: str


@dataclass(frozen=True, slots=True)
class _SessionDefaults:
    """What an m-line takes from the session where it does not say."""

    direction: str
    rtcp_mux: bool
    extensions: Sequence[_Extension]
    ufrag: str


def parse_offer(body: bytes) -> Offer:
    """Read an offer. Raises `ProtocolError` that says what is wrong."""
    session, sections = _sections(body)
    if session.first("v=") != "0":
        raise ProtocolError("not a session description: it does not begin with v=0")
    if not sections:
        raise ProtocolError("the offer has no m-line")
    if "ice-lite" in session.attributes:
        raise ProtocolError("the offer says a=ice-lite, and so does the gateway: the peer must be a full ICE agent")
    defaults = _SessionDefaults(
        session.direction or "sendrecv",
        "rtcp-mux" in session.attributes,
        _extensions(session),
        session.first("ice-ufrag") or "",
    )
    media = tuple(_media(section, defaults) for section in sections)
    mids = [each.mid for each in media if each.mid]
    if len(set(mids)) != len(mids):
        raise ProtocolError("two m-lines have the same mid")
    bundle = next(
        (tuple(dict.fromkeys(value.split()[1:])) for value in session.all("group") if value.startswith("BUNDLE ")), ()
    )
    if len(bundle) > MAX_MEDIA:
        raise ProtocolError(f"the bundle has more than {MAX_MEDIA} m-lines")
    # RFC 9143 §7.1: the transport of the bundle is that of the m-line that it names first; a bundle-only one may carry none.
    places = {mid: place for place, mid in enumerate(bundle)}
    carriers = (number for number, each in enumerate(media) if each.live and each.ufrag and (not bundle or each.mid in places))
    tagged = sections[min(carriers, key=lambda number: places.get(media[number].mid, 0), default=0)]
    return Offer(media, bundle, _credentials(tagged, session), _fingerprints(tagged, session), _setup(tagged, session))


def parse_fragment(body: bytes) -> Fragment:
    """Read a trickle fragment. Raises `ProtocolError`."""
    session, sections = _sections(body)
    everything = [session, *sections]
    carrier = next((section for section in everything if section.first("ice-ufrag") is not None), None)
    return Fragment(
        ice=_credentials(carrier, session) if carrier else None,
        candidates=sum(len(section.all("candidate")) for section in everything),
        complete=any("end-of-candidates" in section.attributes for section in everything),
    )


def _sections(body: bytes) -> tuple[_Section, list[_Section]]:
    if len(body) > MAX_BYTES:
        raise ProtocolError(f"the description is larger than {MAX_BYTES} bytes")
    try:
        lines = body.decode().split("\n")
    except UnicodeDecodeError:
        raise ProtocolError("the description is not UTF-8") from None
    if len(lines) > _MAX_LINES:
        raise ProtocolError(f"the description has more than {_MAX_LINES} lines")
    session = current = _Section("")
    sections: list[_Section] = []
    candidates = 0
    for line in lines:
        kind, equals, value = line.removesuffix("\r").partition("=")
        if not equals:
            continue
        match kind:
            case "m":
                current = _Section(value)
                sections.append(current)
            case "v" if current is session:
                session.attributes.setdefault("v=", []).append(value)
            case "a":
                name, _, value = value.partition(":")
                candidates += name == "candidate"
                values = current.attributes.setdefault(name, [])
                values.append(value)
                if len(values) > _MOST.get(name, _MAX_LINES):
                    raise ProtocolError(f"the description has more than {_MOST[name]} lines a={name} in one place")
        if len(sections) > MAX_MEDIA or candidates > MAX_CANDIDATES * max(1, len(sections)):
            raise ProtocolError(f"the description has more than {MAX_MEDIA} m-lines or {MAX_CANDIDATES} candidates in each")
    return session, sections


def _media(section: _Section, session: _SessionDefaults) -> Media:
    parts = _MEDIA_LINE.fullmatch(section.head)
    if parts is None:
        raise ProtocolError("an m-line cannot be read")
    kind, port, protocol, formats = parts.groups()
    mid = section.first("mid") or ""
    if mid and not _TOKEN.fullmatch(mid):
        raise ProtocolError("a mid is not a token")
    repairs = _repairs(section)
    direction = section.direction or session.direction
    return Media(
        kind=kind,
        protocol=protocol,
        formats=tuple(formats.split()),
        mid=mid,
        direction=direction,
        ufrag=section.first("ice-ufrag") or session.ufrag,
        live=port != "0" or "bundle-only" in section.attributes,
        rtcp_mux=session.rtcp_mux or "rtcp-mux" in section.attributes,
        receiver_round_trip=any("rcvr-rtt=all" in value for value in section.all("rtcp-xr")),
        codecs=_codecs(section),
        extensions=MappingProxyType(
            # RFC 8285 §6: an extension goes the ways that it says, those of its m-line where it says none.
            {
                each.uri: each.number
                for each in (*_extensions(section), *session.extensions)
                if each.direction in ("", "sendrecv", direction)
            }
        ),
        layers=_layers(section),
        sources=tuple(ssrc for ssrc in _sources(section) if ssrc not in repairs),
        repairs=MappingProxyType(repairs),
    )


def _codecs(section: _Section) -> tuple[OfferedCodec, ...]:
    parameters: dict[str, Mapping[str, str]] = {}
    for payload_type, text in map(_split, section.all("fmtp")):
        pairs = (item.strip().partition("=") for item in text.split(";", _MAX_PARAMETERS)[:_MAX_PARAMETERS])
        parameters[payload_type] = MappingProxyType({name.lower(): value for name, _, value in pairs if name})
    feedback: dict[str, set[str]] = {}
    for payload_type, text in map(_split, section.all("rtcp-fb")):
        if (kind := text.strip()) in FEEDBACK:
            feedback.setdefault(payload_type, set()).add(kind)
    for_all = feedback.get("*", set())
    codecs: dict[int, OfferedCodec] = {}
    for value in section.all("rtpmap"):
        match = _RTPMAP.fullmatch(value.strip())
        if match is None or int(match[1]) > 127:
            raise ProtocolError("an rtpmap cannot be read")
        payload_type = match[1]
        codecs.setdefault(
            int(payload_type),
            OfferedCodec(
                payload_type=int(payload_type),
                name=match[2].lower(),
                clock_rate=int(match[3]),
                channels=int(match[4] or 1),
                parameters=parameters.get(payload_type, _NOTHING),
                feedback=frozenset(feedback.get(payload_type, set()) | for_all),
            ),
        )
    return tuple(codecs.values())


def _extensions(section: _Section) -> list[_Extension]:
    matches = (_EXTMAP.fullmatch(value.strip()) for value in section.all("extmap"))
    return [_Extension(match[3], int(match[1]), match[2] or "") for match in matches if match is not None]


def _layers(section: _Section) -> tuple[str, ...]:
    """The rids that `a=simulcast:send` names; of alternatives (RFC 8853 §5.1) the first, and paused ones too."""
    rids = {match[1] for value in section.all("rid") if (match := _RID.fullmatch(value.strip()))}
    direction, _, streams = (section.first("simulcast") or "").strip().partition("send ")
    if direction:  # only receiving, or receiving first: a sendrecv of simulcast is none of ours
        return ()
    named = [each.partition(",")[0].removeprefix("~") for each in streams.partition(" ")[0].split(";")]
    return tuple(dict.fromkeys(rid for rid in named if rid in rids))[:MAX_LAYERS]


def _sources(section: _Section) -> dict[int, None]:
    names = (value.partition(" ")[0] for value in section.all("ssrc"))
    found = dict.fromkeys(int(name) for name in names if name.isdecimal() and len(name) <= 10)
    return dict.fromkeys(list(found)[:_MAX_SOURCES])


def _repairs(section: _Section) -> dict[int, int]:
    groups = (value.split() for value in section.all("ssrc-group")[:_MAX_SOURCES])
    return {
        int(group[2]): int(group[1])
        for group in groups
        if len(group) == 3 and group[0] == "FID" and all(each.isdecimal() and len(each) <= 10 for each in group[1:])
    }


def _credentials(section: _Section, session: _Section) -> Credentials:
    ufrag = section.first("ice-ufrag", session) or ""
    password = section.first("ice-pwd", session) or ""
    # RFC 8839 §5.4: 4 to 256 and 22 to 256 ice-chars.
    for name, value, shortest in (("ice-ufrag", ufrag, 4), ("ice-pwd", password, 22)):
        if not (shortest <= len(value) <= 256 and _ICE_CHARS.fullmatch(value)):
            raise ProtocolError(f"{name} is missing or malformed")
    return Credentials(ufrag, password)


def _fingerprints(section: _Section, session: _Section) -> tuple[tuple[str, str], ...]:
    values = section.all("fingerprint") or session.all("fingerprint")
    pairs = [tuple(value.split()) for value in values[:8]]
    fingerprints = tuple((pair[0].lower(), pair[1].upper()) for pair in pairs if len(pair) == 2)
    if not any(name in _FINGERPRINTS for name, _ in fingerprints):
        raise ProtocolError("the offer has no DTLS fingerprint by sha-256, sha-384 or sha-512")
    return fingerprints


def _setup(section: _Section, session: _Section) -> str:
    setup = section.first("setup", session) or "actpass"
    if setup not in _SETUPS:
        raise ProtocolError("a=setup is not actpass, active or passive")
    return setup


def _split(value: str) -> tuple[str, str]:
    name, _, rest = value.strip().partition(" ")
    return name, rest
