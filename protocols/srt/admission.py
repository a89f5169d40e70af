"""Who may go through the handshake: the rate of each address, and what is reserved between the listen callback and the accept. Sans-IO.

The callback never learns that a passphrase was wrong (libsrt compares it afterwards, and ends the socket): a reservation whose socket has
ended, or that nobody takes up within 10 s, is counted as a failed authentication. It keeps nobody else out, or whoever knows a stream's
name could block it with wrong passphrases.

Nothing is received on a port while one of its callers is decided on, so there is also a bound on how long that may take (`LookUpBudget`).

A caller repeats its handshake four times a second until it is answered. What repeats a handshake that was refused is refused as well: its
caller has been told so and gone, and nobody would send on the connection that was made of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from protocols.addresses import client_network
from protocols.bounded_map import BoundedMap
from protocols.errors import Reason, Rejected
from protocols.rate_limit import RateLimit
from protocols.srt.address import Address
from protocols.srt.streamid import StreamId

_MOST_REFUSED: Final = 1024  # handshakes that are remembered; each is of an address that was proven (SYN cookie)


@dataclass(frozen=True, slots=True, repr=False)
class Access:
    """What a caller needs to publish: an AES passphrase of 10..79 bytes (its length of key is the caller's), and the stream's settings.

    `user` is whom the passphrase proves: a connected caller has it, so the name is then more than a claim.
    """

    passphrase: str | None = None
    user: str | None = None
    latency_ms: int | None = None

    def __post_init__(self) -> None:
        if self.passphrase is not None and not 10 <= len(self.passphrase.encode()) <= 79:
            raise ValueError("an SRT passphrase has 10 to 79 bytes")
        if self.user is not None and self.passphrase is None:
            raise ValueError("nothing proves a user without a passphrase")


@dataclass(frozen=True, slots=True, repr=False)
class Reservation:
    """A caller that passed the listen callback and is not yet accepted."""

    stream: StreamId
    access: Access
    address: Address
    made_at: int  # ns


@dataclass(frozen=True, slots=True, repr=False)
class Handshake:
    """What a handshake and its repetitions have in common, and two callers have not: a caller has a port of its own."""

    address: Address
    raw: bytes  # the stream id
    mapped: str = ""  # the key of the port that was called


class CallerAdmission:
    """`rate` calls a second from one address after `burst` at once; `expiry_ns` and `max_pending` bound the reservations; a refusal holds
    for what comes of the same handshake within `repeated_ns`."""

    def __init__(self, rate: float, burst: int, expiry_ns: int, max_pending: int, repeated_ns: int) -> None:
        self.expired = 0  # or broken off
        self._calls = RateLimit(rate, burst)
        self._expiry = expiry_ns
        self._max_pending = max_pending
        self._reserved: dict[int, Reservation] = {}
        self._repeated_ns = repeated_ns
        self._refused: BoundedMap[Handshake, tuple[Reason, int]] = BoundedMap(_MOST_REFUSED)  # and until when

    def __len__(self) -> int:
        return len(self._reserved)

    def check_rate(self, host: str, now: int) -> None:
        """Count a call; raises `Rejected` if there were too many."""
        if not self._calls.take(client_network(host), now):
            raise Rejected(Reason.TOO_MANY_REQUESTS, "too many calls from this address: wait before the next")

    def refuse(self, handshake: Handshake, reason: Reason, now: int) -> None:
        self._refused[handshake] = reason, now + self._repeated_ns

    def refused(self, handshake: Handshake, now: int) -> Reason | None:
        """Why, if this repeats a handshake that was refused."""
        reason, until = self._refused.get(handshake, (None, 0))
        return reason if now < until else None

    def reserve(self, socket: int, reservation: Reservation) -> None:
        if len(self._reserved) >= self._max_pending:
            raise Rejected(Reason.OVERLOADED, "too many handshakes at once")
        self._reserved[socket] = reservation

    def take(self, socket: int) -> Reservation | None:
        return self._reserved.pop(socket, None)

    def expire(self, now: int) -> Sequence[Reservation]:
        """Forget reservations that were not taken up in time, and return them."""
        return self._forget(lambda _, reservation: now - reservation.made_at > self._expiry)

    def break_off(self, over: Callable[[int], bool]) -> Sequence[Reservation]:
        """Forget reservations whose socket is `over`, and return them."""
        return self._forget(lambda socket, _: over(socket))

    def _forget(self, gone: Callable[[int, Reservation], bool]) -> Sequence[Reservation]:
        sockets = [socket for socket, reservation in self._reserved.items() if gone(socket, reservation)]
        self.expired += len(sockets)
        return [self._reserved.pop(socket) for socket in sockets]


class LookUpBudget:
    """How long a port may be kept waiting for an answer that must be looked up: `longest_ns`, and a `share` of all time."""

    def __init__(self, longest_ns: int, share: float) -> None:
        self._longest = longest_ns
        self._pause = 1 / share - 1  # per ns of waiting
        self._again_at = 0

    def left(self, now: int) -> int:
        """Ns; 0: whoever must be looked up has to come again."""
        return self._longest if now >= self._again_at else 0

    def spent(self, since: int, now: int) -> None:
        """A port was kept waiting."""
        self._again_at = now + round((now - since) * self._pause)
