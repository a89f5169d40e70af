"""The answer to an offer (RFC 9429 §5.3) by an ICE-lite endpoint with one UDP port. Sans-IO.

What is kept true: CRLF lines; the m-lines of the offer in their order, each accepted or refused with port 0; everything accepted is in
one BUNDLE with rtcp-mux; the first candidate is IPv4 over UDP; only payload types, extensions and feedback of the offer are used.
"""

import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from protocols.media import Codec as MediaCodec
from protocols.media import Kind
from protocols.webrtc.rtp import CLOCK_RATES, ReceiveFormat, ReceiveParameters, SendFormat, SendParameters
from protocols.webrtc.sdp.description import FEEDBACK, Media, Offer, OfferedCodec
from protocols.webrtc.transport.ice import Candidate, Credentials

MID = "urn:ietf:params:rtp-hdrext:sdes:mid"
RID = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
REPAIRED_RID = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"
ABS_SEND_TIME = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
PLAYOUT_DELAY = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"
TRANSPORT_CC = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"

_PARAMETER = re.compile(r"[a-z0-9-]{1,32}=[A-Za-z0-9.,_+-]{1,64}")
_MAX_EXTENSION_ID = 14  # RFC 8285 §4.2: one-byte headers
# What the peer's decoder is likeliest to have in hardware and software alike comes first; what the stream really is, its SPS says.
_H264_PROFILES = ("42e0", "42c0", "4200", "4d00", "4d40", "640c", "6400")


@dataclass(frozen=True, slots=True)
class LocalTransport:
    """Our end: the same for every m-line."""

    ice: Credentials
    fingerprint: str  # "sha-256 AB:CD:…"
    setup: str  # "active" or "passive"
    candidates: tuple[Candidate, ...]

    def lines(self) -> list[str]:
        return [
            f"a=ice-ufrag:{self.ice.ufrag}",
            f"a=ice-pwd:{self.ice.password}",
            *(f"a=candidate:{candidate}" for candidate in self.candidates),
            "a=end-of-candidates",
        ]


@dataclass(frozen=True, slots=True)
class NegotiatedFormat:
    """One codec of an accepted m-line, with its repair."""

    codec: OfferedCodec
    parameters: str
    rtx: OfferedCodec | None = None

    @property
    def feedback(self) -> tuple[str, ...]:
        return tuple(each for each in FEEDBACK if each in self.codec.feedback)

    @property
    def payload_types(self) -> tuple[int, ...]:
        return (self.codec.payload_type,) if self.rtx is None else (self.codec.payload_type, self.rtx.payload_type)

    def lines(self) -> list[str]:
        codec, rtx, payload = self.codec, self.rtx, self.codec.payload_type
        channels = f"/{codec.channels}" if codec.channels > 1 else ""
        lines = [f"a=rtpmap:{payload} {_SPELLINGS.get(codec.name, codec.name)}/{codec.clock_rate}{channels}"]
        if self.parameters:
            lines.append(f"a=fmtp:{payload} {self.parameters}")
        lines += [f"a=rtcp-fb:{payload} {each}" for each in self.feedback]
        if rtx:
            lines += [f"a=rtpmap:{rtx.payload_type} rtx/{rtx.clock_rate}", f"a=fmtp:{rtx.payload_type} apt={payload}"]
        return lines


@dataclass(frozen=True, slots=True)
class Accepted:
    """One m-line of the answer, the `number`-th of its kind; `lines` are its direction's own attributes (msid, ssrc, rid, …)."""

    number: int
    direction: str
    formats: tuple[NegotiatedFormat, ...]
    extensions: Mapping[str, int]
    send: SendParameters | None = None
    receive: ReceiveParameters | None = None
    lines: tuple[str, ...] = ()

    @property
    def parameters(self) -> str:
        """Of the first codec."""
        return self.formats[0].parameters


def sending(offer: Offer, cname: str) -> tuple[Accepted | None, ...]:
    """Accept every m-line on which the peer wants to receive what we can send, with each codec of it that we can: H.264
    (packetization-mode 1) before VP8, VP9 and AV1 (both of profile 0); Opus. Which one comes is up to what is shown, and may change.

    The n-th video and the n-th audio m-line share a stream id, so that a player keeps them in sync. What is refused is None.
    """
    ssrcs = _distinct_ssrcs(2 * len(offer.media))
    counts = dict.fromkeys(Kind, 0)
    accepted: list[Accepted | None] = []
    for media in offer.media:
        kind = _KINDS.get(media.kind)
        if kind is None:
            accepted.append(None)
            continue
        number = counts[kind]
        counts[kind] += 1
        accepted.append(_sending(media, kind, number, cname, ssrcs) if _may_receive(offer, media) else None)
    return tuple(accepted)


def _sending(media: Media, kind: Kind, number: int, cname: str, ssrcs: list[int]) -> Accepted | None:
    codecs = [codec for name in _SENDABLE if _READABLE[name].kind is kind and (codec := _chosen(name, media.codecs))]
    if not codecs:
        return None
    formats = tuple(
        NegotiatedFormat(codec, _SENDABLE[codec.name].parameters(codec), _rtx_of(codec, media.codecs)) for codec in codecs
    )
    delay = [PLAYOUT_DELAY] if kind is Kind.VIDEO else []
    extensions = _offered(media, [MID, ABS_SEND_TIME, *delay, *_transport_cc(codecs)])
    send = SendParameters(
        kind=kind,
        mid=media.mid,
        formats=MappingProxyType(
            {
                _READABLE[each.codec.name]: SendFormat(each.codec.payload_type, each.rtx.payload_type if each.rtx else None)
                for each in formats
            }
        ),
        ssrc=ssrcs.pop(),
        cname=cname,
        rtx_ssrc=ssrcs.pop() if any(each.rtx for each in formats) else None,
        mid_extension=extensions.get(MID, 0),
        abs_send_time_extension=extensions.get(ABS_SEND_TIME, 0),
        transport_cc_extension=extensions.get(TRANSPORT_CC, 0),
        playout_delay_extension=extensions.get(PLAYOUT_DELAY, 0),
    )
    lines = _source_lines(send, f"slot-{number}")
    return Accepted(number, "sendonly", formats, extensions, send=send, lines=lines)


def receiving(offer: Offer) -> tuple[Accepted | None, ...]:
    """Accept the first video and the first audio m-line on which the peer sends, with every codec of it that we can read.

    What most decoders take comes first, because a peer sends the first codec of an answer. What is refused is None.
    """
    taken: set[Kind] = set()
    accepted: list[Accepted | None] = []
    for media in offer.media:
        kind = _KINDS.get(media.kind)
        fits = kind is not None and kind not in taken and _usable(offer, media) and media.direction in ("sendonly", "sendrecv")
        each = _receiving(media, kind) if kind is not None and fits else None
        if kind is not None and each is not None:
            taken.add(kind)
        accepted.append(each)
    return tuple(accepted)


def _receiving(media: Media, kind: Kind) -> Accepted | None:
    readable = sorted(
        (codec for codec in media.codecs if (name := _READABLE.get(codec.name)) and name.kind is kind and _is_readable(codec)),
        key=_readable_rank,
    )
    if not readable:
        return None
    formats = tuple(NegotiatedFormat(codec, _received_parameters(codec), _rtx_of(codec, media.codecs)) for codec in readable)
    wanted = [MID, RID, REPAIRED_RID, ABS_SEND_TIME] if media.layers else [MID, ABS_SEND_TIME]
    extensions = _offered(media, [*wanted, *_transport_cc(readable)])
    # RFC 8853 §5.3.2: the answer names the streams as the offer does. Without the rid in its headers nobody could tell them apart.
    layers = media.layers if RID in extensions and MID in extensions else ()
    lines = (*(f"a=rid:{rid} recv" for rid in layers), *([f"a=simulcast:recv {';'.join(layers)}"] if layers else []))
    receive = ReceiveParameters(
        kind=kind,
        mid=media.mid,
        formats=MappingProxyType(
            {
                each.codec.payload_type: ReceiveFormat(
                    _READABLE[each.codec.name], each.codec.clock_rate, frozenset(each.feedback)
                )
                for each in formats
            }
        ),
        repair_formats=MappingProxyType({each.rtx.payload_type: each.codec.payload_type for each in formats if each.rtx}),
        layers=layers,
        sources=media.sources,
        repairs=media.repairs,
        mid_extension=extensions.get(MID, 0),
        rid_extension=extensions.get(RID, 0),
        repaired_rid_extension=extensions.get(REPAIRED_RID, 0),
        abs_send_time_extension=extensions.get(ABS_SEND_TIME, 0),
        transport_cc_extension=extensions.get(TRANSPORT_CC, 0),
    )
    return Accepted(0, "recvonly", formats, extensions, receive=receive, lines=lines)


def _has_usual_clock(codec: OfferedCodec) -> bool:
    return codec.clock_rate == CLOCK_RATES[_READABLE[codec.name].kind]


def _is_readable(codec: OfferedCodec) -> bool:
    if not _has_usual_clock(codec):
        return False
    if codec.name == "opus":
        return codec.channels == 2  # RFC 7587 §7: always 2, whatever is sent
    # RFC 6184 §6.4: interleaved (mode 2) units come out of decoding order.
    return codec.name != "h264" or codec.parameters.get("packetization-mode", "0") in ("0", "1")


def _readable_rank(codec: OfferedCodec) -> tuple[int, ...]:
    place = tuple(_READABLE).index(codec.name)
    return (place, codec.parameters.get("packetization-mode") != "1", _h264_rank(codec)) if codec.name == "h264" else (place,)


def _received_parameters(codec: OfferedCodec) -> str:
    """The peer's own parameters, which say what it will send; for Opus what we want of it (RFC 7587 §6.1)."""
    kept = _well_formed(codec.parameters)
    match codec.name:
        case "opus":
            kept.pop("sprop-stereo", None)
            kept |= {"stereo": "1", "useinbandfec": "1"}
        case "h264" | "h265":
            kept = {name: value for name, value in kept.items() if not name.startswith("sprop-")}
    return _joined(kept)


def _well_formed(parameters: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in parameters.items() if _PARAMETER.fullmatch(f"{name}={value}")}


def _joined(parameters: Mapping[str, str]) -> str:
    return ";".join(f"{name}={value}" for name, value in parameters.items())


def render(offer: Offer, accepted: Sequence[Accepted | None], transport: LocalTransport) -> str:
    """The whole answer; `accepted` goes with `offer.media`, None refuses."""
    mids = {media.mid for media, each in zip(offer.media, accepted, strict=True) if each}
    bundle = " ".join(mid for mid in offer.bundle if mid in mids)  # RFC 9143 §7.3: only where one was offered, and in its order
    lines = ["v=0", f"o=- {secrets.randbits(62)} 2 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=ice-lite"]
    if bundle:
        lines.append(f"a=group:BUNDLE {bundle}")
    lines.append("a=msid-semantic: WMS *")
    for media, each in zip(offer.media, accepted, strict=True):
        lines += _refused_lines(media) if each is None else _accepted_lines(media, each, transport)
    return _text(lines)


def render_fragment(offer: Offer, accepted: Sequence[Accepted | None], transport: LocalTransport) -> str:
    """Our end after an ICE restart as `application/trickle-ice-sdpfrag` (RFC 9725 §4.3.3)."""
    live = [media for media, each in zip(offer.media, accepted, strict=True) if each]
    lines = ["a=ice-lite"]
    if offer.bundle and live:
        lines.append("a=group:BUNDLE " + " ".join(media.mid for media in live))
    for media in live[:1]:  # RFC 8840 §4: the bundle's transport is told in its first m-line
        lines += [f"m={media.kind} 9 {media.protocol} 0", f"a=mid:{media.mid}", *transport.lines()]
    return _text(lines)


def obstacle(offer: Offer, media: Media) -> str:
    """Why an m-line could not use our one transport, in words for who wrote the offer; empty if it can."""
    if not media.protocol.endswith("RTP/SAVPF"):
        return f"it is {media.protocol} and not UDP/TLS/RTP/SAVPF"
    if not media.rtcp_mux:
        return "it lacks a=rtcp-mux"
    with_others = media.mid in offer.bundle if offer.bundle else media is offer.media[0]  # else it could only live alone
    return "" if with_others else "it is not in one a=group:BUNDLE with the others, by a=mid"


def _usable(offer: Offer, media: Media) -> bool:
    return media.live and not obstacle(offer, media)


def _may_receive(offer: Offer, media: Media) -> bool:
    return _usable(offer, media) and media.direction in ("recvonly", "sendrecv")


def _chosen(name: str, codecs: Iterable[OfferedCodec]) -> OfferedCodec | None:
    """The best of those of this name; the first of those that are as good."""
    fitting = (each for each in codecs if each.name == name and _has_usual_clock(each) and _SENDABLE[name].fits(each))
    return min(fitting, key=_h264_rank, default=None)


def _h264_rank(codec: OfferedCodec) -> int:
    # RFC 6184 §8.1: without the parameter the stream is Baseline level 1.
    profile = codec.parameters.get("profile-level-id", "42000a").lower()[:4]
    return _H264_PROFILES.index(profile) if profile in _H264_PROFILES else len(_H264_PROFILES)


def _rtx_of(codec: OfferedCodec, codecs: Iterable[OfferedCodec]) -> OfferedCodec | None:
    apt = str(codec.payload_type)
    return next((each for each in codecs if each.name == "rtx" and each.parameters.get("apt") == apt), None)


def _h264_parameters(codec: OfferedCodec) -> str:
    level = codec.parameters.get("profile-level-id", "").lower()
    if len(level) != 6 or not set(level) <= set("0123456789abcdef"):
        level = "42e01f"
    return f"level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={level}"


def _same_parameters(codec: OfferedCodec) -> str:
    return _joined(_well_formed(codec.parameters))


def _opus_parameters(codec: OfferedCodec) -> str:
    return "minptime=10;stereo=1;sprop-stereo=1;useinbandfec=1"  # RFC 7587 §6.1; without stereo=1 a browser plays mono


def _transport_cc(codecs: Iterable[OfferedCodec]) -> list[str]:
    return [TRANSPORT_CC] if any("transport-cc" in codec.feedback for codec in codecs) else []


def _offered(media: Media, wanted: Iterable[str]) -> dict[str, int]:
    return {uri: number for uri in wanted if 1 <= (number := media.extensions.get(uri, 0)) <= _MAX_EXTENSION_ID}


def _source_lines(send: SendParameters, stream: str) -> tuple[str, ...]:
    group = () if send.rtx_ssrc is None else (f"a=ssrc-group:FID {send.ssrc} {send.rtx_ssrc}",)
    ssrcs = [send.ssrc] if send.rtx_ssrc is None else [send.ssrc, send.rtx_ssrc]
    return (f"a=msid:{stream} {stream}-{send.kind}", *group, *(f"a=ssrc:{ssrc} cname:{send.cname}" for ssrc in ssrcs))


def _accepted_lines(media: Media, accepted: Accepted, transport: LocalTransport) -> list[str]:
    first = transport.candidates[0]
    payload_types = " ".join(str(each) for format in accepted.formats for each in format.payload_types)
    return [
        f"m={media.kind} {first.port} {media.protocol} {payload_types}",
        f"c=IN IP{first.version} {first.address}",
        "a=rtcp-mux",
        "a=rtcp-rsize",
        *(["a=rtcp-xr:rcvr-rtt=all"] if media.receiver_round_trip else []),
        *([f"a=mid:{media.mid}"] if media.mid else []),
        f"a={accepted.direction}",
        *transport.lines(),
        f"a=fingerprint:{transport.fingerprint}",
        f"a=setup:{transport.setup}",
        *(f"a=extmap:{number} {uri}" for uri, number in accepted.extensions.items()),
        *(line for format in accepted.formats for line in format.lines()),
        *accepted.lines,
    ]


def _refused_lines(media: Media) -> list[str]:
    mid = [f"a=mid:{media.mid}"] if media.mid else []
    return [f"m={media.kind} 0 {media.protocol} {media.formats[0]}", "c=IN IP4 0.0.0.0", "a=inactive", *mid]


def _distinct_ssrcs(count: int) -> list[int]:
    ssrcs: set[int] = set()
    while len(ssrcs) < count:
        ssrcs.add(secrets.randbelow(0xFFFFFFFE) + 1)
    return list(ssrcs)


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\r\n" for line in lines)


_KINDS: Mapping[str, Kind] = MappingProxyType({kind.value: kind for kind in Kind})
_SPELLINGS: Mapping[str, str] = MappingProxyType(
    {"h264": "H264", "opus": "opus", "vp8": "VP8", "vp9": "VP9", "av1": "AV1", "h265": "H265"}
)
# In the order of preference: H.264 needs no transcoding in any call.
_READABLE: Mapping[str, MediaCodec] = MappingProxyType(
    {
        "h264": MediaCodec.H264,
        "vp8": MediaCodec.VP8,
        "vp9": MediaCodec.VP9,
        "av1": MediaCodec.AV1,
        "h265": MediaCodec.HEVC,
        "opus": MediaCodec.OPUS,
    }
)


@dataclass(frozen=True, slots=True)
class _Sendable:
    """Which of the offer's formats of a codec we can send, and what the answer says of the one that is chosen."""

    fits: Callable[[OfferedCodec], bool]
    parameters: Callable[[OfferedCodec], str]


# In the order of preference, as above. A profile that is left out is 0 (RFC 9628 §7, AV1 RTP §7.2.1), which is all that every decoder has.
_SENDABLE: Mapping[str, _Sendable] = MappingProxyType(
    {
        "h264": _Sendable(lambda codec: codec.parameters.get("packetization-mode") == "1", _h264_parameters),
        "vp8": _Sendable(lambda codec: True, _same_parameters),
        "vp9": _Sendable(lambda codec: codec.parameters.get("profile-id", "0") == "0", _same_parameters),
        "av1": _Sendable(lambda codec: codec.parameters.get("profile", "0") == "0", _same_parameters),
        "opus": _Sendable(lambda codec: codec.channels == 2, _opus_parameters),
    }
)
