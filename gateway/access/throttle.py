"""Slows who shows wrong credentials: an address may fail so and so often; then it is refused unseen until that has worn off. Sans-IO.

Kept true: one forgotten encoder that tries again and again with an old key does not lock out its neighbours behind the same address; the
table is bounded, and who pushes others out of it by using many addresses gains nothing but those addresses' own allowance.
Threads of SRT ask, too: each method is a few dictionary operations, which the interpreter makes atomic one by one.
"""

from ipaddress import IPv6Address, ip_address
from typing import Final

SECOND: Final = 1_000_000_000
_MAX_ADDRESSES: Final = 8192


class Throttle:
    """`per_minute` failures at once and in each minute; 0: any number. Times are monotonic nanoseconds."""

    def __init__(self, per_minute: int) -> None:
        self.refused = 0
        self._per_minute = per_minute
        self._spent: dict[str, tuple[float, int]] = {}  # address -> (failures not yet worn off, at), the oldest first

    def wait_s(self, address: str, now: int) -> int:
        """Whole seconds until the address is listened to again; 0: at once. A positive answer is counted as a refusal."""
        if self._per_minute == 0 or (place := _place(address)) not in self._spent:
            return 0
        over = self._left(place, now) - self._per_minute + 1
        if over <= 0:
            return 0
        self.refused += 1
        return max(1, round(over * 60 / self._per_minute))

    def failed(self, address: str, now: int) -> None:
        """It showed a credential that is none."""
        if self._per_minute == 0:
            return
        place = _place(address)
        spent = min(self._left(place, now) + 1, self._per_minute + 1)
        self._spent.pop(place, None)
        self._spent[place] = (spent, now)
        if len(self._spent) > _MAX_ADDRESSES:
            for oldest in list(self._spent)[: _MAX_ADDRESSES // 4]:
                self._spent.pop(oldest, None)

    def _left(self, place: str, now: int) -> float:
        failures, at = self._spent.get(place, (0.0, now))
        return max(0.0, failures - (now - at) / (60 * SECOND) * self._per_minute)


def host_of(remote: str) -> str:
    """The address of `address:port` and `[address]:port`; what has no port stays."""
    if remote.startswith("["):
        return remote[1:].partition("]")[0]
    return remote.rpartition(":")[0] if remote.count(":") == 1 else remote


def _place(address: str) -> str:
    """An IPv6 user has a whole /64 to himself (RFC 6177)."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address[:64]
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Address(int(parsed) >> 64 << 64))
