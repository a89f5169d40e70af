"""What one source is told by several processes, and what a process is given that did not read."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from gateway.outputs.fanout.call import SpreadSource
from gateway.outputs.fanout.handle import FanoutProcess, RemoteViewer
from gateway.outputs.fanout.messages import FanoutMessage, PushedUnit, Sent, pack_unit, read_unit
from gateway.outputs.fanout.unit_pipe import LATE_NS, MOST_BACKLOG, UnitPipe
from protocols.errors import Reason, Rejected
from protocols.media import Codec, EncodedPacket, Track
from protocols.webrtc.send.simulcast import Wish
from protocols.webrtc.send.target import UNBOUND
from protocols.webrtc.transport.places import Place, Places, Standing
from protocols.webrtc.transport.turns import Turns
from protocols.whep.fanout import ViewerOffer
from tests.support.unheard import unheard
from transcode.messages import MessageReader

MS = 1_000_000


class Told:
    """What the owner of a source hears."""

    def __init__(self, *, comes: bool = False) -> None:
        self.comes = comes
        self.bitrates: list[int] = []
        self.keyframes = 0
        self.frames: list[int] = []

    def keyframe(self) -> bool:
        self.keyframes += 1
        return self.comes

    def bitrate(self, bits_per_second: int) -> None:
        self.bitrates.append(bits_per_second)

    def sent(self, packet: EncodedPacket, ready: int, sent: int) -> None:
        self.frames.append(packet.pts)


def source(told: Told) -> SpreadSource:
    return SpreadSource("livestream:demo", "host", Track(1, Codec.H264), lambda now: (now + 5, now - 7), told)


def process(answer_s: float = 10.0) -> FanoutProcess:
    """One that is not started: what it is told goes nowhere."""
    return FanoutProcess(0, Turns(Places(10, 10, 10), 1.0), unheard, answer_s)


def picture(number: int, size: int = 100) -> EncodedPacket:
    return EncodedPacket(1, number * 33 * MS, number * 33 * MS, number % 30 == 0, bytes(size), 0, number)


async def test_the_narrowest_way_of_all_processes_decides_until_its_process_has_no_viewer_any_more() -> None:
    told, one, two = Told(), process(), process()
    media = source(told)
    first, second = one.sources, two.sources
    media.open(one)
    media.open(two)
    first[0].bitrate(2_000_000)
    second[0].bitrate(800_000)
    first[0].bitrate(3_000_000)
    assert told.bitrates == [2_000_000, 800_000, 800_000]
    media.close(two)
    assert told.bitrates[3:] == [3_000_000]
    media.end()
    assert told.bitrates[4:] == [UNBOUND]
    assert not one.sources
    assert not two.sources


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for end in (ours, theirs):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        yield ours, theirs


@asynccontextmanager
async def pipe() -> AsyncIterator[tuple[UnitPipe, socket.socket]]:
    with pair() as (ours, theirs):
        made = UnitPipe(ours, unheard, unheard)
        yield made, theirs
        made.close()


async def drained(pipe: UnitPipe, theirs: socket.socket) -> list[PushedUnit]:
    """The units that a process gets which reads all that waits for it."""
    reader = MessageReader()
    units: list[PushedUnit] = []
    while True:
        try:
            count = theirs.recv_into(reader.room())
        except BlockingIOError:
            if not pipe.backlog:
                return units
            await asyncio.sleep(0)  # the other end writes on
            continue
        units += [read_unit(frame.body) for frame in reader.received(count) if frame.kind == FanoutMessage.UNIT]


async def test_what_is_not_read_in_time_is_left_out_and_what_is_read_again_goes_on() -> None:
    async with pipe() as (units, theirs):

        def push(number: int, now: int) -> bool:
            return units.push(3, pack_unit(PushedUnit(picture(number, 1 << 20), now, 5, -7, False)), now)

        assert push(0, 0)
        assert push(1, 33 * MS)
        assert push(2, LATE_NS - 1)
        assert not push(3, LATE_NS)
        assert not units.reads(10 * LATE_NS)
        assert units.left_out == 1
        assert [unit.packet.pts for unit in await drained(units, theirs)] == [0, 33 * MS, 66 * MS]
        assert push(4, 11 * LATE_NS)
        assert units.left_out == 1


async def test_nothing_waits_beyond_a_bound_in_bytes() -> None:
    async with pipe() as (units, _):
        size = 4 << 20
        taken = sum(units.push(3, pack_unit(PushedUnit(picture(number, size), 0, 0, 0, False)), 0) for number in range(20))
        assert MOST_BACKLOG <= taken * size <= MOST_BACKLOG + size + (1 << 17)
        assert units.left_out == 20 - taken


async def test_a_process_that_fell_behind_goes_on_with_a_key_frame_which_is_asked_for_once_it_reads_again() -> None:
    told = Told(comes=True)
    async with pipe() as (units, theirs):
        behind = process()
        behind._pipe = units
        media = source(told)
        media.push(picture(0), 0)
        number = media.open(behind)
        assert number == 0
        for at in range(1, 4):
            media.push(picture(at, 1 << 20), at * LATE_NS // 2)
        before = await drained(units, theirs)
        assert [unit.packet.pts // (33 * MS) for unit in before] == [0, 1, 2]
        assert [unit.cached for unit in before] == [True, False, False]
        assert all((unit.wall, unit.media) == (5, -7) for unit in before)
        for at in range(4, 32):
            media.push(picture(at), at * LATE_NS // 2)
        assert [unit.packet.pts // (33 * MS) for unit in await drained(units, theirs)] == [30, 31]
        assert behind.left_out == 27
        assert 0 < told.keyframes <= 27 * LATE_NS // 2 // (500 * MS) + 1


async def test_each_frame_is_reported_once_by_whoever_is_first() -> None:
    told, one, two = Told(), process(), process()
    async with pipe() as (first, to_first), pipe() as (second, to_second):
        one._pipe, two._pipe = first, second
        media = source(told)
        media.open(one)
        media.open(two)
        for number in range(40):
            media.push(picture(number), number)
            await drained(first, to_first)
            await drained(second, to_second)
        for end in (one.sources[0], two.sources[0]):
            for pts in (39 * 33 * MS, 38 * 33 * MS, 0):
                end.sent(Sent(pts, 1, 2))
        assert told.frames == [39 * 33 * MS, 38 * 33 * MS], "the first is too long ago"


def asked(theirs: socket.socket) -> list[FanoutMessage]:
    """What the process has been told."""
    reader = MessageReader()
    return [FanoutMessage(frame.kind) for frame in reader.received(theirs.recv_into(reader.room()))]


async def test_who_offers_to_a_process_that_does_not_answer_waits_for_a_while_and_leaves_nothing_behind() -> None:
    async with pipe() as (ours, theirs):
        silent = process(answer_s=0.05)
        silent._pipe = ours
        place = Place(Standing.ANONYMOUS, None)
        with pytest.raises(Rejected, match="does not answer") as refusal:
            await silent.offer(ViewerOffer(b"v=0"), place)
        assert refusal.value.reason is Reason.OVERLOADED
        assert not silent.viewers
        assert not place.used
        assert asked(theirs) == [FanoutMessage.OFFER, FanoutMessage.CLOSE]


async def test_a_viewer_whose_process_does_not_answer_what_it_is_asked_is_ended() -> None:
    async with pipe() as (ours, theirs):
        silent = process(answer_s=0.05)
        silent._pipe = ours
        viewer = silent.viewers[7] = RemoteViewer(silent, 7, Place(Standing.ANONYMOUS, None))
        with pytest.raises(Rejected, match="does not answer"):
            await viewer.wish(None, Wish())
        assert viewer.leaving
        assert asked(theirs) == [FanoutMessage.WISH, FanoutMessage.CLOSE]
