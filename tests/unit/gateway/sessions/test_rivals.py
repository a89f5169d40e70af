"""Who may take over a seat from whom."""

import pytest

from gateway.sessions.rivals import LATCHED, LIVELY, REPLACED, SILENT, TOLD, Latch, Rivals
from protocols.errors import Reason, Rejected
from tests.support.memory import MemoryPublisher

S = 1_000_000_000
WORDS = "another encoder is live with this key"


class Sender(MemoryPublisher):
    """An encoder at `host` that sends for as long as it is asked about."""

    def __init__(self, host: str) -> None:
        super().__init__()
        self.remote = f"{host}:4711"
        self.host = host

    def go_on(self) -> "Sender":
        self.stats.bytes_received += 1000
        return self


def refused(rivals: Rivals, host: str, now: int) -> Rejected | None:
    try:
        rivals.check(host, now)
    except Rejected as refusal:
        return refusal
    return None


def let_in(rivals: Rivals, present: Sender, other: Sender, now: int) -> bool:
    """Whether `other` comes in place of `present`, who still sends."""
    present.go_on()
    assert rivals.sends(present, now, LIVELY)
    refusal = refused(rivals, other.host, now)
    if refusal is not None:
        assert refusal.reason is Reason.CONFLICT
        assert refusal.detail.startswith(WORDS)
        return False
    rivals.taken_over(present, now)
    return True


def test_who_was_replaced_by_one_that_sends_is_refused_for_ten_seconds() -> None:
    rivals, first, second, third = Rivals(0), Sender("192.0.2.1"), Sender("192.0.2.2"), Sender("192.0.2.3")
    assert let_in(rivals, first, second, 5 * S)
    assert not let_in(rivals, second, first, 7 * S)
    assert not let_in(rivals, second, first, 5 * S + REPLACED - 1)
    assert let_in(rivals, second, third, 5 * S + REPLACED - 1)


@pytest.mark.parametrize("every", [S // 30, 2 * S, 11 * S, 60 * S])
def test_of_two_that_never_give_up_one_stays_after_two_changes(every: int) -> None:
    rivals, here, other, changes = Rivals(0), Sender("192.0.2.1"), Sender("192.0.2.2"), 0
    for n in range(1, LATCHED // every):
        if let_in(rivals, here, other, n * every):
            here, other, changes = other, here, changes + 1
    assert changes == 2


def test_two_on_one_machine_are_two() -> None:
    rivals, first, second = Rivals(0), Sender("127.0.0.1"), Sender("127.0.0.1")
    assert let_in(rivals, first, second, S)
    assert not let_in(rivals, second, first, 3 * S)


def test_an_encoder_that_comes_back_behind_its_own_broken_connection_is_never_kept_out() -> None:
    rivals, encoder, now = Rivals(0), Sender("192.0.2.1"), 0
    for _ in range(20):
        rivals.note(encoder.go_on().stats.bytes_received, now)
        now += SILENT
        assert not rivals.sends(encoder, now, SILENT)
        rivals.taken_over(encoder, now)
        encoder = Sender("192.0.2.1")
        rivals.check("192.0.2.1", now)
    assert rivals.advice(now) == ""


def test_one_that_never_sent_a_byte_was_no_rival() -> None:
    rivals = Rivals(0)
    for second in range(20):
        rivals.check("192.0.2.1", second * S // 10)
        rivals.taken_over(Sender("192.0.2.1"), second * S // 10)
    assert rivals.advice(2 * S) == ""


def test_silence_begins_with_the_last_byte_and_not_with_the_last_look() -> None:
    rivals, encoder = Rivals(0), Sender("192.0.2.1").go_on()
    rivals.note(encoder.stats.bytes_received, S)
    for now in range(S, 5 * S, S // 10):
        assert rivals.sends(encoder, now, SILENT) is (now < S + SILENT)


def test_the_streamer_is_told_what_to_do_for_a_while() -> None:
    rivals, first, second = Rivals(0), Sender("192.0.2.1"), Sender("192.0.2.2")
    assert rivals.advice(0) == ""
    assert let_in(rivals, first, second, 5 * S)
    assert rivals.advice(8 * S).startswith("Two encoders send with the same key, the other one 3 s ago: stop one of them")
    assert not let_in(rivals, second, first, 9 * S)
    assert rivals.advice(9 * S + TOLD - 1) != ""
    assert rivals.advice(9 * S + TOLD) == ""


def test_a_latch_holds_after_so_many_changes_in_so_little_time_and_no_longer_than_said() -> None:
    latch = Latch(3, 10 * S, 60 * S)
    assert [latch.note(at * S) for at in (0, 6, 12)] == [False, False, False]
    assert latch.note(15 * S)
    assert latch.until == 75 * S
    assert latch.holds(75 * S - 1)
    assert not latch.holds(75 * S)
