"""One AV1 stream (AV1 Bitstream & Decoding Process, v1.0.0 errata 1): temporal units in, and out in the form of `protocols/media.py`.

What stays true: the sequence header leaves the temporal units, the latest is kept, and comes back before each key frame and before the
frame with which it changed. A key frame is shown and has a sequence header: decoding can start there.
"""

from protocols.bitstream.bits import BitReader
from protocols.bitstream.changes import ChangeAllowance
from protocols.bitstream.obu import SEQUENCE_HEADER, Obu, split
from protocols.bitstream.sps import frame_rate
from protocols.bitstream.unit import AccessUnit, check_size
from protocols.errors import ProtocolError
from protocols.media import Codec, Track
from protocols.wire import Buffer

MAX_SEQUENCE_HEADER = 1024
_HEADER_WORTH = 2048  # bytes of the stream that a new sequence header is worth

_FRAME_HEADER, _FRAME = 3, 6
_PASSED = frozenset({3, 4, 5, 6, 7})  # frame header, tile group, metadata, frame, redundant frame header (§6.2.2)
_PROFILES = ("Main", "High", "Professional")


class Av1Stream:
    """State of one stream. Every method that takes bytes raises `ProtocolError` on those that no encoder may send."""

    def __init__(self, track_id: int) -> None:
        self._track_id = track_id
        self._changes = ChangeAllowance()
        self._header = b""  # the sequence header OBU with its size field
        self._reduced = False  # reduced_still_picture_header
        self._unsent = False
        self._told: Track | None = None
        self.track: Track | None = None
        """The facts, once a sequence header is known."""

    def configure(self, av1c: Buffer) -> None:
        """Take an AV1CodecConfigurationRecord (AV1 in ISOBMFF §2.3.3); its sequence header may be missing, then it comes in band."""
        record = bytes(av1c)
        self._changes.earn(len(record))
        if len(record) < 4 or record[0] != 0x81:
            raise ProtocolError("broken av1C")
        for obu in split(record[4:]):
            if obu.kind == SEQUENCE_HEADER:
                self._keep(obu)

    def temporal_unit(self, data: Buffer) -> AccessUnit:
        """One temporal unit; its last OBU may lack its size field (§5.3.1)."""
        check_size(data)
        self._changes.earn(len(data))
        passed: list[bytes] = []
        frame: bytes | None = None
        for obu in split(bytes(data)):
            if obu.kind == SEQUENCE_HEADER:
                self._keep(obu)
            elif obu.kind in _PASSED:
                passed.append(obu.sized)
                if frame is None and obu.kind in (_FRAME_HEADER, _FRAME):
                    frame = obu.payload
        keyframe = frame is not None and self._starts(frame)
        if frame is None:
            passed.clear()
        elif keyframe or self._unsent:
            passed.insert(0, self._header)
            self._unsent = False
        changed = self.track is not self._told
        self._told = self.track
        return AccessUnit(b"".join(passed), keyframe, changed)

    def _keep(self, obu: Obu) -> None:
        header = obu.sized
        if header == self._header:
            return
        if len(header) > MAX_SEQUENCE_HEADER:
            raise ProtocolError("AV1 sequence header is too large")
        self._changes.spend(_HEADER_WORTH)
        track = describe(obu.payload, self._track_id, header)
        self._reduced = obu.payload[0] & 0x08 != 0
        self._header = header
        self._unsent = True
        self.track = track

    def _starts(self, frame: bytes) -> bool:
        """Whether a frame header (§5.9.2) is that of a shown key frame."""
        if not self._header:
            return False
        if self._reduced:
            return True
        # show_existing_frame 0, frame_type KEY_FRAME (0) in two bits, show_frame 1
        return bool(frame) and frame[0] & 0xF0 == 0x10


def describe(payload: bytes, track_id: int, extradata: bytes) -> Track:
    """The track that a sequence header describes (§5.5). A temporal unit shows one frame, so nothing is reordered."""
    bits = BitReader(payload)
    profile = bits.bits(3)
    if profile >= len(_PROFILES):
        raise ProtocolError(f"AV1 profile {profile}")
    bits.skip(1)
    reduced = bits.flag()
    level, rate = (bits.bits(5), 0.0) if reduced else _read_operating_points(bits)
    width_bits, height_bits = bits.bits(4) + 1, bits.bits(4) + 1
    width, height = bits.bits(width_bits) + 1, bits.bits(height_bits) + 1
    if not reduced and bits.flag():  # frame_id_numbers_present_flag
        bits.skip(7)
    bits.skip(3)
    if not reduced:
        _skip_tools(bits)
    bits.skip(3)
    depth, chroma = _read_colour(bits, profile)
    return Track(
        track_id,
        Codec.AV1,
        extradata,
        width=width,
        height=height,
        frame_rate=rate,
        profile=_PROFILES[profile],
        level=level,
        bit_depth=depth,
        chroma=chroma,
        reorder=0,
    )


def _read_operating_points(bits: BitReader) -> tuple[int, float]:
    """Timing and operating points: (seq_level_idx of the first, frame rate)."""
    rate = 0.0
    delay_bits = 0
    if bits.flag():  # timing_info_present_flag
        per_tick, scale = bits.bits(32), bits.bits(32)
        if bits.flag():  # equal_picture_interval
            rate = frame_rate(scale, per_tick * (bits.uvlc() + 1))
        if bits.flag():  # decoder_model_info_present_flag
            delay_bits = bits.bits(5) + 1
            bits.skip(42)
    display_delay = bits.flag()
    levels: list[int] = []
    for _ in range(bits.bits(5) + 1):
        bits.skip(12)
        levels.append(bits.bits(5))
        if levels[-1] > 7:
            bits.skip(1)  # seq_tier
        if delay_bits and bits.flag():
            bits.skip(2 * delay_bits + 1)
        if display_delay and bits.flag():
            bits.skip(4)
    return levels[0], rate


def _skip_tools(bits: BitReader) -> None:
    bits.skip(4)
    order_hint = bits.flag()
    if order_hint:
        bits.skip(2)
    # seq_choose_screen_content_tools, else seq_force_screen_content_tools; seq_choose_integer_mv, else seq_force_integer_mv
    if (bits.flag() or bits.flag()) and not bits.flag():
        bits.skip(1)
    if order_hint:
        bits.skip(3)


def _read_colour(bits: BitReader, profile: int) -> tuple[int, str]:
    """color_config (§5.5.2): (bit depth, chroma)."""
    high = bits.flag()
    depth = (12 if bits.flag() else 10) if profile == 2 and high else 10 if high else 8
    mono = profile != 1 and bits.flag()
    description = bits.bits(24) if bits.flag() else 0
    if mono:
        return depth, "4:0:0"
    if description == 0x010D00:  # BT.709, sRGB, identity: RGB, which is never subsampled
        return depth, "4:4:4"
    bits.skip(1)
    if profile < 2:
        return depth, "4:4:4" if profile else "4:2:0"
    if depth < 12:
        return depth, "4:2:2"
    if not bits.flag():
        return depth, "4:4:4"
    return depth, "4:2:0" if bits.flag() else "4:2:2"
