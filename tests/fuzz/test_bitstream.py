"""Hostile bitstreams: mutations of real ones raise `ProtocolError` or nothing, hold bounded state, and no call takes long."""

from collections.abc import Callable, Iterator
from functools import partial
from random import Random

import pytest

from protocols.bitstream.audio import aac_track, ac3_track, flac_track, mp3_track, opus_packet_duration, opus_track
from protocols.bitstream.av1 import Av1Stream
from protocols.bitstream.h26x import MAX_SET_BYTES, NalStream
from protocols.bitstream.unit import MAX_BYTES
from protocols.bitstream.vpx import VpxStream
from protocols.errors import ProtocolError
from protocols.media import Codec
from tests.fuzz.cost import Receive, check, rounds
from tests.fuzz.subjects import at_once, forgiving
from tests.unit.protocols.bitstream.samples import (
    FOLDER,
    ByLength,
    access_units,
    avcc,
    hvcc,
    ivf_frames,
    length_prefixed,
    parameter_sets,
    sample,
    temporal_units,
)

INTERESTING = (
    b"\x00\x00\x01",
    b"\x00\x00\x00\x01",
    b"\x00\x00\x03",
    b"\x00" * 9,
    b"\xff" * 9,
    b"\x80" * 9,
    b"\x7f",
    b"\x06\x06\x01\x80",
)

Call = tuple[str, bytes]


def h264_like(name: str) -> list[Call]:
    sets = parameter_sets(name)
    units = list(access_units(name))
    sps, pps = ([nal for nal in sets if nal[0] & 31 == kind] for kind in (7, 8))
    record = hvcc(sets) if name.endswith(".hevc") else avcc(sps, pps)
    annexb = [("annexb", unit) for unit in units[:4]]
    return [("configure", record), *(("length_prefixed", length_prefixed(unit)) for unit in units[:4]), *annexb]


def cases() -> list[tuple[Callable[[], object], list[Call]]]:
    """(what makes a fresh stream, the calls that a real one would get)."""
    out: list[tuple[Callable[[], object], list[Call]]] = []
    for path in sorted(FOLDER.iterdir()):
        match path.suffix:
            case ".h264":
                out.append((lambda: ByLength(Codec.H264, 1), h264_like(path.name)))
            case ".hevc":
                out.append((lambda: ByLength(Codec.HEVC, 1), h264_like(path.name)))
            case ".obu":
                units = temporal_units(path.name)[:4]
                out.append(
                    (
                        lambda: Av1Stream(1),
                        [("configure", b"\x81\x00\x0c\x00" + units[0][2:15]), *(("temporal_unit", u) for u in units)],
                    )
                )
            case ".ivf":
                codec = Codec.VP8 if path.stem == "vp8" else Codec.VP9
                frames = [("frame", frame) for frame in ivf_frames(path.read_bytes())[:4]]
                out.append((partial(VpxStream, codec, 1), [("configure", bytes(12)), *frames]))
            case _:
                pass
    return out


HEADERS: list[tuple[Callable[[bytes], object], bytes]] = [
    (lambda data: aac_track(1, data), b"\x12\x10\x56\xe5\x00"),
    (lambda data: aac_track(1, data), b"\xeb\x09\x88\x00"),
    (lambda data: aac_track(1, data), b"\x11\x80\x04\xc8\x44\x00\x20\x00\xc4\x0d"),
    (lambda data: opus_track(1, data), b"OpusHead\x01\x06\x38\x01\x80\xbb\x00\x00\x00\x00\x01\x04\x02\x00\x04\x01\x02\x03\x05"),
    (opus_packet_duration, b"\xff\x03"),
    (lambda data: flac_track(1, data), sample("mono44.flac")[:42]),
    (lambda data: mp3_track(1, data), sample("mono44.mp3")[:64]),
    (lambda data: ac3_track(1, data), sample("stereo44.ac3")[:64]),
    (lambda data: ac3_track(1, data), sample("mono48.eac3")[:64]),
]


def mutate(data: bytes, random: Random) -> bytes:
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        # most of what is parsed stands at the beginning
        end = len(out) if random.random() < 0.3 else min(len(out), 64)
        at = random.randrange(end + 1)
        match random.randrange(6):
            case 0 if at < len(out):
                out[at] ^= 1 << random.randrange(8)
            case 1 if at < len(out):
                out[at] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
            case 2:
                del out[at : at + random.choice((1, 2, 4, 64))]
            case 3:
                out[at:at] = random.choice(INTERESTING)
            case 4:
                out[at:at] = out[: random.randrange(len(out) + 1)]
            case _:
                del out[at + random.randrange(len(out) + 1) :]
    return bytes(out[: 1 << 20])


class Subject:
    """A fresh stream for each run of a script, and how its last run went."""

    def __init__(self, make: Callable[[], object], methods: list[str]) -> None:
        self._make = make
        self._methods = methods
        self.stream: object = None
        self.refused = 0

    def __call__(self) -> Receive:
        self.stream, self.refused = self._make(), 0
        methods = iter(self._methods)

        def receive(data: bytes) -> Iterator[None]:
            try:
                getattr(self.stream, next(methods))(data)
            except ProtocolError:
                self.refused += 1
            yield

        return receive


def test_mutated_streams(seconds: float, seed: int) -> None:
    random = Random(seed)
    streams = cases()
    calls = refused = 0
    for number in rounds(seconds * 0.8):
        make, script = random.choice(streams)
        chosen = random.sample(script, k=random.randint(1, len(script)))
        hostile = [mutate(data, random) if random.random() < 0.7 else data for _, data in chosen]
        subject = Subject(make, [method for method, _ in chosen])
        check(subject, hostile, f"{[(method, data[:2000].hex()) for method, data in chosen]}", memory=number % 64 == 0)
        calls += len(chosen)
        refused += subject.refused
        if isinstance(subject.stream, NalStream) and subject.stream.track is not None:
            assert len(subject.stream.track.extradata) <= MAX_SET_BYTES + 4 * 32
    assert 0 < refused < calls  # the mutations are neither harmless nor all absurd


def test_mutated_headers(seconds: float, seed: int) -> None:
    random = Random(seed)
    calls = refused = 0
    for _ in rounds(seconds * 0.2):
        parse, header = random.choice(HEADERS)
        hostile = mutate(header, random)
        calls += 1
        check(partial(at_once, parse), [hostile], hostile.hex())
        try:
            parse(hostile)
        except ProtocolError:
            refused += 1
    assert 0 < refused < calls


LARGE = {
    "zeros": bytes(MAX_BYTES),
    "start codes": b"\x00\x00\x01\x41" * (MAX_BYTES // 4),
    "start codes of four bytes": b"\x00\x00\x00\x01" * (MAX_BYTES // 4),
    "emulation prevention": b"\x00\x00\x01\x67" + b"\x00\x00\x03" * (MAX_BYTES // 3 - 2),
    "an endless SEI": b"\x00\x00\x01\x06" + b"\xff" * (MAX_BYTES - 4),
    "empty SEI messages": b"\x00\x00\x01\x06" + b"\x01\x01\x01" * (MAX_BYTES // 3 - 2),
    "one slice": b"\x00\x00\x01\x41" + b"\x9a" * (MAX_BYTES - 4),
    "one-byte units by length": b"\x00\x00\x00\x01\x41" * (MAX_BYTES // 5),
    "one unit by length, of short start codes": (MAX_BYTES - 4).to_bytes(4) + b"\x41\x00\x00\x01" * (MAX_BYTES // 4 - 1),
    "delimiters": b"\x12\x00" * (MAX_BYTES // 2),
    "one frame": b"\x30" + b"\x80" * (MAX_BYTES - 1),
}


@pytest.mark.parametrize("data", LARGE.values(), ids=LARGE)
def test_the_largest_access_units_stall_nothing(data: bytes) -> None:
    assert len(data) <= MAX_BYTES
    for codec, record in ((Codec.H264, avcc([], [])), (Codec.HEVC, hvcc([]))):
        for method in ("annexb", "length_prefixed"):
            check(Subject(partial(ByLength, codec, 1), ["configure", method]), [record, data], method, memory=True)
    check(lambda: forgiving(Av1Stream(1).temporal_unit), [data], "AV1", memory=True)
    check(lambda: forgiving(VpxStream(Codec.VP8, 1).frame), [data], "VP8", memory=True)
    check(lambda: forgiving(VpxStream(Codec.VP9, 1).frame), [data], "VP9", memory=True)
