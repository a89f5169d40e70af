"""The `CODECS` attribute of a variant: RFC 6381 names of what passes into HLS."""

from protocols.bitstream.nal import split_annexb
from protocols.media import Codec, Track

_AVC_SPS, _HEVC_SPS = 7, 33
_PTL = 3  # H.265 §7.3.2.2.1: 2 bytes of NAL unit header, then ids and one flag in one byte


def codec_string(track: Track) -> str:
    """As `avc1.64001f`, `hvc1.1.6.L93.B0` or `mp4a.40.2`; empty where the track's extradata lacks what it takes."""
    match track.codec:
        case Codec.H264:
            return _avc(track.extradata)
        case Codec.HEVC:
            return _hevc(track.extradata)
        case Codec.AAC if track.extradata:
            return f"mp4a.40.{track.extradata[0] >> 3}"  # ISO/IEC 14496-3 §1.6.2.1: audioObjectType
        case _:
            return ""


def _avc(sets: bytes) -> str:
    """RFC 6381 §3.3: profile_idc, constraint flags and level_idc of the SPS in hex."""
    for unit in split_annexb(sets):
        if unit[0] & 0x1F == _AVC_SPS and len(unit) >= 4:
            return f"avc1.{unit[1:4].hex()}"
    return ""


def _hevc(sets: bytes) -> str:
    """ISO/IEC 14496-15 §E.3: profile, compatibility flags in reverse, tier and level, constraint bytes without trailing zeros."""
    for unit in split_annexb(sets):
        if unit[0] >> 1 & 0x3F == _HEVC_SPS:
            ptl = unit.replace(b"\x00\x00\x03", b"\x00\x00")[_PTL : _PTL + 12]
            if len(ptl) < 12:
                return ""
            space, tier, idc = ptl[0] >> 6, ptl[0] >> 5 & 1, ptl[0] & 0x1F
            flags = int(f"{int.from_bytes(ptl[1:5], 'big'):032b}"[::-1], 2)
            constraints = "".join(f".{byte:X}" for byte in ptl[5:11].rstrip(b"\x00"))
            return f"hvc1.{('', 'A', 'B', 'C')[space]}{idc}.{flags:X}.{'LH'[tier]}{ptl[11]}{constraints}"
    return ""
