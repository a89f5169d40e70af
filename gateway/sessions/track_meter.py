"""What a streamer's encoder is doing, measured from its packets, and what to change there. Sans-IO.

One `TrackMeter` per track counts what comes in; the sentences that it makes of the figures name the setting.
"""

from collections import deque

from protocols.media import EncodedPacket, Kind

WINDOW = 5_000_000_000  # ns over which rates are measured
LONG_GOP = 4_500_000_000
LONG_WAIT = 4_200_000_000  # without a key frame: a little more than an interval that gives no advice for itself
STALLED = 5_000_000_000


class TrackMeter:
    """Rates of one track over the last seconds of arrival: bits per second, frames per second, key-frame interval in ns."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.packets = 0
        self.bytes = 0
        self.keyframe_interval = 0
        self.begun = 0
        """When the first packet came, monotonic ns, once there are `packets`."""
        self.last_arrival = 0
        self.jitter = 0
        """ns by which frames come unevenly: RFC 3550 §6.4.1, of whole frames."""
        self._last_dts = 0
        self._window: deque[tuple[int, int]] = deque(maxlen=4096)
        self._window_bytes = 0
        self._last_keyframe: int | None = None
        self._last_keyframe_arrival = 0

    def count(self, packet: EncodedPacket) -> None:
        size = len(packet.data)
        if self.packets:
            drift = abs((packet.arrival - self.last_arrival) - (packet.dts - self._last_dts))
            self.jitter += (drift - self.jitter) // 16
        else:
            self.begun = packet.arrival
        self._last_dts = packet.dts
        self.packets += 1
        self.bytes += size
        self.last_arrival = packet.arrival
        window = self._window
        if len(window) == window.maxlen:
            self._window_bytes -= window.popleft()[1]
        window.append((packet.arrival, size))
        self._window_bytes += size
        while packet.arrival - window[0][0] > WINDOW:
            self._window_bytes -= window.popleft()[1]
        if packet.keyframe and self.kind is Kind.VIDEO:
            if self._last_keyframe is not None:
                self.keyframe_interval = packet.dts - self._last_keyframe
            self._last_keyframe, self._last_keyframe_arrival = packet.dts, packet.arrival

    def _span(self) -> float:
        """Seconds that the window covers; at least half a second, so that a start does not show absurd rates."""
        return max(0.5, (self._window[-1][0] - self._window[0][0]) / 1e9) if self._window else 0.5

    @property
    def bitrate(self) -> int:
        return int(self._window_bytes * 8 / self._span())

    @property
    def sustained_bitrate(self) -> int:
        """The bit rate once the window is nearly full: a burst after a stall is no high rate. 0 before."""
        full = self._window and self._window[-1][0] - self._window[0][0] > 0.8 * WINDOW
        return self.bitrate if full else 0

    @property
    def frame_rate(self) -> float:
        return round(max(0, len(self._window) - 1) / self._span(), 2)

    @property
    def keyframe_advice(self) -> str:
        """What to set where key frames are far apart; empty where they are not."""
        if self.kind is not Kind.VIDEO or self.keyframe_interval <= LONG_GOP:
            return ""
        seconds = self.keyframe_interval / 1e9
        return f"Key frames come every {seconds:.1f} s: set the keyframe interval to 2 s, so that viewers join and recover at once."

    def keyframe_wait_advice(self, now: int) -> str:
        """What to set while no key frame comes (`now` in monotonic ns), known or not how far they are apart; empty where they come."""
        waited = now - max(self.begun, self._last_keyframe_arrival)
        coming = self.kind is Kind.VIDEO and self.packets and now - self.last_arrival <= STALLED
        if not coming or waited <= LONG_WAIT:
            return ""
        return (
            f"No key frame has come for {waited // 1_000_000_000} s so far: set the keyframe interval to 2 s, so that viewers join and "
            "recover at once."
        )

    def stall_advice(self, now: int) -> str:
        """What to look at where nothing has come for long (`now` in monotonic ns); empty where it has."""
        if not self.last_arrival or now - self.last_arrival <= STALLED:
            return ""
        return (
            f"No {self.kind.value} for {(now - self.last_arrival) / 1e9:.0f} s: check the encoder and its upload; a lower bitrate may be "
            "needed."
        )
