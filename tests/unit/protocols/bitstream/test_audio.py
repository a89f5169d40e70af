"""Facts of audio streams: real frames, and AudioSpecificConfigs as ISO/IEC 14496-3 writes them."""

from collections.abc import Callable

import pytest

from protocols.bitstream.audio import aac_track, ac3_track, flac_track, mp3_track, opus_packet_duration, opus_track
from protocols.errors import ProtocolError
from protocols.media import Codec, Track
from tests.unit.protocols.bitstream.samples import sample

MS = 1_000_000


def asc(*fields: tuple[int, int]) -> bytes:
    """Bytes of (value, bits) fields."""
    text = "".join(f"{value:0{bits}b}" for value, bits in fields)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8)


GA = ((0, 3),)
PROGRAM_5_1 = (  # front: a centre and a pair; back: a pair; one LFE; no mixdown
    *((0, 4), (1, 2), (3, 4), (2, 4), (0, 4), (1, 4), (1, 2), (0, 3), (0, 4), (0, 1), (0, 1), (0, 1)),
    *((0, 5), (1, 1), (1, 4), (1, 1), (2, 4), (3, 4)),
)
AAC = {
    "LC 48 kHz stereo, of OBS": (b"\x11\x90", "LC", 48000, 2),
    "LC 44.1 kHz stereo, of ffmpeg with its sync extension": (b"\x12\x10\x56\xe5\x00", "LC", 44100, 2),
    "LC mono 44.1 kHz": (b"\x12\x08", "LC", 44100, 1),
    "LC 5.1": (b"\x11\xb0", "LC", 48000, 6),
    "LC 7.1": (asc((2, 5), (3, 4), (7, 4), *GA), "LC", 48000, 8),
    "LC escape rate": (asc((2, 5), (15, 4), (37800, 24), (2, 4), *GA), "LC", 37800, 2),
    "LC with a program config element": (asc((2, 5), (3, 4), (0, 4), *GA, *PROGRAM_5_1), "LC", 48000, 6),
    "HE-AAC explicit": (asc((5, 5), (6, 4), (2, 4), (3, 4), (2, 5), *GA), "HE-AAC", 48000, 2),
    "HE-AACv2 explicit": (asc((29, 5), (6, 4), (1, 4), (3, 4), (2, 5), *GA), "HE-AACv2", 48000, 2),
    "HE-AAC backward compatible": (asc((2, 5), (7, 4), (2, 4), *GA, (0x2B7, 11), (5, 5), (1, 1), (4, 4)), "HE-AAC", 44100, 2),
    "HE-AACv2 backward compatible": (
        asc((2, 5), (7, 4), (1, 4), *GA, (0x2B7, 11), (5, 5), (1, 1), (4, 4), (0x548, 11), (1, 1)),
        "HE-AACv2",
        44100,
        2,
    ),
    "escape object type: xHE-AAC": (asc((31, 5), (10, 6), (3, 4), (2, 4), (0, 12)), "xHE-AAC", 48000, 2),
    "ELD": (asc((31, 5), (7, 6), (3, 4), (1, 4), (0, 12)), "ELD", 48000, 1),
    "LC that depends on a core coder": (asc((2, 5), (3, 4), (2, 4), (0, 1), (1, 1), (99, 14), (0, 1)), "LC", 48000, 2),
}


@pytest.mark.parametrize(("config", "profile", "rate", "channels"), AAC.values(), ids=AAC)
def test_aac(config: bytes, profile: str, rate: int, channels: int) -> None:
    assert aac_track(3, config) == Track(3, Codec.AAC, config, profile=profile, sample_rate=rate, channels=channels)


OPUS_STEREO = b"OpusHead\x01\x02\x38\x01\x80\xbb\x00\x00\x00\x00\x00"
OPUS_5_1 = b"OpusHead\x01\x06\x38\x01\x80\xbb\x00\x00\x00\x00\x01\x04\x02\x00\x04\x01\x02\x03\x05"


@pytest.mark.parametrize(("head", "channels"), [(OPUS_STEREO, 2), (OPUS_5_1, 6)])
def test_opus(head: bytes, channels: int) -> None:
    assert opus_track(3, head) == Track(3, Codec.OPUS, head, sample_rate=48000, channels=channels)


@pytest.mark.parametrize(
    ("packet", "duration"),
    [
        (b"\xfc", 20 * MS),  # CELT 20 ms, what libopus sends by default
        (b"\xe0\x00", 2_500_000),
        (b"\xe1\x00", 5 * MS),
        (b"\x18\x00", 60 * MS),
        (b"\x1a\x00", 120 * MS),
        (b"\x60\x00", 10 * MS),
        (b"\x7b\x06", 120 * MS),
        (b"\xe3\xb0", 120 * MS),  # 48 frames of 2.5 ms; the flags beside the count do not matter
    ],
)
def test_opus_durations(packet: bytes, duration: int) -> None:
    assert opus_packet_duration(packet) == duration


def test_flac_in_each_wrapping() -> None:
    header = sample("mono44.flac")[:42]
    track = flac_track(3, header)
    assert (track.codec, track.sample_rate, track.channels, track.extradata) == (Codec.FLAC, 44100, 1, header[8:])
    assert flac_track(3, header[4:]) == flac_track(3, header[8:]) == flac_track(3, sample("mono44.flac")) == track


FRAMES: dict[str, tuple[Callable[[int, bytes], Track], Codec, int, int]] = {
    "mono44.mp3": (mp3_track, Codec.MP3, 44100, 1),
    "stereo22.mp3": (mp3_track, Codec.MP3, 22050, 2),
    "stereo8.mp3": (mp3_track, Codec.MP3, 8000, 2),
    "stereo48.mp2": (mp3_track, Codec.MP2, 48000, 2),
    "surround48.ac3": (ac3_track, Codec.AC3, 48000, 6),
    "stereo44.ac3": (ac3_track, Codec.AC3, 44100, 2),
    "surround48.eac3": (ac3_track, Codec.EAC3, 48000, 6),
    "mono48.eac3": (ac3_track, Codec.EAC3, 48000, 1),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frames(name: str) -> None:
    parse, codec, rate, channels = FRAMES[name]
    assert parse(3, sample(name)) == Track(3, codec, sample_rate=rate, channels=channels)


BROKEN: dict[str, Callable[[], object]] = {
    "empty AAC": lambda: aac_track(1, b""),
    "AAC config without end": lambda: aac_track(1, b"\x11\x90" + bytes(1024)),
    "OpusHead without end": lambda: opus_track(1, OPUS_STEREO + bytes(1024)),
    "AAC object type 0": lambda: aac_track(1, asc((0, 5), (3, 4), (2, 4), *GA)),
    "AAC SBR over nothing known": lambda: aac_track(1, asc((5, 5), (6, 4), (2, 4), (3, 4), (9, 5), *GA)),
    "AAC reserved rate": lambda: aac_track(1, asc((2, 5), (13, 4), (2, 4), *GA)),
    "AAC rate of 1 Hz": lambda: aac_track(1, asc((2, 5), (15, 4), (1, 24), (2, 4), *GA)),
    "AAC reserved channels": lambda: aac_track(1, asc((2, 5), (3, 4), (9, 4), *GA)),
    "AAC program without channels": lambda: aac_track(1, asc((2, 5), (3, 4), (0, 4), *GA, (0, 34))),
    "AAC ELD without channels": lambda: aac_track(1, asc((31, 5), (7, 6), (3, 4), (0, 4), (0, 12))),
    "short OpusHead": lambda: opus_track(1, OPUS_STEREO[:-1]),
    "OpusHead without magic": lambda: opus_track(1, b"x" + OPUS_STEREO[1:]),
    "OpusHead version 16": lambda: opus_track(1, OPUS_STEREO[:8] + b"\x10" + OPUS_STEREO[9:]),
    "Opus family 0 with 3 channels": lambda: opus_track(1, OPUS_STEREO[:9] + b"\x03" + OPUS_STEREO[10:]),
    "Opus without mapping": lambda: opus_track(1, OPUS_5_1[:-1]),
    "Opus with more coupled streams than streams": lambda: opus_track(1, OPUS_5_1[:20] + b"\x05" + OPUS_5_1[21:]),
    "empty Opus packet": lambda: opus_packet_duration(b""),
    "Opus code 3 without count": lambda: opus_packet_duration(b"\xff"),
    "Opus code 3 of no frames": lambda: opus_packet_duration(b"\xff\x00"),
    "Opus packet of 180 ms": lambda: opus_packet_duration(b"\x1b\x03"),
    "short FLAC": lambda: flac_track(1, bytes(33)),
    "FLAC of 0 Hz": lambda: flac_track(1, bytes(34)),
    "FLAC block of another type": lambda: flac_track(1, b"\x04\x00\x00\x22" + sample("mono44.flac")[8:42]),
    "FLAC marker alone": lambda: flac_track(1, b"fLaC"),
    "short MP3": lambda: mp3_track(1, b"\xff\xfb\x90"),
    "MP3 without sync": lambda: mp3_track(1, b"\xff\x1b\x90\x00"),
    "MPEG layer I": lambda: mp3_track(1, b"\xff\xff\x90\x00"),
    "MP3 reserved rate": lambda: mp3_track(1, b"\xff\xfb\x9c\x00"),
    "short AC-3": lambda: ac3_track(1, sample("stereo44.ac3")[:5]),
    "AC-3 without sync": lambda: ac3_track(1, b"\x0b\x78" + sample("stereo44.ac3")[2:]),
    "AC-3 reserved rate": lambda: ac3_track(1, b"\x0b\x77\x00\x00\xc0\x40\x40\x00"),
    "AC-3 bsid 31": lambda: ac3_track(1, b"\x0b\x77\x00\x00\x00\xf8\x40\x00"),
}


@pytest.mark.parametrize("parse", BROKEN.values(), ids=BROKEN)
def test_broken_headers_are_refused(parse: Callable[[], object]) -> None:
    with pytest.raises(ProtocolError):
        parse()
