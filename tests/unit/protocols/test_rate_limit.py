"""Bursts, rates and waits, for one and for each key."""

from itertools import count

from protocols.rate_limit import SECOND, RateLimit, TokenBucket


def taken(bucket: TokenBucket, tries: int, now: int) -> int:
    return sum(bucket.take(now) for _ in range(tries))


def test_a_burst_is_taken_at_once_and_more_at_the_rate() -> None:
    bucket = TokenBucket(rate=2, burst=3)
    start = 1000 * SECOND
    assert taken(bucket, 10, start) == 3
    assert taken(bucket, 10, start + SECOND // 2) == 1
    assert taken(bucket, 10, start + 2 * SECOND) == 3
    assert taken(bucket, 10, start + 3600 * SECOND) == 3, "no more than a burst is saved up"


def test_the_wait_is_until_one_can_be_taken() -> None:
    bucket = TokenBucket(rate=0.5, burst=1)
    assert bucket.wait_s(0) == 0
    assert bucket.take(0)
    assert bucket.wait_s(0) == 2
    assert bucket.wait_s(SECOND) == 1
    assert bucket.wait_s(2 * SECOND) == 0
    assert bucket.take(2 * SECOND)


def test_who_tries_on_is_not_held_off_for_it() -> None:
    bucket = TokenBucket(rate=1, burst=1)
    times = [now for now in range(0, 10 * SECOND, SECOND // 10) if bucket.take(now)]
    assert times == [n * SECOND for n in range(10)]


def test_each_key_has_its_own() -> None:
    limit = RateLimit(rate=1, burst=2)
    assert [limit.take(key, 0) for key in "aaab"] == [True, True, False, True]
    assert (limit.wait_s("a", 0), limit.wait_s("b", 0), limit.wait_s("never seen", 0)) == (1, 0, 0)
    assert limit.take("a", SECOND)


def test_the_keys_used_longest_ago_are_forgotten() -> None:
    limit = RateLimit(rate=1, burst=1, most=2)
    now = count()
    assert [limit.take(key, next(now)) for key in "abacba"] == [True, True, False, True, True, True]


def test_what_was_done_already_is_made_up_for() -> None:
    bucket = TokenBucket(rate=10, burst=5)
    bucket.spend(25, 0)
    assert taken(bucket, 1, 2 * SECOND) == 0
    assert taken(bucket, 9, 2 * SECOND + SECOND // 5) == 2
    bucket.spend(-3, 2 * SECOND + SECOND // 5)
    assert taken(bucket, 9, 2 * SECOND + SECOND // 5) == 3
