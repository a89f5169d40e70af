"""How much the way from a publisher carries, for those who ask to be told by REMB alone. Sans-IO.

A sender with transport-wide feedback judges for itself and gets no figure of ours, which could only hold it down. What is kept true: the
figure begins generous, goes down on heavy loss or a filling queue only, holds while a queue is there, and comes back by itself
(draft-ietf-rmcat-gcc-02 §5.5, §6).
"""

from collections import deque

from protocols.webrtc.receive.queueing import QueueWatch

START = 20_000_000  # bit/s
MOST = 50_000_000
LEAST = 100_000
FALL_NS = 500_000_000
"""From one fall for a filling queue to the next: before that the sender has not had the time to follow."""

_HIGH_LOSS = 26  # of 256: GCC §6 decreases from 10 %
_FULL_LOSS = 5  # and this much is enough where a queue is there, because it is full then
_GROWTH_NS = 10_000_000  # of a queue, from one second to the next: it fills so slowly that no span shows it
_DECREASE = (85, 100)
_INCREASE = (108, 100)
_RATE_SPANS = 2  # over which a queue grew: what came in them came through it
_RTP_BITS, _ABS_SEND_TIME_BITS = 32, 24
_ABS_SEND_TIME_RATE = 1 << 18
_ABS_SEND_TIME = -1  # the number of its clock; those of RTP have their SSRC's


class BitrateEstimate:
    """Add to `bytes` what comes and note the times of frames; `judge` once a second gives bit/s."""

    def __init__(self) -> None:
        self.bits_per_second = START
        self._queue = QueueWatch()
        self.bytes = 0
        """Of all packets so far."""
        self._delay = self._fell = 0
        self._begun = self._bytes_before = 0  # of the second that is judged next
        self._spans: deque[tuple[int, int]] = deque(maxlen=_RATE_SPANS + 1)  # (end of one, bytes until then)

    def note_timestamp(self, ssrc: int, rate: int, timestamp: int, now: int) -> bool:
        """When a frame left, as its RTP timestamp says at `rate`. Whether the figure has fallen, to be told at once."""
        return self._queue.note(ssrc, rate, _RTP_BITS, timestamp, now) and self._watch(now)

    def note_send_time(self, send_time: int, now: int) -> bool:
        """The same by the absolute send time (24 bits), which no encoder's or pacer's delay is in."""
        return self._queue.note(_ABS_SEND_TIME, _ABS_SEND_TIME_RATE, _ABS_SEND_TIME_BITS, send_time, now) and self._watch(now)

    def forget(self, ssrc: int) -> None:
        self._queue.forget(ssrc)

    def _watch(self, now: int) -> bool:
        self._spans.append((now, self.bytes))
        if not self._queue.filling or now - self._fell < FALL_NS:
            return False
        begun, before = self._spans[0]
        self._fall(self.bytes - before, now - begun, now)
        return True

    def _fall(self, size: int, elapsed: int, now: int) -> None:
        self._fell = now
        arrived = size * 8 * 1_000_000_000 // elapsed
        self.bits_per_second = max(LEAST, min(self.bits_per_second, arrived * _DECREASE[0] // _DECREASE[1]))

    def judge(self, fraction_lost: int, now: int) -> int:
        """`fraction_lost` is of 256."""
        queued, grown = self._queue.queued, self._queue.delay - self._delay
        self._delay = self._queue.delay
        lossy = fraction_lost > (_FULL_LOSS if queued else _HIGH_LOSS)
        came = self.bytes - self._bytes_before
        if self._begun and came and (lossy or (queued and grown > _GROWTH_NS)):
            self._fall(came, max(1, now - self._begun), now)
        elif not queued:
            self.bits_per_second = min(MOST, self.bits_per_second * _INCREASE[0] // _INCREASE[1])
        self._bytes_before, self._begun = self.bytes, now
        return self.bits_per_second
