"""A frame of silence in the codecs that a call and HLS have, from their syntax. Sans-IO."""

from typing import Final

from protocols.media import Codec, Track

OPUS_FRAME_NS: Final = 20_000_000
_OPUS_FRAME: Final = bytes((0xFF, 0xFE))  # CELT's silence flag, which is all that its range coder says (RFC 6716 §4.3)
_OPUS_TOC: Final = 31 << 3  # RFC 6716 §3.1: CELT, full band, 20 ms, one frame
_OPUS_STEREO: Final = 1 << 2
_AAC_SAMPLES: Final = 1024
_SCE, _CPE, _LFE, _END = 0, 1, 3, 7
_AAC_ELEMENTS: Final = {  # ISO/IEC 14496-3 table 1.19: of one frame, by the number of channels
    1: (_SCE,),
    2: (_CPE,),
    3: (_SCE, _CPE),
    4: (_SCE, _CPE, _SCE),
    5: (_SCE, _CPE, _CPE),
    6: (_SCE, _CPE, _CPE, _LFE),
}


def silence(track: Track) -> tuple[bytes, int] | None:
    """A frame of it as this track has them, and how long it lasts in ns; None for a codec of which none is made here."""
    match track.codec:
        case Codec.OPUS:
            toc = _OPUS_TOC | (_OPUS_STEREO if track.channels == 2 else 0)
            return bytes((toc,)) + _OPUS_FRAME, OPUS_FRAME_NS
        case Codec.AAC if track.channels in _AAC_ELEMENTS and track.sample_rate:
            return _aac(_AAC_ELEMENTS[track.channels]), _AAC_SAMPLES * 1_000_000_000 // track.sample_rate
    return None


def _aac(elements: tuple[int, ...]) -> bytes:
    """A raw_data_block (ISO/IEC 14496-3 §4.4.2.1) whose channels have no spectrum: long windows without a scale factor band."""
    bits = ""
    tags: dict[int, int] = {}
    for element in elements:
        bits += f"{element:03b}{tags.get(element, 0):04b}"
        tags[element] = tags.get(element, 0) + 1
        if element == _CPE:
            bits += "0" + _CHANNEL * 2  # common_window
        else:
            bits += _CHANNEL
    bits += f"{_END:03b}"
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8)


# individual_channel_stream: global_gain; ics_info: reserved, window_sequence, window_shape, max_sfb, predictor_data_present; and neither
# pulse, temporal noise shaping nor gain control
_CHANNEL: Final = f"{100:08b}" + "0" + "00" + "0" + "000000" + "0" + "000"
