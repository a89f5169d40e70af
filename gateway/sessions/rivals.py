"""Two encoders with one key: who may take a seat over from whom. Sans-IO.

An encoder that was replaced connects again and replaces the other one in its turn, for ever. Kept true: who was replaced just now by one
that still sends is refused, so that encoders which heed that stop; where they go on, one of them stays after two changes (`Latch`). One
from which nothing comes any more is in nobody's way: it may be the old connection of the very one that comes back.

Nothing that is kept here rests on who was refused: with SRT that may be somebody who knows a name and no passphrase.
"""

from collections import deque
from typing import Final

from protocols.addresses import host_of
from protocols.errors import Reason, Rejected
from protocols.publisher import Publisher

SILENT: Final = 2_000_000_000  # ns without a byte, after which even who must not be replaced is
LIVELY: Final = 1_000_000_000  # ns within which something comes of every stream: who comes back after a crash needs no less
REPLACED: Final = 10_000_000_000  # ns for which who was replaced is refused
LATCHED: Final = 600_000_000_000  # ns in which two changes are enough, and for which there is no third
TOLD: Final = 60_000_000_000  # ns for which the streamer sees that there was another one

_WHAT_TO_DO: Final = "stop one of them, or give each a key of its own"


class Latch:
    """Against going to and fro: so many changes `within` ns, and what is newest stays for `held` ns."""

    def __init__(self, changes: int, within: int, held: int) -> None:
        self._within = within
        self._held = held
        self._changes: deque[int] = deque(maxlen=changes)

    def note(self, now: int) -> bool:
        """There was a change. True: with it the newest stays."""
        self._changes.append(now)
        return self.holds(now)

    def holds(self, now: int) -> bool:
        """There is to be no further change."""
        return now < self.until

    @property
    def until(self) -> int:
        """Until when the newest stays; 0: it need not."""
        changes = self._changes
        if len(changes) == changes.maxlen and changes[-1] - changes[0] < self._within:
            return changes[-1] + self._held
        return 0


class Rivals:
    """Of one seat. All times in monotonic ns; `now` at first: its first encoder has just come."""

    def __init__(self, now: int) -> None:
        self._bytes = 0  # received from the present encoder, as far as known
        self._heard = now
        self._replaced: dict[str, int] = {}  # hosts of who was replaced while they sent, and when
        self._latch = Latch(2, LATCHED, LATCHED)
        self._contested: int | None = None

    def note(self, received: int, now: int) -> None:
        """The present encoder has sent `received` bytes until now."""
        if received != self._bytes:
            self._bytes, self._heard = received, now

    def sends(self, present: Publisher | None, now: int, within: int) -> bool:
        """Whether anything has come from it in so many ns. One that waits for its turn (None) has just come."""
        if present is not None:
            self.note(present.stats.bytes_received, now)
        return now - self._heard < within

    def check(self, host: str, now: int) -> None:
        """Whether an encoder from `host` may take over from one that sends. Raises `Rejected` (CONFLICT)."""
        if now - self._replaced.get(host, now - REPLACED) < REPLACED:
            raise self.refusal(f"another encoder is live with this key and has just replaced this one: {_WHAT_TO_DO}", now)
        if self._latch.holds(now):
            raise self.refusal(
                f"another encoder is live with this key, and the two have replaced each other: {_WHAT_TO_DO}", now
            )

    def refusal(self, words: str, now: int) -> Rejected:
        """For another encoder that wants to send; the present one's streamer is told of it, too."""
        self._contested = now
        return Rejected(Reason.CONFLICT, words)

    def taken_over(self, present: Publisher | None, now: int) -> bool:
        """Another encoder comes in place of `present`, or of none. One that has not sent a byte yet was no rival. True: it is the last one
        that may for a while."""
        holds = False
        if present is not None and self.sends(present, now, LIVELY) and self._bytes:
            self._replaced = {host: at for host, at in self._replaced.items() if now - at < REPLACED}
            self._replaced[host_of(present.remote)] = now
            holds = self._latch.note(now)
            self._contested = now
        self._bytes, self._heard = 0, now
        return holds

    def advice(self, now: int) -> str:
        """What to change while two encoders want to send; empty while there is one."""
        if self._contested is None or now - self._contested >= TOLD:
            return ""
        return f"Two encoders send with the same key, the other one {(now - self._contested) / 1e9:.0f} s ago: {_WHAT_TO_DO}."
