"""What the gateway and one of its fan-out processes say to each other over their socket. Sans-IO.

Messages are framed as a worker's are (`transcode/messages.py`); each is of one viewer or of one source, by a number that the gateway
gives, or of the whole process. Bodies are packed or JSON, never pickled: a process that was taken over by what viewers send must not be
able to make the gateway run code.
"""

import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from protocols.errors import ProtocolError, Reason, Rejected
from protocols.media import WEBRTC_VIDEO, Codec, EncodedPacket, Kind, Track
from protocols.webrtc.sdp.description import Fragment
from protocols.webrtc.send.simulcast import Wish
from protocols.webrtc.transport.ice import Credentials
from protocols.webrtc.transport.places import Standing
from protocols.whep.fanout import ViewerOffer, ViewerState
from transcode.messages import MAX_BODY, pack, track_fields

MOST_NUMBERS = 1 << 16
MOST_SENT = 64  # that one SENT tells of
_UNIT = struct.Struct("<qqqqBH")  # pts, pushed, wall and media clock beyond the monotonic one, flags, payloads
_LENGTH = struct.Struct("<H")
_SENT = struct.Struct("<qqq")
_BITRATE = struct.Struct("<I")
_HEAD = struct.Struct("<I")
_KEYFRAME_FLAG, _CACHED_FLAG = 1, 2


class FanoutMessage(IntEnum):
    # to the process
    START = 1  # where to listen, and the limits
    OFFER = 2  # of a viewer; STATE and ANSWER come, or REFUSED
    RESTART = 3  # of a viewer's ICE; RESTARTED comes
    WISH = 4  # for a layer; WISHED comes
    CLOSE = 5  # a viewer, with the reason
    ENTER = 6  # a viewer watches this call
    SOURCE = 7  # a track of a call
    TRACK = 8  # the facts of a source have changed
    UNIT = 9  # an access unit of a source
    END = 10  # of a source
    SHOW = 11  # a participant of a call as it is now
    HIDE = 12  # a participant has left a call
    KEYFRAMES = 13  # whether a key frame of a source comes where one is asked for
    # from the process
    READY = 32  # the port that it has
    ANSWER = 33
    REFUSED = 34
    RESTARTED = 35
    WISHED = 36
    STATE = 37  # of a viewer, at each change
    CONNECTED = 38  # a viewer
    GONE = 39  # a viewer, with the reason
    KEYFRAME = 40  # of a source is wanted
    BITRATE = 41  # that the viewers' ways carry of a source
    SENT = 42  # access units of a source, to the first viewer of this process
    FIGURES = 43  # every second: what was counted
    FAULT = 44  # why it ends, in words


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """What a process needs to know."""

    host: str
    port: int
    external_addresses: tuple[str, ...]
    most_viewers: int
    connect_s: float


class PushedUnit(NamedTuple):
    """An access unit on its way to viewers, with the clocks of its participant (ns beyond the monotonic one) as they were then. `pushed`
    is monotonic ns; `cached`: it is of the group of pictures so far, and not the newest."""

    packet: EncodedPacket
    pushed: int
    wall: int
    media: int
    cached: bool


class PackedUnit(NamedTuple):
    """The body of a message in two parts, of which the second is the bytes of the unit as they are."""

    head: bytes
    data: bytes


class Sent(NamedTuple):
    """Of a unit its pts; monotonic ns when its payloads were ready, and when its first viewer had them."""

    pts: int
    ready: int
    sent: int


class Answered(NamedTuple):
    answer: str
    etag: str
    remote_ufrag: str
    takes: frozenset[Codec]


class Restarted(NamedTuple):
    text: str
    etag: str
    remote_ufrag: str


class ShownTracks(NamedTuple):
    """A participant of a call: of each kind the numbers of its sources, the largest layer first."""

    cid: str
    participant: str
    sources: Mapping[Kind, Sequence[int]]
    muted: frozenset[Kind]


class ProcessFigures(NamedTuple):
    """Totals of a process since its start, by name."""

    viewers: Mapping[str, int]
    transport: Mapping[str, int]
    cpu_ns: int


NO_FIGURES = ProcessFigures({}, {}, 0)


def text(kind: FanoutMessage, number: int, words: str) -> bytes:
    return pack(kind, number, body=words.encode())


def read_words(body: memoryview) -> str:
    return bytes(body).decode(errors="replace")


def fields(kind: FanoutMessage, number: int, **named: object) -> bytes:
    return pack(kind, number, body=json.dumps(named).encode())


def pack_start(settings: ProcessSettings) -> bytes:
    return fields(FanoutMessage.START, 0, **asdict(settings))


def read_start(body: memoryview) -> ProcessSettings:
    named = _read(body)
    return ProcessSettings(**(named | {"external_addresses": tuple(named["external_addresses"])}))


def pack_offer(number: int, offer: ViewerOffer, standing: Standing) -> bytes:
    head = json.dumps({"standing": standing.value, "without": offer.without}).encode()
    return pack(FanoutMessage.OFFER, number, body=_HEAD.pack(len(head)) + head + offer.sdp)


def read_offer(body: memoryview) -> tuple[ViewerOffer, Standing]:
    (size,) = _HEAD.unpack_from(body)
    begin = _HEAD.size + size
    named = _read(body[_HEAD.size : begin])
    return ViewerOffer(bytes(body[begin:]), named["without"]), Standing(named["standing"])


def pack_restart(number: int, ice: Credentials | None) -> bytes:
    return fields(FanoutMessage.RESTART, number, ice=None if ice is None else (ice.ufrag, ice.password))


def read_restart(body: memoryview) -> Fragment:
    ice = _read(body)["ice"]
    return Fragment(None if ice is None else Credentials(*ice), 0, complete=False)


def pack_wish(number: int, media: str | None, wish: Wish) -> bytes:
    return fields(FanoutMessage.WISH, number, media=media, wish=asdict(wish))


def read_wish(body: memoryview) -> tuple[str | None, Wish]:
    named = _read(body)
    return named["media"], Wish(**named["wish"])


def pack_source(number: int, cid: str, participant: str, track: Track) -> bytes:
    return fields(FanoutMessage.SOURCE, number, cid=cid, participant=participant, track=track_fields(track))


def read_source(body: memoryview) -> tuple[str, str, Track]:
    named = _read(body)
    return named["cid"], named["participant"], _track(named["track"])


def pack_track(number: int, track: Track) -> bytes:
    return fields(FanoutMessage.TRACK, number, track=track_fields(track))


def read_changed_track(body: memoryview) -> Track:
    return _track(_read(body)["track"])


def _track(named: dict[str, Any]) -> Track:
    return Track(**(named | {"codec": Codec(named["codec"]), "extradata": bytes.fromhex(named["extradata"])}))


def pack_unit(unit: PushedUnit) -> PackedUnit | None:
    """As it goes to every process; None: a message has no room for it."""
    packet = unit.packet
    data = b"".join(packet.payloads) if packet.payloads else packet.data
    count = len(packet.payloads)
    if count >= MOST_NUMBERS or _UNIT.size + count * _LENGTH.size + len(data) > MAX_BODY:
        return None
    flags = (_KEYFRAME_FLAG if packet.keyframe else 0) | (_CACHED_FLAG if unit.cached else 0)
    head = _UNIT.pack(packet.pts, unit.pushed, unit.wall, unit.media, flags, count)
    return PackedUnit(head + b"".join(_LENGTH.pack(len(payload)) for payload in packet.payloads), data)


def unit_of(number: int, unit: PackedUnit) -> bytes:
    """The message of the source of this number, up to the unit's `data`."""
    return pack(FanoutMessage.UNIT, number, body=unit.head, more=len(unit.data))


def read_unit(body: memoryview) -> PushedUnit:
    pts, pushed, wall, media, flags, count = _UNIT.unpack_from(body)
    begin = _UNIT.size + count * _LENGTH.size
    if count:
        payloads = tuple(_cut(body[begin:], (size for (size,) in _LENGTH.iter_unpack(body[_UNIT.size : begin]))))
        data = b""
    else:
        payloads, data = (), bytes(body[begin:])
    packet = EncodedPacket(0, pts, pts, bool(flags & _KEYFRAME_FLAG), data, pushed, pushed, payloads=payloads)
    return PushedUnit(packet, pushed, wall, media, bool(flags & _CACHED_FLAG))


def _cut(data: memoryview, sizes: Iterable[int]) -> Iterator[bytes]:
    begin = 0
    for size in sizes:
        yield bytes(data[begin : begin + size])
        begin += size


def pack_show(shown: ShownTracks) -> bytes:
    sources = {kind.value: list(numbers) for kind, numbers in shown.sources.items()}
    muted = sorted(kind.value for kind in shown.muted)
    return fields(FanoutMessage.SHOW, 0, cid=shown.cid, participant=shown.participant, sources=sources, muted=muted)


def read_show(body: memoryview) -> ShownTracks:
    named = _read(body)
    sources = {Kind(kind): tuple(numbers) for kind, numbers in named["sources"].items()}
    return ShownTracks(named["cid"], named["participant"], sources, frozenset(map(Kind, named["muted"])))


def pack_hide(cid: str, participant: str) -> bytes:
    return fields(FanoutMessage.HIDE, 0, cid=cid, participant=participant)


def read_hide(body: memoryview) -> tuple[str, str]:
    named = _read(body)
    return named["cid"], named["participant"]


# From the process: read as from a stranger. Each raises `ProtocolError`.


def pack_answer(number: int, answered: Answered) -> bytes:
    named = answered._asdict() | {"takes": sorted(codec.value for codec in answered.takes)}
    return fields(FanoutMessage.ANSWER, number, **named)


def read_answer(body: memoryview) -> Answered:
    named = _checked(body, answer=str, etag=str, remote_ufrag=str, takes=list)
    takes = frozenset(codec for codec in WEBRTC_VIDEO if codec.value in named["takes"])
    return Answered(named["answer"], named["etag"], named["remote_ufrag"], takes)


def pack_refused(number: int, error: ProtocolError | Rejected) -> bytes:
    if isinstance(error, Rejected):
        return fields(FanoutMessage.REFUSED, number, reason=error.reason.name, words=error.detail, wait_s=error.wait_s)
    return fields(FanoutMessage.REFUSED, number, reason="", words=str(error), wait_s=0)


def read_refused(body: memoryview) -> ProtocolError | Rejected:
    """What `offer` is to raise."""
    named = _checked(body, reason=str, words=str, wait_s=int)
    reason = Reason.__members__.get(named["reason"])
    return ProtocolError(named["words"]) if reason is None else Rejected(reason, named["words"], named["wait_s"])


def read_restarted(body: memoryview) -> Restarted:
    return Restarted(**_checked(body, text=str, etag=str, remote_ufrag=str))


def read_wished(body: memoryview) -> list[str] | None:
    layers = _checked(body, layers=(list, type(None)))["layers"]
    return layers if layers is None else [str(each) for each in layers]


def pack_state(number: int, state: ViewerState) -> bytes:
    slots, layers = state.slots.encode(), state.layers.encode()
    return pack(FanoutMessage.STATE, number, body=_HEAD.pack(len(slots)) + slots + layers)


def read_state(body: memoryview) -> ViewerState:
    if len(body) < _HEAD.size:
        raise ProtocolError("a message of a viewer's state that is too short")
    (size,) = _HEAD.unpack_from(body)
    slots, layers = bytes(body[_HEAD.size : _HEAD.size + size]), bytes(body[_HEAD.size + size :])
    if any(each in slots or each in layers for each in (b"\n", b"\r")):
        raise ProtocolError("a viewer's state of several lines")
    return ViewerState(slots.decode(errors="replace"), layers.decode(errors="replace"))


def pack_bitrate(number: int, bits_per_second: int) -> bytes:
    return pack(FanoutMessage.BITRATE, number, body=_BITRATE.pack(min(bits_per_second, 0xFFFFFFFF)))


def read_bitrate(body: memoryview) -> int:
    if len(body) != _BITRATE.size:
        raise ProtocolError("a message of a bitrate of the wrong size")
    return int(_BITRATE.unpack(body)[0])


def pack_sent(number: int, entries: Iterable[Sent]) -> bytes:
    return pack(FanoutMessage.SENT, number, body=b"".join(_SENT.pack(*entry) for entry in entries))


def read_sent(body: memoryview) -> list[Sent]:
    if len(body) % _SENT.size or len(body) > MOST_SENT * _SENT.size:
        raise ProtocolError("a message of units that were sent, of the wrong size")
    return [Sent(*entry) for entry in _SENT.iter_unpack(body)]


def pack_figures(figures: ProcessFigures) -> bytes:
    return fields(FanoutMessage.FIGURES, 0, **figures._asdict())


def read_figures(body: memoryview) -> ProcessFigures:
    named = _checked(body, viewers=dict, transport=dict, cpu_ns=int)
    return ProcessFigures(_totals(named["viewers"]), _totals(named["transport"]), named["cpu_ns"])


def read_port(body: memoryview) -> int:
    return int(_checked(body, port=int)["port"])


def _totals(named: Mapping[str, object]) -> dict[str, int]:
    return {name: value for name, value in named.items() if isinstance(value, int)}


def _checked(body: memoryview, **types: type | tuple[type, ...]) -> dict[str, Any]:
    named = _read(body)
    for name, wanted in types.items():
        if not isinstance(named.get(name), wanted):
            raise ProtocolError(f"a message of a fan-out process whose {name} is of the wrong type")
    return {name: named[name] for name in types}


def _read(body: memoryview) -> dict[str, Any]:
    try:
        named = json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise ProtocolError("a message that is no JSON") from error
    if not isinstance(named, dict):
        raise ProtocolError("a message that is no JSON object")
    return named
