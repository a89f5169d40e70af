"""What publishers send, in numbers and orders that nobody sends: any input costs what its bytes allow (`tests/fuzz/cost.py`)."""

from collections.abc import Callable, Sequence
from functools import partial
from random import Random

import pytest

from protocols.bitstream.h26x import NalStream
from protocols.media import Codec
from protocols.srt.tracks import TsDemuxer
from tests.fuzz.cost import AT_ONCE_S, PER_BYTE_S, TURN_BYTES, Atom, Receive, Spent, check, counts, cut, rounds
from tests.fuzz.subjects import (
    AV1,
    NAL,
    RTMP,
    RTMP_AT_ONCE_S,
    RTP,
    SOUND,
    Muxer,
    annexb,
    at_once,
    datagrams,
    frames,
    h264_dear_sps,
    h264_sps,
    hevc_dear_sps,
    hevc_sps,
    packets_of,
    rtmp,
    streams,
    transport,
)
from tests.unit.protocols.rtmp.peer import opening

SIZES = (300, 3000, 30_000, 250_000)
Input = tuple[Callable[[], Receive], Sequence[bytes]]


def many(chance: Random, atoms: Sequence[Atom]) -> list[bytes]:
    """Units of them, the more the smaller they are."""
    size = chance.choice(SIZES)
    return [counts(chance, atoms, size) for _ in range(chance.randrange(max(1, min(30, SIZES[-1] // size))) + 1)]


def access_units(chance: Random) -> Input:
    name, make = chance.choice([*streams().items()])
    atoms = AV1 if name == "AV1" else NAL
    return make, [unit or b"\0" for unit in many(chance, atoms)]


def rtp_frames(chance: Random) -> Input:
    codec = chance.choice([*RTP])
    return partial(frames, codec), [datagram for frame in many(chance, RTP[codec]) for datagram in datagrams(frame)]


def sound(chance: Random) -> Input:
    kind = chance.choice([*SOUND])
    return transport, cut(Muxer().sound(kind, many(chance, SOUND[kind])), chance.choice((1316, TURN_BYTES)))


def tables_and_pes(chance: Random) -> Input:
    return transport, cut(counts(chance, packets_of(Muxer()), 500_000), chance.choice((1316, TURN_BYTES)))


def messages(chance: Random) -> Input:
    return rtmp, cut(opening() + b"\x02\0\0\0\0\0\4\1\0\0\0\0\0\1\0\0" + counts(chance, RTMP, 500_000), 128 << 10)


KINDS: dict[str, tuple[Callable[[Random], Input], float]] = {
    "access units": (access_units, AT_ONCE_S),
    "frames of RTP": (rtp_frames, AT_ONCE_S),
    "sound": (sound, AT_ONCE_S),
    "tables and PES": (tables_and_pes, AT_ONCE_S),
    "messages of RTMP": (messages, RTMP_AT_ONCE_S),
}


@pytest.mark.parametrize("kind", KINDS)
def test_counts_and_orders(kind: str, seconds: float, seed: int) -> None:
    make, allowed = KINDS[kind]
    dearest = Spent(0.0, 0.0, 1)
    for number in rounds(seconds):
        subject, pieces = make(Random(f"{seed} {number}"))
        spent = check(subject, pieces, f"{kind}, --fuzz-seed {seed}, input {number}", at_once=allowed, memory=number % 16 == 0)
        dearest = max(dearest, spent, key=lambda each: each.total / (allowed + each.size * PER_BYTE_S))
    print(f"{number + 1} inputs, the dearest: {dearest}")


# -- the oracle itself ---------------------------------------------------------------------------------------------------------------


def growing() -> Receive:
    """Each piece costs as much as all before it together."""
    seen: list[bytes] = []

    def take(data: bytes) -> None:
        seen.append(data)
        for _ in range(len(seen)):
            sum(data)

    return at_once(take)


def holding() -> Receive:
    held: list[list[int]] = []
    return at_once(lambda data: held.append([byte + 1000 for byte in data]))


def test_the_oracle_sees_what_grows_and_what_is_held() -> None:
    with pytest.raises(AssertionError, match=r"growing: .* us a KiB"):
        check(growing, [bytes(100)] * 1000, "growing")
    pieces = [bytes(5000)] * 200
    with pytest.raises(AssertionError, match=r"holding: \d+ bytes held for 1000000"):
        check(holding, pieces, "holding", memory=True)
    with pytest.raises(AssertionError, match="broken: ZeroDivisionError"):
        check(lambda: at_once(lambda data: 1 // len(data[1:])), [b"a"], "broken")


def test_the_oracle_lets_pass_what_is_linear() -> None:
    kept = bytearray()
    assert check(lambda: at_once(kept.extend), [bytes(5000)] * 200, "linear").size > 1_000_000


@pytest.mark.parametrize("kind", SOUND)
def test_the_atoms_of_sound_hold_some_that_are_right(kind: int) -> None:
    """Else the generators would find nothing but refusals."""
    units = 0
    for atom in SOUND[kind]:
        demuxer = TsDemuxer()
        demuxer.feed(Muxer().sound(kind, [atom(0) * 3]), 0)
        units += demuxer.counts.units
    assert units >= 3


def test_the_atoms_of_video_are_right() -> None:
    for sps in (h264_sps, h264_dear_sps):
        stream = NalStream(Codec.H264, 1)
        stream.annexb(annexb(sps(5)))
        assert stream.track is not None
    for sps in (hevc_sps, hevc_dear_sps):
        stream = NalStream(Codec.HEVC, 1)
        stream.annexb(annexb(sps(5)))
        assert stream.track is not None
