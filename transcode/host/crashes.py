"""Crashes that come too close together. Sans-IO."""

from collections import deque

from transcode.limits import WorkerLimits


class Crashes:
    """Of one process, or of one session's worker: more than `limits.restarts` within `limits.restart_window` s are too many."""

    def __init__(self, limits: WorkerLimits) -> None:
        self._limits = limits
        self._times: deque[float] = deque(maxlen=limits.restarts + 1)

    def too_many(self, now: float) -> bool:
        """Whether they are, with one more at `now` (s of any one clock)."""
        while self._times and now - self._times[0] > self._limits.restart_window:
            self._times.popleft()
        self._times.append(now)
        return len(self._times) > self._limits.restarts
