"""The rate of a connection, from its count of bytes, and what is said of it."""

import asyncio

import pytest

from gateway.sessions.socket_watch import SocketRate, WatchPolicy, watched
from tests.support.memory import MemoryPublisher

SECOND = 1_000_000_000
WINDOW = WatchPolicy().window


def test_a_rate_is_told_once_the_window_is_nearly_full() -> None:
    rate = SocketRate(WINDOW)
    assert [rate.note(second * 125_000, second * SECOND) for second in range(8)] == [0] * 4 + [1_000_000] * 4


@pytest.mark.parametrize("every", [SECOND, SECOND // 3, 3 * SECOND])
def test_a_burst_after_a_stall_is_no_high_rate(every: int) -> None:
    rate = SocketRate(WINDOW)
    rates = []
    for now in range(0, 60 * SECOND, every):
        arrived = now if not 20 * SECOND <= now < 22 * SECOND else 20 * SECOND  # two seconds are held back
        rates.append(rate.note(arrived // 8000, now))
    assert max(rates) <= 1_700_000


def test_what_is_more_for_good_is_seen_in_five_seconds_and_what_is_over_forgotten() -> None:
    rate, total, rates = SocketRate(WINDOW), 0, []
    for second in range(40):
        total += 1_250_000 if 10 <= second < 20 else 125_000
        rates.append(rate.note(total, second * SECOND))
    assert max(rates[:10]) == 1_000_000
    assert rates[14] > 9_000_000
    assert rates[26] < 1_100_000
    assert len(rate._seen) < 10


@pytest.mark.parametrize(
    ("bytes_a_look", "limit", "excess"), [(1000, 1_000_000, False), (1 << 20, 1_000_000, True), (1 << 20, 0, False)]
)
async def test_who_sends_too_much_is_told_and_nobody_else(bytes_a_look: int, limit: int, excess: bool) -> None:
    publisher, said, seen = MemoryPublisher(), asyncio.Queue[str](), 0

    def on_look(received: int, now: int) -> None:
        nonlocal seen
        seen += 1
        publisher.stats.bytes_received = received + bytes_a_look
        if seen == 60:
            said.put_nowait("nothing for six windows")

    policy = WatchPolicy(window=100_000_000, every_s=0.01)
    async with asyncio.timeout(10), watched(publisher, policy, limit, said.put_nowait, on_look):
        assert ("Mbit/s, more than the 2.5 Mbit/s allowed here" in await said.get()) is excess
