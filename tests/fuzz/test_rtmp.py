"""Hostile bytes through the RTMP session: it ends in `Broken` or goes on, in bounded memory and time. Damaged streams go on."""

import random

from protocols.rtmp.events import Broken, PublishRequested
from protocols.rtmp.limits import RtmpLimits
from protocols.rtmp.session import ServerSession
from tests.fuzz.cost import check, cut, rounds
from tests.fuzz.subjects import RTMP_AT_ONCE_S, rtmp
from tests.unit.protocols.rtmp.peer import HANDSHAKE, capture, capture_names, opening
from tests.unit.protocols.rtmp.test_damage import SOURCES, damage

LONG, SHORT = 300_000, 20_000
INTERESTING = (0x00, 0x01, 0x03, 0x7F, 0x80, 0xC0, 0xC4, 0xFF)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Bytes changed, cut, doubled, swapped, or put in, behind the handshake."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 2, 5, 20, 200))):
        at = chance.randrange(len(HANDSHAKE), len(changed))
        match chance.randrange(6):
            case 0:
                changed[at] = chance.choice(INTERESTING)
            case 1:
                changed[at] ^= 1 << chance.randrange(8)
            case 2:
                del changed[at : at + chance.randrange(1, 64)]
            case 3:
                changed[at:at] = changed[at : at + chance.randrange(1, 300)]
            case 4:
                changed[at:at] = chance.randbytes(chance.randrange(1, 32))
            case _:
                changed[at : at + 3] = b"\xff\xff\xff"
        if len(changed) <= len(HANDSHAKE) + 64:
            break
    return bytes(changed)


def subject(captures: list[bytes], chance: random.Random) -> bytes:
    match chance.randrange(40):
        case 0:
            return chance.randbytes(chance.randrange(1, 4000))
        case 1 | 2:
            return HANDSHAKE + chance.randbytes(chance.randrange(1, 4000))
        case 3 | 4 | 5:
            return opening() + chance.randbytes(chance.randrange(1, 4000))
        case 6:  # one header again and again: the cheapest messages there are
            return opening() + b"\x04" + bytes(6) + chance.choice((b"\x08", b"\x09", b"\x04")) + bytes(4) + b"\xc4" * 100_000
        case _:
            whole = chance.choice(captures)
            length = min(len(whole), chance.choice((LONG, SHORT, SHORT, SHORT)))
            return mutated(whole[: chance.randrange(len(HANDSHAKE) + 600, length)], chance)


def feed(data: bytes, chance: random.Random, limits: RtmpLimits) -> int:
    """Bytes of output, accepting whatever wants to publish."""
    session = ServerSession(limits, "192.0.2.1")
    at = output = 0
    largest = chance.choice((1 << 20, 1 << 20, 1500, 100))
    while at < len(data):
        space = session.space()
        count = min(len(space), len(data) - at, largest)
        space[:count] = data[at : at + count]
        at += count
        events = session.received(count, at)
        while True:
            output += len(session.take_output())
            if any(isinstance(event, Broken) for event in events):
                return output
            if any(isinstance(event, PublishRequested) for event in events):
                session.accept()
            elif not session.busy:
                break
            events = session.proceed(at)
        assert session._chunks.partial <= limits.partial_bytes
        assert len(session._buffer.data) <= limits.buffer
    return output


def test_damaged_streams_go_on(seconds: float, seed: int) -> None:
    chance = random.Random(seed)
    for _ in rounds(seconds):
        damage(chance.choice(list(SOURCES.values())), chance)


def test_hostile_bytes(seconds: float, seed: int) -> None:
    chance = random.Random(seed)
    captures = [capture(name) for name in capture_names()]
    limits = RtmpLimits()
    for number in rounds(seconds):
        data = subject(captures, chance)
        what = f"--fuzz-seed {seed}, input {number}"
        pieces = cut(data, chance.choice((limits.buffer, 1500)))
        check(rtmp, pieces, what, at_once=RTMP_AT_ONCE_S, memory=number % 32 == 0)
        output = feed(data, chance, limits)
        assert output <= 3073 + 4 * len(data) + 4096, f"{what}: {output} bytes for {len(data)}"
