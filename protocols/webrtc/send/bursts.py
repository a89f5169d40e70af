"""How fast one viewer's way carries what leaves at once, as transport-wide feedback shows it. Sans-IO.

Packets that left together arrive as far apart as the narrowest part of the way carries them. (The estimate of `bandwidth.py` cannot tell:
it knows no more than half again of what is sent.) What is kept true: the slower quarter of what was seen lately counts, so that a viewer
who reads many packets at once seems no faster than it is; and who has lost anything lately has no rate, because a way that polices what
it carries, or our own, shows a burst that is too much by that alone.
"""

from collections import deque
from collections.abc import Iterable

from protocols.rate_limit import SECOND
from protocols.webrtc.rtcp import ARRIVAL_NS
from protocols.webrtc.send.bandwidth import Heard

DISTRUST_NS = 30_000_000_000
"""After a loss: of a way that carries no burst at once one key frame in this time is thinned by it."""
_AT_ONCE = 1_000_000_000  # bit/s: what comes in one tick
_TRAIN = 4  # packets that left together, at least
_SEEN = 32  # such trains
_ENOUGH = 8
_SLOWER = 4  # one in so many


class BurstRate:
    """Of one viewer. Feed it feedback."""

    def __init__(self) -> None:
        self._rates: deque[int] = deque(maxlen=_SEEN)  # bit/s
        self._distrusted = 0  # until then, monotonic ns

    def add(self, heard: Iterable[Heard], now: int) -> None:
        """`now` is monotonic ns."""
        for _, arrivals, lost, size in heard:
            if lost:
                self._distrusted = now + DISTRUST_NS
            elif len(arrivals) >= _TRAIN:
                apart = arrivals[-1] - arrivals[0]
                bits = size * (len(arrivals) - 1) * 8
                # One more than the clock of feedback has ticked: no more is believed than is seen.
                self._rates.append(bits * SECOND // ((apart + 1) * ARRIVAL_NS) if apart > 0 else _AT_ONCE)

    def at(self, now: int) -> int | None:
        """bit/s; None: not known, or not to be relied on."""
        if now < self._distrusted or len(self._rates) < _ENOUGH:
            return None
        return sorted(self._rates)[len(self._rates) // _SLOWER]
