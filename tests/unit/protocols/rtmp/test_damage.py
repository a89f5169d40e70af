"""Damage at any place of a stream costs the pictures of that group at most, the sound of that message, and never the stream."""

import random
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

import pytest

from protocols.media import EncodedPacket, LeftOut
from protocols.rtmp.limits import RtmpLimits
from protocols.rtmp.message import MessageType
from protocols.rtmp.session import ServerSession, SessionPhase
from tests.support.flv import Tag, tags
from tests.unit.protocols.rtmp.peer import Run, control, message, opening

GROUP = 25
CHUNK = 1 << 16
_CHUNK_STREAMS = {8: 4, 9: 6, 18: 5, 20: 3}
START = bytes(3) + b"\x01"


def cut(body: bytes, chance: random.Random) -> bytes:
    return body[: chance.randrange(len(body))]


def padded(body: bytes, chance: random.Random) -> bytes:
    return body + bytes(chance.randrange(1, 12))


def lengthened(body: bytes, chance: random.Random) -> bytes:
    return body + chance.randbytes(chance.randrange(1, 40))


def shortened(body: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(body))
    return body[:at] + body[at + chance.randrange(1, 64) :]


def overwritten(body: bytes, chance: random.Random) -> bytes:
    """From the head of the message to the first bytes of its picture: what stands further in only a decoder can see."""
    at = chance.randrange(min(len(body), 9))
    return body[:at] + chance.randbytes(chance.randrange(1, 9)) + body[at + 8 :]


def by_start_code(body: bytes, chance: random.Random) -> bytes:
    """In a stream of lengths, and the last NAL unit alone."""
    return body[:5] + START + body[9:] if len(body) > 9 else body


def header_again(body: bytes, chance: random.Random) -> bytes:
    """A header that is cut, in the place of what was due."""
    header = (b"\x17\x00\x00\x00\x00" if body[0] != 0xAF else b"\xaf\x00") + bytes.fromhex("0142c00cffe1001667")
    return header[: chance.randrange(1, len(header))]


def another_codec(body: bytes, chance: random.Random) -> bytes:
    return bytes([chance.randrange(256)]) + body[1:]


DAMAGES: Sequence[Callable[[bytes, random.Random], bytes]] = (
    *(cut, padded, lengthened, shortened, overwritten, by_start_code, header_again, another_codec),
)


def put_in(chance: random.Random, time: int) -> Tag:
    """A message that was never due: of any kind, and of little sense."""
    kind = chance.choice((8, 9, 18, 20))
    first = chance.choice((b"\x27", b"\xaf", b"\x17\x01", b"\x2f", b"\x91", b"\x86", b"\x02", b""))
    return Tag(kind, time, first + chance.randbytes(chance.choice((0, 1, 2, 5, 40))))


def stream(source: Iterable[Tag], patient: bool) -> Run:
    body = b"".join(message(tag.kind, tag.body, _CHUNK_STREAMS[tag.kind], timestamp=tag.time, chunk=CHUNK) for tag in source)
    fed = Run(ServerSession(RtmpLimits(), patient=patient))
    fed.feed(opening() + control(MessageType.SET_CHUNK_SIZE, CHUNK) + body)
    fed.events += fed.session.settle()
    return fed


def data_of(packets: Sequence[EncodedPacket]) -> dict[int, bytes]:
    return {packet.dts // 1_000_000: packet.data for packet in packets}


def clean() -> list[Tag]:
    """As it should be: 100 pictures and 4 s of sound."""
    return [tag for tag in tags("rtmp-bad-mp3-tag") if not tag.body.startswith(b"\x2f")]


def with_start_codes(source: Iterable[Tag]) -> list[Tag]:
    """Annex B in the place of lengths of 4 bytes."""
    return [tag._replace(body=_coded(tag.body)) if tag.kind == 9 and tag.body[1] else tag for tag in source]


def _coded(body: bytes) -> bytes:
    coded, at = body[:5], 5
    while at < len(body):
        end = at + 4 + int.from_bytes(body[at : at + 4])
        coded, at = coded + START + body[at + 4 : end], end
    return coded


SOURCES = {
    "headers": clean(),
    "start codes": with_start_codes(clean()),
    "parameter sets in band": tags("rtmp-sets-in-band"),
    "start codes, in band": with_start_codes(tags("rtmp-sets-in-band")),
    "ADTS": tags("rtmp-adts-in-tags"),
}


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("source", SOURCES)
def test_damage_anywhere_costs_its_group_at_most(source: str, seed: int) -> None:
    damage(SOURCES[source], random.Random(f"{source} {seed}"))


@pytest.mark.parametrize("kind", range(32))
@pytest.mark.parametrize("source", ["headers", "start codes", "parameter sets in band"])
def test_a_damaged_picture_may_look_like_any_nal_unit(source: str, kind: int) -> None:
    """The last of a group: whatever of it is kept would stand before the next."""
    undamaged, chance = SOURCES[source], random.Random(kind)
    right = data_of(stream(undamaged, True).of(0))
    for length in (3, 8, 60, None):
        damaged = [
            tag._replace(body=_disguised(tag.body, kind, length, chance)) if tag[:2] == (9, 1960) else tag for tag in undamaged
        ]
        got = stream(damaged, True)
        shown = data_of(got.of(0))
        assert all(shown.get(time) == data for time, data in right.items() if time // 40 // GROUP != 1), f"{length} bytes"
        assert [change.tracks for change in got.changes] == [change.tracks for change in stream(undamaged, True).changes]


def _disguised(body: bytes, kind: int, length: int | None, chance: random.Random) -> bytes:
    """Its first NAL unit has another type, other first bytes, and perhaps another length."""
    framing = body[:9] if body[5:9] == START or length is None else body[:5] + length.to_bytes(4)
    return framing + bytes([kind | chance.randrange(4) << 5]) + chance.randbytes(3) + body[13:]


def damage(undamaged: Sequence[Tag], chance: random.Random) -> None:
    """Draws where, how and how often, and judges what is left.

    Raises:
        AssertionError: more is missing than may be, or something else came of it.
    """
    patient = chance.random() < 0.5
    rate = chance.choice((0.005, 0.02, 0.1))
    headers = {index for index, tag in enumerate(undamaged) if tag.body[1:2] == b"\x00" or tag.kind == 18}
    sent: list[Tag] = []
    damaged: set[int] = set()  # groups
    silent: set[int] = set()  # times of sound
    for index, tag in enumerate(undamaged):
        group = tag.time // 40 // GROUP
        if index not in headers and chance.random() < rate:
            body = chance.choice(DAMAGES)(tag.body, chance)
            tag = Tag(tag.kind, tag.time, body)
            (silent.add(tag.time) if tag.kind == 8 else damaged.add(group))
        sent.append(tag)
        if index not in headers and chance.random() < rate / 4:
            sent.append(put_in(chance, tag.time))
            damaged |= {group} if sent[-1].kind == 9 else set()
            silent |= {tag.time} if sent[-1].kind == 8 else set()
    right, got = stream(undamaged, patient), stream(sent, patient)
    assert got.session.stage is SessionPhase.LIVE
    pictures, shown = data_of(right.of(0)), data_of(got.of(0))
    for group, times in groupby(sorted(pictures), key=lambda time: time // 40 // GROUP):
        if group not in damaged:
            assert all(shown.get(time) == pictures[time] for time in times), f"group {group}"
    assert [packet.dts for packet in got.of(0)] == sorted(packet.dts for packet in got.of(0))
    heard = data_of(got.of(1))
    for time, data in data_of(right.of(1)).items():
        if time not in silent:
            assert heard.get(time) == data, f"sound at {time} ms"
    told = [event for event in got.events if isinstance(event, LeftOut)]
    assert len(set(told)) == len(told) <= 16
    assert bool(told) or got.session.packets_unreadable == 0
