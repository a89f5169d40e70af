"""One VP8 (RFC 6386) or VP9 (VP9 Bitstream & Decoding Process, v0.6) stream: the frames pass as they are, their headers give the facts."""

from protocols.bitstream.bits import BitReader
from protocols.bitstream.changes import ChangeAllowance
from protocols.bitstream.unit import AccessUnit, check_size
from protocols.errors import ProtocolError
from protocols.media import Codec, Track
from protocols.wire import Buffer, Reader

_SYNC_VP8 = b"\x9d\x01\x2a"
_SYNC_VP9 = 0x498342
_SRGB = 7
_SIZE_WORTH = 2048  # bytes of the stream that a new size, or another fact, is worth
_CHROMA = {(0, 0): "4:4:4", (0, 1): "4:4:0", (1, 0): "4:2:2", (1, 1): "4:2:0"}


class VpxStream:
    """State of one stream. Every method that takes bytes raises `ProtocolError` on those that no encoder may send."""

    def __init__(self, codec: Codec, track_id: int) -> None:
        """`codec` is VP8 or VP9."""
        self._codec = codec
        self._describe = {Codec.VP8: _vp8_key_frame, Codec.VP9: _vp9_key_frame}[codec]
        self._track_id = track_id
        self._level = 0
        self._changes = ChangeAllowance()
        self._told: Track | None = None
        self.track: Track | None = None
        """The facts, from the first key frame on."""

    def configure(self, vpcc: Buffer) -> None:
        """Take a VPCodecConfigurationRecord (VP Codec ISO Media File Format Binding §2.2), in its full box or bare, for the level."""
        reader = Reader(vpcc)
        if len(reader) >= 12:  # version 1 and flags of the full box
            reader.skip(4)
        reader.skip(1)
        self._level = reader.u8()

    def frame(self, data: Buffer) -> AccessUnit:
        """One frame; of VP9 a superframe (Annex B) counts as its first."""
        check_size(data)
        self._changes.earn(len(data))
        frame = bytes(data)
        track = self._describe(frame, self._track_id, self._level)
        if track is not None and track != self.track:
            self._changes.spend(_SIZE_WORTH)
            self.track = track
        changed = self.track is not self._told
        self._told = self.track
        return AccessUnit(frame, track is not None, changed)


def _vp8_key_frame(frame: bytes, track_id: int, level: int) -> Track | None:
    """The facts in a frame tag (RFC 6386 §9.1); None if it is no key frame."""
    if frame[0] & 1:
        return None
    if len(frame) < 10 or frame[3:6] != _SYNC_VP8:
        raise ProtocolError("broken VP8 key frame")
    # the upper two bits of each are a scale for display
    width = int.from_bytes(frame[6:8], "little") & 0x3FFF
    height = int.from_bytes(frame[8:10], "little") & 0x3FFF
    if not width or not height:
        raise ProtocolError("VP8 picture without a size")
    profile = str(frame[0] >> 1 & 7)
    return Track(track_id, Codec.VP8, width=width, height=height, profile=profile, level=level, reorder=0)


def _vp9_key_frame(frame: bytes, track_id: int, level: int) -> Track | None:
    """The facts in an uncompressed header (VP9 §6.2); None if it is no key frame."""
    bits = BitReader(frame[:24])
    if bits.bits(2) != 2:  # frame_marker
        raise ProtocolError("broken VP9 frame")
    profile = bits.bits(1) | bits.bits(1) << 1
    if profile == 3:
        bits.skip(1)
    if bits.flag():  # show_existing_frame
        return None
    if bits.flag():  # frame_type: 1 is no key frame
        return None
    bits.skip(2)
    if bits.bits(24) != _SYNC_VP9:
        raise ProtocolError("broken VP9 key frame")
    depth = (12 if bits.flag() else 10) if profile >= 2 else 8
    chroma = "4:2:0"
    if bits.bits(3) == _SRGB:
        chroma = "4:4:4"
        bits.skip(profile & 1)
    else:
        bits.skip(1)  # color_range
        if profile & 1:
            chroma = _CHROMA[bits.bits(1), bits.bits(1)]
            bits.skip(1)
    width, height = bits.bits(16) + 1, bits.bits(16) + 1
    return Track(
        track_id,
        Codec.VP9,
        width=width,
        height=height,
        profile=str(profile),
        level=level,
        bit_depth=depth,
        chroma=chroma,
        reorder=0,
    )
