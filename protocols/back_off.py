"""How long to wait before the next attempt at what has failed. Sans-IO."""

import random
from dataclasses import dataclass
from typing import Final

_MOST_DOUBLINGS: Final = 16
_JITTER: Final = 0.25  # of a wait: those who failed together do not all come back together


@dataclass(frozen=True, slots=True)
class BackOff:
    """Waits that double from `first_s` up to `longest_s`, each shortened by up to a quarter at random."""

    first_s: float
    longest_s: float

    def wait_s(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row, the first being 1."""
        wait = self.first_s * 2.0 ** min(failures - 1, _MOST_DOUBLINGS)
        return min(self.longest_s, wait) * random.uniform(1 - _JITTER, 1.0)
