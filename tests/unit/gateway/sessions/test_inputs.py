"""Primary and backup: several inputs on one seat, of which one is forwarded."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from time import monotonic_ns

import pytest

from gateway.sessions.input import Input
from gateway.sessions.seat import Seat
from gateway.sessions.seat_state import SeatChange, SeatState
from gateway.sessions.succession import Return, SwitchCause
from protocols.errors import ProtocolError, Rejected
from protocols.media import EncodedPacket, Kind, Lack, LeftOut, TracksChanged
from tests.support.memory import H264, MS, OPUS, MemoryCall, MemoryPublisher, seat_policy
from tests.support.waiting import eventually
from transcode.host.pool import Workers

FRAME_MS = 40
GROUP = 10  # frames


@dataclass
class Encoder:
    """A publisher with a picture of 25 frames a second, every tenth a key frame, and its sound; `name` is in each frame."""

    name: bytes
    publisher: MemoryPublisher = field(default_factory=MemoryPublisher)
    at_ms: int = 0  # on its own clock
    frames: int = 0
    sending: "asyncio.Task[None] | None" = None

    def begin(self) -> None:
        self.publisher.say(TracksChanged((H264, OPUS)))
        self.sending = asyncio.create_task(self._send())

    def silence(self) -> None:
        assert self.sending is not None
        self.sending.cancel()

    def go_on(self) -> None:
        self.sending = asyncio.create_task(self._send())

    def die(self) -> None:
        self.silence()
        self.publisher.say(ProtocolError("the connection was reset"))

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            now = monotonic_ns()
            time, keyframe = self.at_ms * MS, self.frames % GROUP == 0
            self.publisher.say(EncodedPacket(1, time, time, keyframe, self.name, now, now))
            self.publisher.say(EncodedPacket(2, time, time, True, self.name, now, now))
            self.at_ms += FRAME_MS
            self.frames += 1
            due += FRAME_MS / 1000
            await asyncio.sleep(due - loop.time())


@dataclass
class Running:
    seat: Seat
    call: MemoryCall
    told: list[tuple[SeatChange, object]] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, seat: Seat, change: SeatChange) -> None:
        self.told.append((change, seat.switch))
        self.news.set()

    async def until(self, like: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not like():
                self.news.clear()
                await self.news.wait()

    async def until_told(self, change: SeatChange, number: int = 1) -> None:
        await self.until(lambda: [each for each, _ in self.told].count(change) >= number)

    async def until_shown(self, name: bytes) -> int:
        """The first picture of this encoder after now, by its index in what the call was given."""
        video = await self.call.sink(Kind.VIDEO)
        before = len(video.packets)
        async with asyncio.timeout(20):
            while not any(packet.data == name for packet in video.packets[before:]):
                video.progress.clear()
                await video.progress.wait()
        return next(n for n, packet in enumerate(video.packets) if n >= before and packet.data == name)

    def input(self, rank: int) -> Input:
        return next(each for each in self.seat.inputs.connected if each.rank == rank)

    async def until_well(self, rank: int) -> None:
        async def well() -> bool:
            return self.input(rank).well_since(monotonic_ns()) is not None

        await eventually(well, within_s=10)


@asynccontextmanager
async def running(
    first: Encoder, rank: int = 1, *, returns: Return = Return.REVERT_AFTER, revert_after_s: float = 0.5, linger_s: float = 10
) -> AsyncIterator[Running]:
    call, told = MemoryCall(), list[Running]()
    policy = seat_policy(
        linger_s=linger_s,
        on_change=lambda seat, change: told[0].note(seat, change),
        return_to_primary=returns,
        revert_after_s=revert_after_s,
    )
    seat = Seat(first.publisher, "ada", "livestream:demo", [call], Workers(), policy, rank=rank)
    told.append(Running(seat, call))
    task = asyncio.create_task(seat.run())
    try:
        yield told[0]
    finally:
        seat.end("the test is over")
        async with asyncio.timeout(10):
            await task


@asynccontextmanager
async def both(**policy: object) -> AsyncIterator[tuple[Running, Encoder, Encoder]]:
    """A primary that is live, and a backup that stands by with a group under way."""
    primary, backup = Encoder(b"primary"), Encoder(b"backup", at_ms=3_600_000)
    async with running(primary, **policy) as it:  # type: ignore[arg-type]
        primary.begin()
        await it.until_told(SeatChange.STARTED)
        await it.seat.take_over(backup.publisher, 2)
        backup.begin()
        await it.until_well(2)
        await (await it.call.sink(Kind.VIDEO)).until(2 * GROUP + 5)
        try:
            yield it, primary, backup
        finally:
            for each in (primary, backup):
                each.silence()


def changes(it: Running, *kinds: SeatChange) -> list[SeatChange]:
    return [change for change, _ in it.told if change in kinds]


async def test_one_that_stands_by_is_read_and_gives_nothing_to_anybody() -> None:
    async with both() as (it, primary, backup):
        shown = {packet.data for sink in it.call.all for packet in sink.packets}
        assert shown == {b"primary"}
        assert backup.publisher.accepted.is_set()
        assert it.seat.publisher is primary.publisher
        assert it.input(2).pipeline is None


async def test_when_the_primary_breaks_off_the_backup_goes_on_at_once_and_media_time_runs_on() -> None:
    async with both() as (it, primary, _backup):
        video, sound = await it.call.sink(Kind.VIDEO), await it.call.sink(Kind.AUDIO)
        primary.die()
        first = await it.until_shown(b"backup")
        await video.until(first + 2 * GROUP)
        assert video.packets[first].keyframe
        times = [packet.dts for packet in video.packets]
        steps = [later - earlier for earlier, later in pairwise(times)]
        assert min(steps) > 0
        assert max(steps) < 200 * MS
        assert {packet.data for packet in video.packets[first:]} == {b"backup"}
        assert it.call.joined == 1
        assert len(it.call.all) == len(Kind), "there was never another track"
        assert changes(it, SeatChange.STALLED, SeatChange.SLATE) == []
        newest = video.packets[-1], sound.packets[-1]
        apart = (newest[0].dts - newest[0].arrival) - (newest[1].dts - newest[1].arrival)
        assert abs(apart) < 5 * MS, "both are moved by one offset"
        assert it.seat.switch == (1, 2, SwitchCause.CLOSED)
        assert it.seat.state is SeatState.LIVE
        assert it.seat.reconnects == 1


async def test_when_the_primary_falls_silent_the_backup_goes_on_before_viewers_are_told_of_anything() -> None:
    async with both() as (it, primary, _backup):
        primary.silence()
        await it.until_shown(b"backup")
        await it.until_told(SeatChange.SWITCHED)
        assert it.seat.switch == (1, 2, SwitchCause.SILENT)
        assert changes(it, SeatChange.STALLED, SeatChange.SLATE) == []
        assert not primary.publisher.closed.is_set(), "it may be well again"
        primary.go_on()
        await it.until_shown(b"primary")
        await it.until_told(SeatChange.SWITCHED, 2)
        assert it.seat.switch == (2, 1, SwitchCause.RETURNED)


async def test_one_that_comes_back_has_its_place_again_once_it_is_well_for_long_enough() -> None:
    async with both() as (it, primary, backup):
        primary.die()
        await it.until_shown(b"backup")
        again = Encoder(b"again")
        await it.seat.take_over(again.publisher, 1)
        begun = asyncio.get_running_loop().time()
        again.begin()
        await it.until_shown(b"again")
        assert asyncio.get_running_loop().time() - begun >= 0.5
        assert not backup.publisher.closed.is_set()
        assert it.input(2).well_since(monotonic_ns()) is not None
        again.silence()


@pytest.mark.parametrize("returns", [Return.STICKY, Return.MANUAL])
async def test_where_it_does_not_return_by_itself_somebody_switches(returns: Return) -> None:
    async with both(returns=returns, revert_after_s=0) as (it, primary, backup):
        primary.silence()
        await it.until_shown(b"backup")
        primary.go_on()
        await it.until_well(1)
        video = await it.call.sink(Kind.VIDEO)
        await video.until(len(video.packets) + GROUP)
        assert it.seat.publisher is backup.publisher
        it.seat.inputs.switch(None)
        await it.until_shown(b"primary")
        await it.until_told(SeatChange.SWITCHED, 2)
        assert it.seat.switch == (2, 1, SwitchCause.MANUAL)


async def test_who_is_chosen_by_hand_stays_and_is_left_when_it_is_down() -> None:
    async with both(revert_after_s=0) as (it, _primary, backup):
        it.seat.inputs.switch(2)
        await it.until_shown(b"backup")
        video = await it.call.sink(Kind.VIDEO)
        await video.until(len(video.packets) + GROUP)
        assert it.seat.publisher is backup.publisher
        backup.die()
        await it.until_shown(b"primary")
        with pytest.raises(Rejected, match="an encoder with a key of rank 2 is not connected"):
            it.seat.inputs.switch(2)


async def test_what_is_wrong_with_one_that_stands_by_touches_nobody() -> None:
    class Broken(MemoryPublisher):
        async def __aiter__(self) -> AsyncIterator[TracksChanged | EncodedPacket | LeftOut]:
            yield LeftOut(Lack.CODEC, Kind.AUDIO, "The audio is MP2: choose AAC.")
            raise ZeroDivisionError

    async with both() as (it, _primary, backup):
        broken = Broken()
        await it.seat.take_over(broken, 3)
        async with asyncio.timeout(10):
            await broken.closed.wait()
        backup.die()
        async with asyncio.timeout(10):
            await backup.publisher.closed.wait()
        video = await it.call.sink(Kind.VIDEO)
        await video.until(len(video.packets) + GROUP)
        assert it.seat.state is SeatState.LIVE
        assert it.seat.left_out == []
        assert [change for change, _ in it.told] == [SeatChange.JOINED, SeatChange.STARTED]


async def test_one_that_stands_by_and_sends_faster_than_real_time_is_slowed() -> None:
    async with both() as (it, _primary, _backup):
        fast, now = MemoryPublisher(), monotonic_ns()
        await it.seat.take_over(fast, 3)
        fast.say(TracksChanged((H264,)))
        fast.say(*(EncodedPacket(1, n * 40 * MS, n * 40 * MS, n % 10 == 0, b"fast", now, now) for n in range(10_000)))
        video = await it.call.sink(Kind.VIDEO)
        await video.until(len(video.packets) + GROUP)
        assert fast.paused
        assert fast._items.qsize() > 9_900


async def test_one_that_makes_key_frames_on_request_alone_is_asked_for_one_once_it_has_none_to_go_on_with() -> None:
    async with both() as (it, _, backup):
        asked = backup.publisher.keyframe_requests
        backup.frames = GROUP + 1  # in mid-group
        it.input(2)._standby.take()
        video = await it.call.sink(Kind.VIDEO)
        await video.until(len(video.packets) + GROUP // 2)
        assert backup.publisher.keyframe_requests == asked + 1


async def test_one_that_takes_the_place_of_one_that_stands_by_leaves_the_live_one_alone() -> None:
    async with both() as (it, primary, backup):
        other = Encoder(b"other")
        await it.seat.take_over(other.publisher, 2)
        other.begin()
        async with asyncio.timeout(10):
            await backup.publisher.closed.wait()
        assert backup.publisher.why == "another encoder with the same key took over"
        await it.until_well(2)
        primary.die()
        await it.until_shown(b"other")
        other.silence()


async def test_where_there_is_one_place_for_all_ranks_who_comes_replaces_who_is_there() -> None:
    primary, worse = Encoder(b"better"), Encoder(b"worse")
    async with running(worse, 2) as it:
        worse.begin()
        await it.until_shown(b"worse")
        await it.seat.take_over(primary.publisher, 1, alone=True)
        primary.begin()
        await it.until_shown(b"better")
        assert worse.publisher.why == "an encoder with a key of a better rank took over"
        assert [each.rank for each in it.seat.inputs.connected] == [1]
        assert changes(it, SeatChange.TAKEN_OVER, SeatChange.SWITCHED) == [SeatChange.TAKEN_OVER]
        worse.silence()
        primary.silence()


async def test_credentials_that_end_end_their_own_encoder_and_the_last_one_the_seat() -> None:
    async with both() as (it, primary, backup):
        it.seat.inputs.end_rank(1, "the key was revoked")
        await it.until_shown(b"backup")
        assert primary.publisher.why == "the key was revoked"
        it.seat.inputs.end_rank(2, "the key was revoked")
        async with asyncio.timeout(10):
            await backup.publisher.closed.wait()
            await it.call.left.wait()


async def test_the_end_of_a_seat_is_the_end_of_all_of_its_inputs() -> None:
    async with both() as (it, primary, backup):
        it.seat.end("the call's host has taken you out of it")
        async with asyncio.timeout(10):
            await primary.publisher.closed.wait()
            await backup.publisher.closed.wait()
        assert {primary.publisher.why, backup.publisher.why} == {"the call's host has taken you out of it"}
        with pytest.raises(Rejected):
            await it.seat.take_over(MemoryPublisher(), 3)


async def test_a_backup_that_comes_while_nothing_comes_of_the_primary_ends_the_interruption() -> None:
    primary, backup = Encoder(b"primary"), Encoder(b"backup")
    async with running(primary) as it:
        primary.begin()
        await it.until_shown(b"primary")
        primary.silence()
        await it.until_told(SeatChange.STALLED)
        await it.seat.take_over(backup.publisher, 2)
        backup.begin()
        await it.until_told(SeatChange.RESUMED)
        assert it.seat.publisher is backup.publisher
        backup.silence()


async def test_where_the_primary_never_came_into_the_call_the_backup_does() -> None:
    primary, backup = Encoder(b"primary"), Encoder(b"backup")
    async with running(primary) as it:
        await it.seat.take_over(backup.publisher, 2)
        backup.begin()
        video = await it.call.sink(Kind.VIDEO)
        await video.until(GROUP)
        assert video.packets[0].keyframe
        assert video.packets[0].dts == 0
        backup.silence()


async def test_to_and_fro_ends_after_four_changes() -> None:
    async with both(revert_after_s=0) as (it, primary, backup):
        for number in (1, 3):
            primary.silence()
            await it.until_told(SeatChange.SWITCHED, number)
            primary.go_on()
            if number == 1:
                await it.until_told(SeatChange.SWITCHED, 2)
        await it.until_told(SeatChange.SWITCHED, 4)
        assert it.seat.inputs.held(monotonic_ns())
        primary.silence()
        await it.until_told(SeatChange.SWITCHED, 5)
        assert it.seat.publisher is backup.publisher, "who is down goes all the same"
        primary.go_on()
        await it.until_well(1)
        video = await it.call.sink(Kind.VIDEO)
        await video.until(len(video.packets) + GROUP)
        assert it.seat.publisher is backup.publisher
