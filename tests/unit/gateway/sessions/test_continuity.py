"""An encoder that falls silent, goes and comes back, as its seat is told."""

import asyncio
from time import monotonic_ns

from gateway.sessions.continuity import Continuity
from gateway.sessions.seat_state import Interruption, InterruptionCause, SeatChange
from protocols.publisher import Publisher
from tests.support.memory import H264, packet
from tests.support.waiting import eventually

STALLED, SLATE, RESUMED = SeatChange.STALLED, SeatChange.SLATE, SeatChange.RESUMED


class Told:
    """Who owns it, and what they were told, with the time of each (monotonic ns)."""

    def __init__(self) -> None:
        self.paused = self.stand_in = False
        self.asked = 0
        self.publisher: Publisher | None = None
        self.changes: list[SeatChange] = []
        self.times: list[int] = []
        self.last: Interruption | None = None
        self.continuity = Continuity(self)
        self._news = asyncio.Event()

    def stands_in(self) -> bool:
        self.asked += 1
        return self.stand_in

    def interrupted(self, interruption: Interruption, change: SeatChange) -> None:
        self.changes.append(change)
        self.times.append(monotonic_ns())
        self.last = interruption
        self._news.set()

    async def until(self, *changes: SeatChange) -> Interruption:
        async with asyncio.timeout(10):
            while self.changes != list(changes):
                self._news.clear()
                await self._news.wait()
        assert self.last is not None
        return self.last


def heard(told: Told, *at_ms: int) -> int:
    """The monotonic ns of the last packet."""
    arrival = 0
    for at in at_ms:
        frame = packet(1, at)
        told.continuity.heard(frame)
        arrival = frame.arrival
    return arrival


async def test_a_silent_connection_stalls_is_shown_to_be_away_and_goes_on() -> None:
    told = Told()
    told.continuity.expect((H264,))
    last = heard(told, 0, 40, 80)
    interruption = await told.until(STALLED)
    assert (interruption.cause, interruption.since) == (InterruptionCause.SILENT, last)
    assert told.times[0] - last >= 500_000_000
    await told.until(STALLED, SLATE)
    assert told.times[1] - last >= 1_500_000_000
    assert told.continuity.interruption is interruption
    back = heard(told, 3000)
    await told.until(STALLED, SLATE, RESUMED)
    assert interruption.gap >= back - last > 0
    assert told.continuity.interruption is None
    told.continuity.close()


async def test_a_closed_connection_is_shown_to_be_away_at_once_and_only_once() -> None:
    told = Told()
    last = heard(told, 0, 40)
    told.continuity.gone(replaced=False)
    interruption = await told.until(SLATE)
    assert (interruption.cause, interruption.since) == (InterruptionCause.CLOSED, last)
    told.continuity.gone(replaced=False)  # one that came and gave nothing
    heard(told, 0)
    await told.until(SLATE, RESUMED)
    told.continuity.close()


async def test_one_that_was_silent_and_closes_is_the_same_interruption() -> None:
    told = Told()
    heard(told, 0, 40)
    silent = await told.until(STALLED)
    told.continuity.gone(replaced=False)
    assert await told.until(STALLED, SLATE) is silent
    assert silent.cause is InterruptionCause.SILENT
    told.continuity.close()


async def test_of_one_that_takes_over_quickly_nothing_is_told() -> None:
    told = Told()
    last = heard(told, 0, 40)
    told.continuity.gone(replaced=True)
    told.continuity.expect((H264,))
    heard(told, 900_000)
    interruption = await told.until(STALLED)  # of the new one
    assert interruption.since > last
    told.continuity.close()


async def test_one_that_takes_over_slowly_is_waited_for_like_a_silent_one() -> None:
    told = Told()
    last = heard(told, 0, 40)
    told.continuity.gone(replaced=True)
    assert (await told.until(STALLED)).since == last
    await told.until(STALLED, SLATE)
    assert told.times[1] - last >= 1_500_000_000
    told.continuity.close()


async def test_an_encoder_that_we_do_not_read_is_not_silent() -> None:
    told = Told()
    told.paused = True
    heard(told, 0, 40)
    await longer_than_a_stall()
    assert told.changes == []
    told.paused = False
    await told.until(STALLED)
    told.continuity.close()


async def test_one_that_has_ended_is_not_silent_while_what_it_gave_is_still_on_its_way() -> None:
    told = Told()
    heard(told, 0, 40)
    told.continuity.ending()
    await longer_than_a_stall()
    assert told.changes == []
    told.continuity.gone(replaced=False)
    await told.until(SLATE)
    told.continuity.close()


async def longer_than_a_stall() -> None:
    later = asyncio.Event()
    asyncio.get_running_loop().call_later(0.8, later.set)
    await later.wait()


async def test_where_another_goes_on_in_its_place_a_silence_is_none() -> None:
    told = Told()
    told.stand_in = True
    told.continuity.expect((H264,))
    last = heard(told, 0, 40)

    async def asked() -> bool:
        return told.asked == 2

    await eventually(asked, within_s=10, every_s=0.01)
    assert monotonic_ns() - last > 900_000_000, "it is waited for as long as the one before"
    assert told.changes == []
    told.stand_in = False
    await told.until(STALLED)
    told.continuity.close()
