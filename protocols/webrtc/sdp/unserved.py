"""What of an offer an answer would leave out, or promise in vain: who would get half of what they ask for hears why instead. Sans-IO."""

from collections.abc import Collection, Sequence
from itertools import permutations

from protocols.media import Codec
from protocols.webrtc.rtp import ReceiveParameters
from protocols.webrtc.sdp.answer import Accepted, obstacle
from protocols.webrtc.sdp.description import Media, Offer

_LONGEST_MID = 16  # RFC 8285 §4.2: what a one-byte header carries
_NOT_READABLE = "offer H.264 (packetization-mode 0 or 1), VP8, VP9, AV1 or H.265, or Opus (opus/48000/2)"
_NOT_WHOLE = (
    "its H.264 is without a=fmtp with packetization-mode=1: in mode 0 each slice is one packet (RFC 6184 §6.2), and those of this "
    "call are larger; offer packetization-mode=1"
)
_NOT_SENDABLE = "offer H.264 (packetization-mode=1), VP8, VP9 or AV1 (both of profile 0), or Opus (opus/48000/2)"


def unsent(offer: Offer, accepted: Sequence[Accepted | None]) -> str:
    """Of `answer.sending`: the first m-line on which the peer asks for media and would get none, or what keeps it from all; in words for
    who wrote the offer. Empty if everything that is asked for is sent."""
    for media, each in zip(offer.media, accepted, strict=True):
        if each is None and _asks(media, ("recvonly", "sendrecv")):
            return _because(media, obstacle(offer, media) or (_NOT_WHOLE if _has_h264(media) else _NOT_SENDABLE))
        # Every call has H.264: who could take it, and gets only another codec agreed on, would mostly be shown nothing.
        if each is not None and _has_h264(media) and each.send is not None and Codec.H264 not in each.send.formats:
            return _because(media, _NOT_WHOLE)
    return _another_transport(offer, accepted)


def unreceived(offer: Offer, accepted: Sequence[Accepted | None]) -> str:
    """The same of `answer.receiving`, for what the peer wants to send: RFC 9725 §4.4.3."""
    taken: set[str] = set()
    for media, each in zip(offer.media, accepted, strict=True):
        if each is None and _asks(media, ("sendonly", "sendrecv")):
            second = f"there is a {media.kind} before it, and one video and one audio are taken" if media.kind in taken else ""
            return _because(media, obstacle(offer, media) or second or _NOT_READABLE)
        if each is not None:
            taken.add(media.kind)
    return _another_transport(offer, accepted) or _mixed_up([each.receive for each in accepted if each and each.receive])


def _asks(media: Media, directions: Collection[str]) -> bool:
    return media.live and media.kind in ("audio", "video") and media.direction in directions


def _because(media: Media, why: str) -> str:
    return f"the {media.kind} cannot be served: {why}"


def _has_h264(media: Media) -> bool:
    return any(codec.name == "h264" for codec in media.codecs)


def _another_transport(offer: Offer, accepted: Sequence[Accepted | None]) -> str:
    """RFC 9143 §7.3.2: the bundle lives on the transport of the first m-line that is accepted, and `offer` has that of its first of all."""
    places = {mid: place for place, mid in enumerate(offer.bundle)}
    lines = [media for media, each in zip(offer.media, accepted, strict=True) if each is not None]
    first = min(lines, key=lambda media: places.get(media.mid, 0), default=None)
    if first is None or first.ufrag == offer.ice.ufrag or (offer.bundle and not first.ufrag):
        return ""
    return _because(
        first, "its a=ice-ufrag is not that of the m-line that the bundle begins with, which is not taken: begin it with this"
    )


def _mixed_up(lines: Sequence[ReceiveParameters]) -> str:
    """Where no rule of RFC 9143 §9.2 would find the m-line of a packet."""
    for line, other in permutations(lines, 2):
        shared = {*line.formats, *line.repair_formats} & {*other.formats, *other.repair_formats}
        by_mid = line.mid_extension and 0 < len(line.mid) <= _LONGEST_MID
        if sources := {*line.sources} & {*other.sources}:
            return f"the {line.kind} and the {other.kind} have the same a=ssrc:{min(sources)}: give each its own (RFC 3550 §8)"
        if shared and not by_mid and not line.sources:
            return (
                f"the {line.kind} and the {other.kind} share payload type {min(shared)}, and nothing else tells their packets apart: "
                "give each its own, or send the mid (a=extmap:… urn:ietf:params:rtp-hdrext:sdes:mid), or announce a=ssrc"
            )
    return ""
