"""RTP headers, and what one m-line agreed on in either direction (RFC 3550, RFC 4588, RFC 8285). Sans-IO.

What is kept true of sending: every packet of one m-line has a header of the same size and layout, so that one precompiled `Struct` writes
it, and the packets of a run are as equal as their payloads, as `UDP_SEGMENT` needs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from typing import TypeAlias

from protocols.media import Codec, Kind

CLOCK_RATES = {Kind.VIDEO: 90_000, Kind.AUDIO: 48_000}  # RFC 6184 §8.2.1 and its kin; RFC 7587 §4.1
MARKER = 0x80  # RFC 3550 §5.1, in the second octet beside the payload type
VERSION_WITH_EXTENSION = 0x90
OVERHEAD = 28 + 28
"""Bytes of a packet that are not payload, roughly: RTP header with extensions and SRTP tag, UDP and IP."""

Packet: TypeAlias = tuple[int, bytes]
"""(marker bit in its place in the second octet of the header, or 0; payload)"""

_ONE_BYTE_PROFILE = 0xBEDE  # RFC 8285 §4.2
_FIXED = 12
_LARGEST = 1500  # bytes of a payload; no path takes as much
_LAYOUTS = 64  # that are remembered: browsers differ in little but the mid
_ABS_SEND_TIME_MASK = 0xFFFFFF
_LONGEST_PLAYOUT_DELAY = 1000  # 10 ms


@dataclass(frozen=True, slots=True)
class SendFormat:
    """How one codec is numbered on an m-line on which we send. Without RTX a repair is the same packet again."""

    payload_type: int
    rtx_payload_type: int | None = None


@dataclass(frozen=True, slots=True)
class SendParameters:
    """What the SDP answer fixed for one m-line on which we send: the codecs that may come, all in the one SSRC (and its RTX in the
    other). An extension id of 0 means: not negotiated."""

    kind: Kind
    mid: str
    formats: Mapping[Codec, SendFormat]
    ssrc: int
    cname: str
    rtx_ssrc: int | None = None
    mid_extension: int = 0
    abs_send_time_extension: int = 0
    transport_cc_extension: int = 0
    playout_delay_extension: int = 0


@dataclass(frozen=True, slots=True)
class ReceiveFormat:
    """One payload type that we receive. `feedback` as in SDP: `nack`, `nack pli`, `ccm fir`, …"""

    codec: Codec
    clock_rate: int
    feedback: frozenset[str]


@dataclass(frozen=True, slots=True)
class ReceiveParameters:
    """What the SDP answer fixed for one m-line on which we receive. An extension id of 0 means: not negotiated."""

    kind: Kind
    mid: str
    formats: Mapping[int, ReceiveFormat]  # by payload type
    repair_formats: Mapping[int, int]  # payload type of RTX -> that of what it repairs
    layers: tuple[str, ...]  # rids of a simulcast; empty: one stream
    sources: tuple[int, ...]  # SSRCs, where the peer has told them
    repairs: Mapping[int, int]  # SSRC of RTX -> SSRC that it repairs, where the peer has told them
    mid_extension: int = 0
    rid_extension: int = 0
    repaired_rid_extension: int = 0
    abs_send_time_extension: int = 0
    transport_cc_extension: int = 0


class HeaderLayout:
    """How this m-line's packets are written: `struct.pack_into(buffer, offset, 0x90, marker | type, sequence, timestamp, ssrc,
    extensions(now), transport_sequence, payload)`, of which `size` bytes and the payload are meant; what follows them up to the largest
    payload becomes 0.

    The transport-wide sequence number stands last in the block, because it alone differs between the packets of a run. Where it was not
    negotiated those two bytes are padding (RFC 8285 §4.2) and 0 is to be written: `transport_step` is what to count by, `transport_at`
    where it stands.
    """

    __slots__ = (
        "_after_time",
        "_before_time",
        "_extensions",
        "_now",
        "_timed",
        "size",
        "struct",
        "transport_at",
        "transport_step",
    )

    def __init__(self, same: bytes, abs_send_time_extension: int, transport_cc_extension: int) -> None:
        """`same` are the elements of the block that are in all packets alike: the mid, and how long the viewer is to wait."""
        elements = same
        self._timed = bool(abs_send_time_extension)
        if self._timed:
            elements = bytes((abs_send_time_extension << 4 | 2, 0, 0, 0)) + elements
        if transport_cc_extension:
            elements += bytes((transport_cc_extension << 4 | 1,))
        padding = -(len(elements) + 2) % 4
        words = (len(elements) + 2 + padding) // 4
        block = _ONE_BYTE_PROFILE.to_bytes(2, "big") + words.to_bytes(2, "big") + elements
        self.struct = Struct(f"!BBHLL{len(block)}sH{padding}x{_LARGEST}s")
        self.size = _FIXED + 4 + 4 * words
        self.transport_step = 1 if transport_cc_extension else 0
        self.transport_at = _FIXED + len(block) if transport_cc_extension else 0
        self._before_time = block[:5] if self._timed else block
        self._after_time = block[8:]
        self._now, self._extensions = -1, block  # those of one moment, for all viewers that are sent something at it

    @staticmethod
    def of(parameters: SendParameters, least_delay_ms: int = 0) -> "HeaderLayout":
        """One for all m-lines that agreed on the same. A mid of more than 16 bytes is left out: one-byte headers cannot carry it, and the
        answer names our SSRCs as well. The viewer is asked to play so long after it came what comes here, at least; headers with and
        without such a wish are of one size.

        Raises `ValueError` for an extension id above 14 (RFC 8285 §4.2).
        """
        for identifier in (
            parameters.mid_extension,
            parameters.abs_send_time_extension,
            parameters.transport_cc_extension,
            parameters.playout_delay_extension,
        ):
            if not 0 <= identifier <= 14:
                raise ValueError(f"extension id {identifier} does not fit a one-byte header")
        mid = parameters.mid.encode()
        same = b""
        if parameters.mid_extension and 1 <= len(mid) <= 16:
            same += bytes((parameters.mid_extension << 4 | len(mid) - 1,)) + mid
        if parameters.playout_delay_extension:
            same += bytes((parameters.playout_delay_extension << 4 | 2,)) + playout_delay(least_delay_ms)
        return _layout(same, parameters.abs_send_time_extension, parameters.transport_cc_extension)

    def extensions(self, now: int) -> bytes:
        """The block up to the transport-wide sequence number, with `now` (monotonic ns) as the absolute send time."""
        if self._timed and now != self._now:
            self._extensions = self._before_time + abs_send_time(now).to_bytes(3, "big") + self._after_time
            self._now = now
        return self._extensions


_layout = lru_cache(_LAYOUTS)(HeaderLayout)


def playout_delay(least_ms: int) -> bytes:
    """12 bits each, in steps of 10 ms: from when a picture came until it is shown, at least and at most. At most 10 s, as where nobody
    asks: browsers take what is to be shown within half a second without any wait for a sign to show each picture as it comes
    (webrtc.org/experiments/rtp-hdrext/playout-delay)."""
    return (least_ms // 10 << 12 | _LONGEST_PLAYOUT_DELAY).to_bytes(3, "big")


def abs_send_time(now: int) -> int:
    """24 bits: seconds as 6.18 fixed point, of any one clock: receivers take differences (webrtc.org/experiments/abs-send-time)."""
    return ((now << 18) // 1_000_000_000) & _ABS_SEND_TIME_MASK
