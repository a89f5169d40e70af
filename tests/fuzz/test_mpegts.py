"""Transport streams and stream ids that nobody should send: only `ProtocolError` or `Rejected`, in bounded time and memory."""

import contextlib
import random
from collections.abc import Iterator
from functools import partial

from protocols.errors import Rejected
from protocols.srt.latm import LatmReader
from protocols.srt.streamid import parse_stream_id
from protocols.srt.tracks import TsDemuxer
from tests.fuzz.cost import Receive, check, rounds
from tests.fuzz.subjects import forgiving
from tests.unit.protocols.srt.streams import X264, gstreamer_muxed, muxed


def sources() -> list[bytes]:
    x265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none:keyint=15")
    return [
        muxed(*X264, "-bf", "0", "-c:a", "aac", seconds=1),
        muxed(*X264, "-bf", "2", "-c:a", "aac", "-mpegts_flags", "latm", seconds=1),
        muxed(*X264, "-c:a", "eac3", seconds=1),
        muxed(*X264, "-c:a", "ac3", seconds=1),
        muxed(*X264, "-c:a", "libmp3lame", seconds=1),
        muxed(*x265, "-c:a", "libopus", seconds=1, version=9),
        gstreamer_muxed(1),
    ]


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Flip, cut, repeat, swap and replace; the more packets stay whole the deeper it gets."""
    piece = bytearray(data[: chance.choice((20_000, 60_000))])
    for _ in range(chance.choice((0, 1, 5, 50))):
        at = chance.randrange(len(piece))
        match chance.randrange(6):
            case 0:
                piece[at] ^= 1 << chance.randrange(8)
            case 1:
                start = at - at % 188
                piece[start : start + 12] = chance.randbytes(min(12, len(piece) - start))
                piece[start] = 0x47
            case 2:
                del piece[at : at + chance.randrange(1, 400)]
            case 3:
                piece[at:at] = piece[at : at + 188 * chance.randrange(1, 4)]
            case 4:
                piece[at : at + 188] = bytes(188)
            case _:
                start = at - at % 188 + 4
                piece[start : start + 184] = chance.randbytes(184)
        if len(piece) < 400:
            break
    return bytes(piece)


def pieces(data: bytes, chance: random.Random) -> Iterator[tuple[bytes, int]]:
    """As it is read of a socket, and the ns since the piece before."""
    at = 0
    while at < len(data):
        size = chance.choice((1, 188, 1316, 20_000))
        yield data[at : at + size], chance.choice((0, 10_000_000, 2_000_000_000 if chance.random() < 0.01 else 0))
        at += size


def demuxer_at(waits: list[int]) -> Receive:
    """Each piece so many ns after the one before."""
    demuxer, now, steps = TsDemuxer(), 0, iter(waits)

    def receive(data: bytes) -> Iterator[None]:
        nonlocal now
        now += next(steps)
        demuxer.feed(data, now)
        yield

    return receive


def test_transport_streams(seconds: float, seed: int) -> None:
    originals = sources()
    chance = random.Random(seed)
    for number in rounds(seconds):
        script = [piece for _ in range(3) for piece in pieces(mutate(chance.choice(originals), chance), chance)]
        data, waits = [piece for piece, _ in script], [wait for _, wait in script]
        check(partial(demuxer_at, waits), data, f"--fuzz-seed {seed}, input {number}", memory=number % 8 == 0)
    assert number > 5


def test_latm_elements(seconds: float, seed: int) -> None:
    chance = random.Random(seed)
    for number in rounds(seconds / 5):
        elements = [b"\x20\x00\x11\x90" * chance.randrange(2) + chance.randbytes(chance.randrange(400)) for _ in range(20)]

        def subject() -> Receive:
            reader = LatmReader()
            return forgiving(lambda element: _units_of(reader, element))

        check(subject, elements, f"--fuzz-seed {seed}, input {number}", memory=number % 64 == 0)


def _units_of(reader: LatmReader, element: bytes) -> None:
    assert sum(map(len, reader.access_units(element))) <= len(element)


def test_stream_ids(seconds: float, seed: int) -> None:
    chance = random.Random(seed)
    pieces = [
        b"#!::",
        b"r=",
        b"m=publish",
        b",",
        b"=",
        b"publish:",
        b":",
        b"?",
        b"&",
        b"%23",
        b"\xc3\xa9",
        b"\xff",
        b"t=file",
        b"a" * 90,
    ]
    for _ in rounds(seconds / 5):
        raw = b"".join(
            chance.choice(pieces) if chance.random() < 0.8 else chance.randbytes(3) for _ in range(chance.randrange(12))
        )
        with contextlib.suppress(Rejected):
            assert parse_stream_id(raw).key, raw
