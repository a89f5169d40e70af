"""Inputs of publishers that once cost far more than their bytes: each is within the bounds of every input (`tests/fuzz/cost.py`).

`FIGURES` says what each cost before it was mended, and what it costs since.
"""

from collections.abc import Callable, Sequence
from functools import partial

import pytest

from protocols.bitstream.h26x import NalStream
from protocols.media import Codec
from tests.fuzz.cost import Receive, check, cut
from tests.fuzz.subjects import (
    H264_KEY,
    H264_SLICE,
    Muxer,
    adts,
    annexb,
    bits,
    datagrams,
    eac3,
    fixed,
    forgiving,
    frames,
    h264_dear_sps,
    h264_pps,
    h264_sps,
    hevc_dear_sps,
    latm,
    mpeg,
    payload,
    rtmp,
    transport,
    ue,
    whole,
)
from tests.fuzz.test_whip import Publisher
from tests.unit.protocols.rtmp.peer import opening
from tests.unit.protocols.srt.streams import pat, pmt
from tests.unit.protocols.webrtc.loopback import MS
from tests.unit.protocols.webrtc.receive.test_receiver import H264, MID, RID, rtp

PES_BYTES = (256 << 10) - 1
Input = tuple[Callable[[], Receive], Sequence[bytes]]


def sound(kind: int, *payloads: bytes) -> Input:
    return transport, cut(Muxer().sound(kind, payloads))


def repeated(piece: bytes, size: int = PES_BYTES) -> bytes:
    return piece * (size // len(piece))


def h264(*units: bytes) -> Input:
    return lambda: forgiving(NalStream(Codec.H264, 1).annexb), units


def sets_of_33_kb() -> Input:
    sets = [b"\x68" + bits(ue(number), ue(0)).ljust(33_000, b"\x55") for number in range(30)]
    changes = [b"\x68" + bits(ue(40), ue(0), fixed(number, 16)) for number in range(3900)]
    return h264(annexb(h264_sps(0), *sets, *changes, H264_KEY))


def tables(*made: Callable[[int], bytes], count: int) -> Input:
    return transport, cut(b"".join([make(number) for number in range(count // len(made)) for make in made]))


def programmes(number: int) -> bytes:
    return pat({1 + each + number % 2: 0x1000 + each for each in range(40)})


def lines(number: int) -> bytes:
    return pmt({0x100 + each: (0x86, 0x0F)[(each + number) % 2] for each in range(32)}, 2, 0x1001)


def packets_of_rtp(*packets: tuple[int, int]) -> Input:
    """RTP packets of one slice, by sequence number and timestamp, 50 us apart; whoever reads polls each millisecond."""

    def make() -> Receive:
        publisher = Publisher(step=MS // 20, poll=MS)
        return forgiving(publisher.receive)

    return make, [rtp(H264, sequence & 0xFFFF, stamp, 7, H264_SLICE, {MID: b"1", RID: b"h"}) for sequence, stamp in packets]


def hvcc_of_dust() -> bytes:
    return b"\x01" + bytes(20) + b"\x0f\x20" + (b"\x20\xff\xff" + b"\x00\x01\x40" * 0xFFFF) * 32


NAMED: dict[str, Callable[[], Input]] = {
    "256 KiB of 0xFF as MPEG audio": lambda: sound(0x03, b"\xff" * PES_BYTES),
    "ADTS sync bytes": lambda: sound(0x0F, b"\xff" * PES_BYTES),
    "LOAS sync bytes": lambda: sound(0x11, b"\x56" * PES_BYTES),
    "AC-3 sync bytes": lambda: sound(0x81, b"\x0b" * PES_BYTES),
    "E-AC-3 dependents": lambda: sound(0x87, eac3(0, 64) + repeated(eac3(0, 8, 1), PES_BYTES - 64)),
    "E-AC-3 dependents of two bytes": lambda: sound(
        0x87, eac3(0, 64) + repeated(eac3(0, 2, 1)[:2] + b"\x40\x00", PES_BYTES - 64)
    ),
    "30 parameter sets of 33 kB with 3,900 changes": sets_of_33_kb,
    "8,000 STAP-A of one-byte units": lambda: (
        partial(frames, Codec.H264),
        datagrams(payload(b"\x78" + b"\x00\x01\x41" * 399) * 8000),
    ),
    "2,000 changes of PAT and PMT": lambda: tables(programmes, lines, count=2000),
    # found by the generators of test_cost.py, and of the same kinds
    "ADTS frames of 8 bytes": lambda: sound(0x0F, repeated(adts(0))),
    "ADTS frames of 8 bytes, each of another kind": lambda: sound(0x0F, *[b"".join(map(adts, range(90)))] * 300),
    "MPEG audio of the lowest rate": lambda: sound(0x03, repeated(mpeg(0))),
    "MPEG audio, each frame of another kind": lambda: sound(0x03, *[b"".join(map(mpeg, range(90)))] * 100),
    "LOAS frames, each of another kind": lambda: sound(0x11, *[b"".join(map(latm, range(45)))] * 300),
    "LATM with other data without an end": lambda: sound(0x11, *[latm(0, other="1" + "100000000" * 900)] * 200),
    "programmes without video": lambda: tables(
        lambda n: pat({1 + each: 0x1000 + each for each in range(40)}),
        lambda n: pmt({0x100 + each: 0x86 for each in range(32)}, 1 + n % 39, 0x1000 + n % 39),
        count=2000,
    ),
    "an hvcC of 2,000,000 sets": lambda: (
        lambda: forgiving(NalStream(Codec.HEVC, 1).configure),
        [hvcc_of_dust()],
    ),
    "the dearest SPS of H.264 in each unit": lambda: h264(*[annexb(h264_dear_sps(n), H264_SLICE) for n in range(1000)]),
    "the dearest SPS of HEVC in each unit": lambda: (
        lambda: forgiving(NalStream(Codec.HEVC, 1).annexb),
        [annexb(hevc_dear_sps(n)) for n in range(400)],
    ),
    "key frames of 4 bytes, each with all sets": lambda: h264(
        annexb(h264_sps(0), h264_pps(0), *[h264_pps(n) + b"\x55" * 2000 for n in range(1, 30)], H264_KEY),
        *[annexb(H264_KEY)] * 3000,
    ),
    "the same over RTP": lambda: (
        partial(frames, Codec.H264),
        [
            *datagrams(b"".join(map(payload, (h264_sps(0), *[h264_pps(n) + b"\x55" * 1100 for n in range(30)], H264_KEY)))),
            *datagrams(payload(H264_KEY)) * 2000,
        ],
    ),
    "SEI messages of a byte": lambda: h264(*[annexb(*[b"\x06" + b"\x05\x01\x01" * 30 + b"\x80"] * 2000)] * 3),
    "OBUs of two bytes over RTP": lambda: (partial(frames, Codec.AV1), datagrams(payload(b"\x00" + b"\x01\x12" * 600) * 300)),
    "RTP that jumps and comes back": lambda: packets_of_rtp(*[(n // 2 * 6141 + n % 2 * 2040, 3000 * n) for n in range(2000)]),
    "RTP that goes on behind 2,000 gaps": lambda: packets_of_rtp(*[(0, 0), *[(2000 + n, 3000 * n) for n in range(2000)]]),
    "RTMP tracks of no bytes": lambda: (
        rtmp,
        cut(opening() + whole(9, b"\x96\x11avc1" + b"".join([bytes((n, 0, 0, 3, 0, 0, 0)) for n in range(16)]), 6) * 200),
    ),
}


FIGURES = {
    "256 KiB of 0xFF as MPEG audio": (627, 2.5),
    "ADTS sync bytes": (199, 2.1),
    "LOAS sync bytes": (113, 2.2),
    "AC-3 sync bytes": (158, 1.0),
    "E-AC-3 dependents": (141, 1.0),
    "E-AC-3 dependents of two bytes": (51, 2.4),
    "30 parameter sets of 33 kB with 3,900 changes": (351, 1.4),
    "8,000 STAP-A of one-byte units": (1139, 19),
    "2,000 changes of PAT and PMT": (108, 8.5),
    "ADTS frames of 8 bytes": (120, 1.6),
    "ADTS frames of 8 bytes, each of another kind": (263, 6.0),
    "MPEG audio of the lowest rate": (50, 5.2),
    "MPEG audio, each frame of another kind": (94, 4.7),
    "LOAS frames, each of another kind": (51, 5.9),
    "LATM with other data without an end": (66, 3.4),
    "programmes without video": (372, 3.5),
    "an hvcC of 2,000,000 sets": (827, 0.0),
    "the dearest SPS of H.264 in each unit": (157, 10),
    "the dearest SPS of HEVC in each unit": (1513, 13),
    "key frames of 4 bytes, each with all sets": (39, 27),
    "the same over RTP": (71, 22),
    "SEI messages of a byte": (92, 25),
    "OBUs of two bytes over RTP": (0.4, 0.2),
    "RTP that jumps and comes back": (603, 19),
    "RTP that goes on behind 2,000 gaps": (21, 15),
    "RTMP tracks of no bytes": (11, 9.1),
}
"""ms of CPU for all of an input: before it was mended, and since."""


@pytest.mark.parametrize("name", NAMED)
def test_slow_inputs(name: str) -> None:
    make, pieces = NAMED[name]()
    before, since = FIGURES[name]
    print(f"{name}: {check(make, pieces, name)} (when it was mended {since} ms, before {before} ms)")
