"""What bitrate one source should have, so that the ways of its viewers carry it. Sans-IO.

The rule: all viewers of a source get the same packets, so the narrowest way decides, within bounds. A picture has at least
`LEAST_PER_PIXEL`, whatever the way: one viewer takes no more from the others than that. A way that does not carry half of even this would
gain nothing from what the others lose, and does not count: its viewer gets what arrives, as if nothing were adapted. While the encoder is
bound, that is so only after `UNBIND_NS`: a moment in which little arrived must not open it. What is kept true: the
figure is told when it has changed noticeably, and again every `RENEWAL_NS` while it binds, for an encoder that began anew.
"""

from collections.abc import Iterable

INTERVAL_NS = 500_000_000
RENEWAL_NS = 5_000_000_000
UNBIND_NS = 5_000_000_000
UNBOUND = 1_000_000_000
"""bit/s: what is told when no viewer's way is too narrow any more."""
LEAST = 50_000  # bit/s
LEAST_PER_PIXEL = 0.2  # bit/s: 180 kbit/s for 1280x720
_NOTICEABLE = 10  # one part in so many


class TargetBitrate:
    """Of one source. Ask `judge` every `INTERVAL_NS`."""

    def __init__(self) -> None:
        self._told = UNBOUND
        self._told_at = 0
        self._too_little: int | None = None  # since when a way carries too little to count

    def judge(self, carried: Iterable[int], area: int, now: int) -> int | None:
        """What to tell the encoder, in bit/s; None: nothing new. `carried`: what each way that is too narrow has for this source, in bit/s;
        `area` in pixels; `now` in monotonic ns."""
        floor = max(LEAST, int(area * LEAST_PER_PIXEL))
        ways = list(carried)
        too_little = any(each < floor // 2 for each in ways)
        if not too_little:
            self._too_little = None
        elif self._too_little is None:
            self._too_little = now
        still_bound = self._too_little is not None and self._told != UNBOUND and now - self._too_little < UNBIND_NS
        target = min((max(each, floor) for each in ways if still_bound or each >= floor // 2), default=UNBOUND)
        renewed = target != UNBOUND and now - self._told_at >= RENEWAL_NS
        if abs(target - self._told) * _NOTICEABLE < self._told and not renewed:
            return None
        if target == self._told == UNBOUND:
            return None
        self._told, self._told_at = target, now
        return target
