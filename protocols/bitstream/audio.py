"""The facts of audio streams, from the header that each codec has for them."""

from typing import NoReturn

from protocols.bitstream.bits import BitReader
from protocols.errors import ProtocolError
from protocols.media import Codec, Track
from protocols.wire import Buffer

_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
_AAC_CHANNELS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: 8, 11: 7, 12: 8, 14: 8}  # ISO/IEC 14496-3 Table 1.19
_AAC_PROFILES = {1: "Main", 2: "LC", 3: "SSR", 4: "LTP", 5: "HE-AAC", 29: "HE-AACv2", 23: "LD", 39: "ELD", 42: "xHE-AAC"}
_SBR, _PS = 5, 29
_WITH_GA_CONFIG = frozenset({1, 2, 3, 4, 23})

_MPEG_RATES = (44100, 48000, 32000)
_AC3_RATES = (48000, 44100, 32000)
_AC3_CHANNELS = (2, 1, 2, 3, 3, 4, 4, 5)  # by acmod (ATSC A/52 Table 5.8)

_MAX_HEADER = 1024  # bytes; a longest AudioSpecificConfig has a program config element with 255 of comment

_OPUS_MS = 1_000_000
# RFC 6716 §3.1 Table 2: frame durations in ns by config, in steps of four (SILK, CELT) or two (hybrid)
_OPUS_DURATIONS = (
    *(10 * _OPUS_MS, 20 * _OPUS_MS, 40 * _OPUS_MS, 60 * _OPUS_MS) * 3,
    *(10 * _OPUS_MS, 20 * _OPUS_MS) * 2,
    *(2_500_000, 5 * _OPUS_MS, 10 * _OPUS_MS, 20 * _OPUS_MS) * 4,
)


def aac_track(track_id: int, asc: Buffer) -> Track:
    """From an AudioSpecificConfig (ISO/IEC 14496-3 §1.6.2.1); rate and channels are those of the decoded sound, SBR and PS included."""
    if len(asc) > _MAX_HEADER:
        _refuse("AudioSpecificConfig")
    bits = BitReader(bytes(asc[:64]))
    kind = _aac_object_type(bits)
    rate = _aac_rate(bits)
    layout = bits.bits(4)
    extended = 0
    if kind in (_SBR, _PS):  # explicit, hierarchical signalling
        extended = kind
        rate = _aac_rate(bits)
        kind = _aac_object_type(bits)
    if kind not in _AAC_PROFILES or kind in (_SBR, _PS):
        raise ProtocolError(f"AAC object type {kind}")
    channels = _AAC_CHANNELS.get(layout, 0)
    if layout and not channels:
        raise ProtocolError(f"AAC channel configuration {layout}")
    if kind in _WITH_GA_CONFIG:
        bits.skip(1)  # frameLengthFlag
        if bits.flag():  # dependsOnCoreCoder
            bits.skip(14)
        bits.skip(1)  # extensionFlag
        if not layout:
            channels = _aac_program_channels(bits)
        if not extended:
            extended, rate = _aac_backward_compatible(bits, rate)
    if not channels:
        raise ProtocolError("AAC without a channel configuration")
    if extended == _PS and channels == 1:
        channels = 2
    profile = _AAC_PROFILES[extended or kind]
    return Track(track_id, Codec.AAC, bytes(asc), profile=profile, sample_rate=rate, channels=channels)


def _aac_object_type(bits: BitReader) -> int:
    kind = bits.bits(5)
    return 32 + bits.bits(6) if kind == 31 else kind


def _aac_rate(bits: BitReader) -> int:
    index = bits.bits(4)
    if index < len(_AAC_RATES):
        return _AAC_RATES[index]
    rate = bits.bits(24) if index == 15 else 0
    if not 4000 <= rate <= 192_000:
        raise ProtocolError("AAC sample rate is out of range")
    return rate


def _aac_program_channels(bits: BitReader) -> int:
    """Channels of a program_config_element (§4.4.1.1)."""
    bits.skip(10)
    front, side, back = bits.bits(4), bits.bits(4), bits.bits(4)
    effects = bits.bits(2)
    bits.skip(7)  # counts of associated data and coupling elements
    for size in (4, 4, 3):  # mono, stereo and matrix mixdown
        if bits.flag():
            bits.skip(size)
    channels = effects
    for _ in range(front + side + back):
        channels += 2 if bits.flag() else 1
        bits.skip(4)
    if not channels:
        raise ProtocolError("AAC program without channels")
    return channels


def _aac_backward_compatible(bits: BitReader, rate: int) -> tuple[int, int]:
    """The sync extension after the config (§1.6.5.3): (SBR, PS or 0; output rate). Absent in most streams."""
    if len(bits) < 17 or bits.bits(11) != 0x2B7 or _aac_object_type(bits) != _SBR or not bits.flag():
        return 0, rate
    rate = _aac_rate(bits)
    if len(bits) >= 12 and bits.bits(11) == 0x548 and bits.flag():
        return _PS, rate
    return _SBR, rate


def opus_track(track_id: int, head: Buffer) -> Track:
    """From an OpusHead body with its magic (RFC 7845 §5.1)."""
    head = bytes(head)
    if not 19 <= len(head) <= _MAX_HEADER or not head.startswith(b"OpusHead") or head[8] & 0xF0:
        _refuse("OpusHead")
    channels, family = head[9], head[18]
    if family == 0:
        if not 1 <= channels <= 2:
            _refuse("OpusHead")
    elif not channels or len(head) < 21 + channels or not head[19] or head[20] > head[19]:
        _refuse("OpusHead")
    return Track(track_id, Codec.OPUS, head, sample_rate=48000, channels=channels)


def opus_packet_duration(packet: Buffer) -> int:
    """Nanoseconds of sound in an Opus packet, from its TOC (RFC 6716 §3.1, §3.2); at most 120 ms."""
    if not packet:
        _refuse("Opus packet")
    toc = packet[0]
    match toc & 3:
        case 0:
            frames = 1
        case 1 | 2:
            frames = 2
        case _:
            frames = packet[1] & 0x3F if len(packet) > 1 else 0
    duration = frames * _OPUS_DURATIONS[toc >> 3]
    if not 0 < duration <= 120 * _OPUS_MS:
        _refuse("Opus packet")
    return duration


def flac_track(track_id: int, header: Buffer) -> Track:
    """From STREAMINFO (RFC 9639 §8.2): its 34 bytes, the same in a metadata block, or that after the `fLaC` marker."""
    body = bytes(header[:42])
    if body.startswith(b"fLaC"):
        body = body[4:]
        if len(body) < 38:
            _refuse("FLAC header")
    if len(body) >= 38:  # in a metadata block: type 0, length 34
        if body[0] & 0x7F or body[1:4] != b"\x00\x00\x22":
            _refuse("FLAC header")
        body = body[4:38]
    if len(body) != 34:
        _refuse("FLAC header")
    bits = BitReader(body[10:18])
    rate, channels, depth = bits.bits(20), bits.bits(3) + 1, bits.bits(5) + 1
    if not 0 < rate <= 655_350 or depth < 4:
        _refuse("FLAC header")
    return Track(track_id, Codec.FLAC, body, sample_rate=rate, channels=channels, bit_depth=depth)


def mp3_track(track_id: int, frame: Buffer) -> Track:
    """From a frame header of MPEG-1, -2 or -2.5 audio (ISO/IEC 11172-3 §2.4.2.3); layer II is `MP2`, layer III is `MP3`."""
    bits = BitReader(bytes(frame[:4]))
    sync, version, layer = bits.bits(11), bits.bits(2), bits.bits(2)
    bits.skip(1)
    bit_rate, rate = bits.bits(4), bits.bits(2)
    bits.skip(2)
    mode = bits.bits(2)
    if sync != 0x7FF or version == 1 or layer not in (1, 2) or bit_rate == 15 or rate == 3:
        _refuse("MPEG audio header")
    halvings = {3: 0, 2: 1, 0: 2}[version]
    codec = Codec.MP3 if layer == 1 else Codec.MP2
    return Track(track_id, codec, sample_rate=_MPEG_RATES[rate] >> halvings, channels=1 if mode == 3 else 2)


def ac3_track(track_id: int, frame: Buffer) -> Track:
    """From a sync frame of AC-3 or E-AC-3 (ATSC A/52 §5.3, §E.1.2), told apart by their bsid."""
    bits = BitReader(bytes(frame[:8]))
    if bits.bits(16) != 0x0B77:
        _refuse("AC-3 header")
    bsid = frame[5] >> 3 if len(frame) > 5 else 31
    if bsid > 16:
        _refuse("AC-3 header")
    if bsid > 10:
        codec = Codec.EAC3
        bits.skip(16)  # stream type, substream, frame size
        code, second = bits.bits(2), bits.bits(2)
        if code == 3 and second == 3:
            _refuse("AC-3 header")
        rate = _AC3_RATES[second] // 2 if code == 3 else _AC3_RATES[code]
        mode = bits.bits(3)
    else:
        codec = Codec.AC3
        bits.skip(16)  # crc1
        code = bits.bits(2)
        if code == 3 or bits.bits(6) > 37:
            _refuse("AC-3 header")
        rate = _AC3_RATES[code] >> max(0, bsid - 8)  # §A.6: bsid 9 and 10 halve and quarter the rate
        bits.skip(8)
        mode = bits.bits(3)
        # cmixlev, surmixlev and dsurmod stand before lfeon for the modes that have them
        bits.skip(2 * (mode & 1 and mode != 1) + 2 * bool(mode & 4) + 2 * (mode == 2))
    channels = _AC3_CHANNELS[mode] + bits.bits(1)
    return Track(track_id, codec, sample_rate=rate, channels=channels)


def _refuse(what: str) -> NoReturn:
    raise ProtocolError(f"broken {what}")
