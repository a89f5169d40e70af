"""Transport-wide feedback is read as it was written, in whatever chunks, and any stretch of it alone."""

import random
from collections.abc import Callable, Sequence

import pytest

from protocols.webrtc import rtcp

LOST, SMALL, LARGE = range(3)
BASE, REFERENCE = 65_500, 77  # in units of 64 ms

Chunks = Callable[[Sequence[int]], bytes]


def runs(symbols: Sequence[int]) -> bytes:
    """draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1.3"""
    chunks = b""
    position = 0
    while position < len(symbols):
        length = next((n for n, each in enumerate(symbols[position:]) if each != symbols[position]), len(symbols) - position)
        chunks += (symbols[position] << 13 | length).to_bytes(2, "big")
        position += length
    return chunks


def vectors(symbols: Sequence[int], width: int) -> bytes:
    """§3.1.4, of symbols of `width` bits"""
    chunks, each = b"", 14 // width
    for begin in range(0, len(symbols), each):
        part = [*symbols[begin : begin + each], *[LOST] * each][:each]
        value = 0
        for symbol in part:
            value = value << width | symbol
        chunks += (1 << 15 | (width - 1) << 14 | value).to_bytes(2, "big")
    return chunks


def mixed(symbols: Sequence[int]) -> bytes:
    begin = min(len(symbols), 14)
    return vectors(symbols[:begin], 2) + runs(symbols[begin:])


def written(symbols: Sequence[int], deltas: Sequence[int], chunks: bytes) -> rtcp.TransportFeedback:
    told = zip([each for each in symbols if each], deltas, strict=True)
    body = bytes(8) + BASE.to_bytes(2, "big") + len(symbols).to_bytes(2, "big") + REFERENCE.to_bytes(3, "big") + b"\0" + chunks
    body += b"".join(delta.to_bytes(kind, "big", signed=kind == LARGE) for kind, delta in told)
    return rtcp.transport_feedback_of(rtcp.RtcpPacket(rtcp.RTPFB, rtcp.TRANSPORT_CC, body))


@pytest.mark.parametrize(
    ("chunks", "kinds"),
    [
        (runs, (LOST, SMALL, LARGE)),
        (runs, (SMALL,)),
        (lambda symbols: vectors(symbols, 1), (LOST, SMALL)),
        (lambda symbols: vectors(symbols, 1), (SMALL,)),
        (lambda symbols: vectors(symbols, 2), (LOST, SMALL, LARGE)),
        (mixed, (LOST, SMALL, LARGE)),
    ],
)
def test_every_stretch_is_read_as_it_was_written(chunks: Chunks, kinds: Sequence[int]) -> None:
    chance = random.Random(5)
    for _ in range(300):
        symbols = [
            symbol for _ in range(chance.randrange(1, 8)) for symbol in [chance.choice(kinds)] * chance.choice((1, 2, 5, 16))
        ]
        bounds = {SMALL: (0, 255), LARGE: (-3000, 3000)}
        deltas = [chance.randint(*bounds[each]) for each in symbols if each]
        feedback = written(symbols, deltas, chunks(symbols))
        arrivals: list[int | None] = []
        at, following = REFERENCE * 256, iter(deltas)
        for symbol in symbols:
            at += next(following) if symbol else 0
            arrivals.append(at if symbol else None)
        assert (feedback.base, feedback.count) == (BASE, len(symbols))
        assert feedback.arrivals(0, feedback.count) == arrivals
        assert feedback.ends in ((arrivals[0], arrivals[-1]), None)
        begin = chance.randrange(len(symbols))
        end = chance.randint(begin, len(symbols) + 3)
        assert feedback.arrivals(begin, end) == arrivals[begin:end]


def test_the_reserved_symbol_is_a_packet_that_did_not_come() -> None:
    chunks = (3 << 13 | 4).to_bytes(2, "big") + (SMALL << 13 | 1).to_bytes(2, "big")
    body = bytes(8) + bytes((0, 0, 0, 5, 0, 0, 0, 0)) + chunks + bytes((9, 0, 0, 0))
    feedback = rtcp.transport_feedback_of(rtcp.RtcpPacket(rtcp.RTPFB, rtcp.TRANSPORT_CC, body))
    assert feedback.arrivals(0, 5) == [None, None, None, None, 9]


def test_the_ends_are_quickly_told_where_all_has_come() -> None:
    assert written([SMALL] * 20, [3] * 20, runs([SMALL] * 20)).ends == (REFERENCE * 256 + 3, REFERENCE * 256 + 60)
    assert written([SMALL] * 20 + [LOST], [3] * 20, runs([SMALL] * 20 + [LOST])).ends is None
    assert written([LOST] * 20, [], runs([LOST] * 20)).ends is None
    assert written([LARGE] * 20, [3] * 20, runs([LARGE] * 20)).ends is None
    assert written([SMALL] * 14, [3] * 14, vectors([SMALL] * 14, 1)).ends is None
