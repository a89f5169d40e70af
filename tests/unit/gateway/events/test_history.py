"""What late comers are given: the newest messages, within bounds."""

from datetime import UTC, datetime

from gateway.events.history import MAX_BYTES, MAX_MESSAGES, EventHistory
from gateway.model.events import Event, EventType

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def said(n: int, cid: str = "livestream:demo", text: str = "{}", kind: EventType = EventType.CUSTOM) -> Event:
    return Event(f"evt_{n}", kind, cid, n, NOW, {}, text)


def test_the_newest_are_kept_within_their_number_and_their_size() -> None:
    it = EventHistory()
    for n in range(MAX_MESSAGES + 5):
        it.hear(said(n))
    it.hear(said(999, kind=EventType.REACTION_NEW))
    assert [event.seq for event in it.of("livestream:demo")] == list(range(5, MAX_MESSAGES + 5))
    it.hear(said(100, text="x" * (MAX_BYTES - 10)))
    assert [event.seq for event in it.of("livestream:demo")][-1] == 100
    assert sum(len(event.text) for event in it.of("livestream:demo")) <= MAX_BYTES
    it.hear(said(101, text="x" * (MAX_BYTES + 1)))
    assert it.of("livestream:demo") == ()


def test_the_calls_that_were_silent_longest_are_forgotten_and_so_are_those_that_are_over() -> None:
    it = EventHistory(max_calls=2)
    for n, cid in enumerate(("a:1", "a:2", "a:1", "a:3")):
        it.hear(said(n, cid))
    assert [len(it.of(cid)) for cid in ("a:1", "a:2", "a:3")] == [2, 0, 1]
    for n, kind in enumerate((EventType.CALL_LIVE_STARTED, EventType.CALL_ENDED, EventType.CALL_DELETED)):
        it.hear(said(n, "a:1"))
        it.hear(said(n, "a:1", kind=kind))
        assert it.of("a:1") == ()
