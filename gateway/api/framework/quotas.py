"""How often one caller may ask the API, and how many calls they may make: token buckets by who it is, and by the address they come from.

Kept true: what is refused is told when to come again, before anything is looked up for it; a caller who is refused costs others of the same
address nothing.
"""

from collections.abc import Callable
from math import ceil
from time import monotonic_ns
from typing import Final

from gateway.access.credentials import Identity
from gateway.config.quotas import QuotasConfig
from protocols.addresses import client_network
from protocols.errors import Reason, Rejected
from protocols.rate_limit import RateLimit

_MANY: Final = 10  # users who stand behind a server, or behind one address
_AT_ONCE_S: Final = 10  # what comes at once is what would come in this time
_HOUR_S: Final = 3600


class QuotaExceeded(Rejected):
    """They may ask again in `wait_s` seconds."""

    def __init__(self, words: str, wait_s: float) -> None:
        wait_s = max(1, ceil(wait_s))
        super().__init__(Reason.TOO_MANY_REQUESTS, f"{words}: wait {wait_s} s", wait_s)


class Quotas:
    """Of one gateway. Times are monotonic ns."""

    def __init__(self, config: QuotasConfig, now: Callable[[], int] = monotonic_ns) -> None:
        self._now = now
        self._requests = _Buckets(config.requests_per_minute)
        self._lists = _Buckets(config.lists_per_minute)
        per_hour = config.calls_per_hour
        self._calls = RateLimit(per_hour / _HOUR_S, per_hour) if per_hour else None
        self.open_calls = config.open_calls
        """Of one user; 0: no limit."""

    def asked(self, identity: Identity, address: str, *, for_list: bool) -> None:
        """A request, perhaps for a list. Raises `QuotaExceeded`."""
        now = self._now()
        buckets = [self._requests, *([self._lists] if for_list else [])]
        if wait_s := max(each.wait_s(identity, address, now) for each in buckets):
            raise QuotaExceeded("too many requests for lists" if for_list else "too many requests", wait_s)
        for each in buckets:
            each.take(identity, address, now)

    def making_call(self, user_id: str) -> None:
        """The user creates a call. Raises `QuotaExceeded`."""
        now = self._now()
        if self._calls is not None and not self._calls.take(user_id, now):
            raise QuotaExceeded("you have created too many calls in the last hour", self._calls.wait_s(user_id, now))


class _Buckets:
    """So many a minute for a user, `_MANY` times as many for a server and for an address; 0: any number."""

    def __init__(self, per_minute: int) -> None:
        self._unbound = not per_minute
        one, many = per_minute / 60, per_minute / 60 * _MANY
        self._users = RateLimit(one, max(1, one * _AT_ONCE_S))
        self._servers = RateLimit(many, max(1, many * _AT_ONCE_S))
        self._addresses = RateLimit(many, max(1, many * _AT_ONCE_S))

    def wait_s(self, identity: Identity, address: str, now: int) -> float:
        return max((limit.wait_s(key, now) for limit, key in self._of(identity, address)), default=0.0)

    def take(self, identity: Identity, address: str, now: int) -> None:
        for limit, key in self._of(identity, address):
            limit.take(key, now)

    def _of(self, identity: Identity, address: str) -> list[tuple[RateLimit, str]]:
        """An application's server is not counted by its address: it is one caller, and known."""
        if self._unbound:
            return []
        if identity.server:
            return [(self._servers, identity.api_key)]
        counted = [(self._addresses, client_network(address))]
        return [(self._users, f"{identity.api_key} {identity.user_id}"), *counted] if identity.user_id else counted
