"""From when a publisher sent and when a viewer received: the delay of each frame between the two.

What ties them is media time. Video: the RTP time of a viewer's first frame belongs to one of the frames sent just before; it is the latest
for which no frame arrives before it was sent (the shortest delay of all is taken to be less than one frame's time). Audio: the sender
reports put both RTP clocks on one time line, as a player does.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

VIDEO_CLOCK, AUDIO_CLOCK = 90, 48  # per ms
_LONGEST = 2_000_000_000  # ns; a delay beyond is none
_ROUNDING_MS = 2
_CLOCK_SLACK = 200_000  # ns between this process's clocks

Instants = Sequence[tuple[int, int]]
"""(media time, monotonic ns) in order."""


@dataclass(frozen=True, slots=True)
class Window:
    """The time that is measured, monotonic ns."""

    begin: int
    end: int

    def of(self, instants: Instants) -> list[tuple[int, int]]:
        return [(time, at) for time, at in instants if self.begin <= at < self.end]


def video(sent: Instants, seen: Instants, window: Window) -> tuple[list[float], int]:
    """Delays in ms from the last byte of a frame sent to its last packet received; and the RTP time of media time 0.

    `sent` in ms, `seen` in units of the RTP clock. Raises `ValueError` where the two cannot be tied.
    """
    frames = window.of(seen)
    if not frames:
        raise ValueError("no frame was seen")
    first, arrival = frames[0]
    times = [time for time, _ in sent]
    for time, at in reversed(sent):
        if at > arrival:
            continue
        if arrival - at > _LONGEST:
            break
        zero = first - time * VIDEO_CLOCK
        delays = [_delay(sent, times, _since(rtp, zero) / VIDEO_CLOCK, received) for rtp, received in frames]
        known = [delay for delay in delays if delay is not None]
        if len(known) >= 0.9 * len(delays) and min(known) > -_CLOCK_SLACK:
            return [delay / 1e6 for delay in known], zero
    raise ValueError("what was seen is not what was sent")


def audio(
    sent: Instants, seen: Instants, zero: int, video_reports: Instants, audio_reports: Instants, window: Window
) -> list[float]:
    """Delays in ms from when the AAC frame was sent that holds the first sample of an Opus packet, to the arrival of that packet.

    Nothing is taken off, neither the 20 ms that an Opus packet waits for its last sample nor the frame's own 21 ms. `zero` is the RTP
    time of video at media time 0; reports are (NTP time, RTP time).
    """
    ntp, rtp = audio_reports[0]
    video_ntp, video_rtp = min(video_reports, key=lambda report: abs(report[0] - ntp))
    media = _since(video_rtp, zero) / VIDEO_CLOCK + (ntp - video_ntp) * 1000 / (1 << 32)
    audio_zero = rtp - round(media * AUDIO_CLOCK)
    times = [time for time, _ in sent]
    delays = []
    for stamp, received in window.of(seen):
        time = _since(stamp, audio_zero) / AUDIO_CLOCK
        index = bisect_right(times, time) - 1
        if 0 <= index < len(sent):
            delays.append((received - sent[index][1]) / 1e6)
    return delays


def quantile(values: Sequence[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def _delay(sent: Instants, times: Sequence[int], time: float, received: int) -> int | None:
    index = bisect_left(times, time - _ROUNDING_MS)
    if index == len(times) or times[index] > time + _ROUNDING_MS:
        return None
    return received - sent[index][1]


def _since(rtp: int, zero: int) -> int:
    """RTP time since `zero`, which may have been before a wrap (RFC 3550 §5.1: 32 bits)."""
    return (rtp - zero + (1 << 31)) % (1 << 32) - (1 << 31)
