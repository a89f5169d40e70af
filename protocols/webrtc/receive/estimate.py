"""How much the way from a publisher carries, for those who ask to be told by REMB alone. Sans-IO.

A sender with transport-wide feedback judges for itself and gets no figure of ours, which could only hold it down. What is kept true: the
figure begins generous, goes down on heavy loss or a filling queue only, and comes back by itself.
"""

START = 20_000_000  # bit/s
MOST = 50_000_000
LEAST = 100_000
WINDOW_NS = 1_000_000_000
_BASELINE = 10  # windows in which the shortest way was seen
_HIGH_LOSS = 26  # of 256: draft-ietf-rmcat-gcc-02 §6 decreases from 10 %
_QUEUEING_NS = 60_000_000
_DECREASE = (85, 100)
_INCREASE = (108, 100)


class BitrateEstimate:
    """`add` packets, `delay` frames; `judge` once in a window gives bit/s."""

    def __init__(self) -> None:
        self.bits_per_second = START
        self._bytes = 0
        self._begun = 0
        self._delay: int | None = None
        self._delays: list[int] = []

    def add(self, size: int) -> None:
        self._bytes += size

    def delay(self, way: int) -> None:
        """`way`: arrival minus media time of a frame (ns); only its changes count."""
        if self._delay is None or way < self._delay:
            self._delay = way

    def judge(self, fraction_lost: int, now: int) -> int:
        """`fraction_lost` is of 256."""
        elapsed = now - self._begun
        arrived = self._bytes * 8 * 1_000_000_000 // max(elapsed, 1)
        # The least of a window against the least of the last ones: a queue that stays full shows, a frame that came late does not.
        queueing = 0
        if self._delay is not None:
            queueing = self._delay - min(self._delays, default=self._delay)
            self._delays = [*self._delays[1 - _BASELINE :], self._delay]
        if self._begun and arrived and (fraction_lost > _HIGH_LOSS or queueing > _QUEUEING_NS):
            self.bits_per_second = min(self.bits_per_second, arrived * _DECREASE[0] // _DECREASE[1])
        else:
            self.bits_per_second = self.bits_per_second * _INCREASE[0] // _INCREASE[1]
        self.bits_per_second = max(LEAST, min(MOST, self.bits_per_second))
        self._bytes, self._begun, self._delay = 0, now, None
        return self.bits_per_second
