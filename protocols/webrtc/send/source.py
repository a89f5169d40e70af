"""One published track (a layer of a video, or a sound) in a call and its viewers: packetized once, kept once, sent to each.

What is kept true: the order of frames is the same for all; one viewer's dead address, closed session or full burst delays no other; a
viewer who joins has a picture at once where the group of pictures is cached.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from protocols.media import EncodedPacket, Kind, Track
from protocols.webrtc.rtp import CLOCK_RATES
from protocols.webrtc.send.history import History
from protocols.webrtc.send.pacing import PACE_NS
from protocols.webrtc.send.packetize import PACKETIZERS, PAYLOAD_LIMIT
from protocols.webrtc.send.sender import Sender, SenderTransport

__all__ = ["CallAt", "OnSent", "Sender", "SenderTransport", "Source", "SourceClock", "call_at_on"]

SourceClock = Callable[[int], tuple[int, int]]
"""From local monotonic ns to (wall clock ns since the Unix epoch, session media ns): one for all tracks of a participant. The wall clock
should run with the monotonic one (an offset taken once), so that setting the system's clock moves no lips."""

CallAt = Callable[[int, Callable[[int], None]], object]
"""`call_at(when, run)`: call `run(now)` once at `when`, both monotonic ns."""

OnSent = Callable[[EncodedPacket, int, int], None]
"""(frame, monotonic ns when its packets were ready, monotonic ns when the first viewer's last packet was handed to the kernel)"""

KEYFRAME_REQUEST_NS = 500_000_000
_UNREPORTED = 32  # frames


class Source:
    """`push` a track's packets in; attach `Sender`s to it. `run` is called back by `call_at` for paced bursts."""

    def __init__(
        self,
        track: Track,
        clock: SourceClock,
        call_at: CallAt,
        *,
        keyframe_wanted: Callable[[], bool] | None = None,
        on_sent: OnSent | None = None,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`keyframe_wanted` asks the owner for a key frame and is true if one will come; it is called at most twice a second.

        Raises `KeyError` for a codec that RTP here does not carry yet.
        """
        codec = track.codec
        self.track = track
        """Its facts; the owner changes them as they change, all but the codec."""
        self.kind = codec.kind
        self.clock = clock
        self.history = History(groups=codec.kind is Kind.VIDEO)
        self.frames = 0
        self.unsendable = 0
        """Packets without a payload that fits."""
        self.senders: tuple[Sender, ...] = ()
        self.awaiting: dict[Sender, None] = {}
        """Senders of another layer, which go on with this one from its next key frame."""
        self.next_due: int | None = None
        """When `run` has something to do."""
        self._packetize = PACKETIZERS[codec]
        self._clock_rate = CLOCK_RATES[codec.kind]
        self._call_at = call_at
        self._keyframe_wanted = keyframe_wanted
        self._on_sent = on_sent
        self._monotonic = monotonic
        self._paced: dict[Sender, None] = {}
        self._unreported: deque[tuple[int, EncodedPacket, int]] = deque(maxlen=_UNREPORTED)
        self._asked: int | None = None
        self._answer = False

    def ticks(self, media: int) -> int:
        """RTP clock, not wrapped, of a media time in ns."""
        return media * self._clock_rate // 1_000_000_000

    @property
    def bitrate(self) -> int:
        """bit/s on a viewer's way over the last seconds."""
        return self.history.bitrate

    def push(self, packet: EncodedPacket, now: int) -> None:
        """Sends one access unit to every viewer that can take it and keeps it for those who join or lost it."""
        payloads = packet.payloads or self._packetize(packet.data, PAYLOAD_LIMIT)
        if not payloads:
            self.unsendable += 1
            return
        frame = self.history.append(payloads, packet.pts, self.ticks(packet.pts), packet.keyframe, now)
        self.frames += 1
        if self._on_sent is not None:
            self._unreported.append((frame.index + frame.count, packet, self._monotonic()))
        if self.awaiting and packet.keyframe:
            for sender in tuple(self.awaiting):
                sender.keyframe_came(self, now)
        for sender in self.senders:  # a tuple: a viewer may leave while it is walked
            sender.deliver(frame, now)

    def request_keyframe(self, now: int) -> bool:
        """True if a key frame will come. Many viewers' requests are one to the owner."""
        if self._keyframe_wanted is None:
            return False
        if self._asked is None or now - self._asked >= KEYFRAME_REQUEST_NS:
            self._asked = now
            self._answer = self._keyframe_wanted()
        return self._answer

    # -- for senders -----------------------------------------------------------------------------------------------------------------

    def add(self, sender: Sender) -> None:
        self.senders = (*self.senders, sender)

    def remove(self, sender: Sender) -> None:
        self.senders = tuple(other for other in self.senders if other is not sender)
        self._paced.pop(sender, None)

    def handed_over(self, end: int) -> None:
        """A viewer got the last packet of the frame that ends before source index `end`; the first one to say so counts."""
        unreported = self._unreported
        while unreported and unreported[0][0] <= end:
            ends, packet, packetized = unreported.popleft()
            if ends == end and self._on_sent is not None:
                self._on_sent(packet, packetized, self._monotonic())

    def pace(self, sender: Sender, now: int) -> None:
        """Sends the first slice of a sender's burst at once and the others in turn."""
        if sender not in self._paced and sender.pump(now):
            self._paced[sender] = None
            if self.next_due is None:
                self._arm(now)

    def run(self, now: int) -> None:
        """The next slice of every burst."""
        self.next_due = None
        for sender in tuple(self._paced):
            if not sender.pump(now):
                self._paced.pop(sender, None)
        if self._paced:
            self._arm(now)

    def _arm(self, now: int) -> None:
        self.next_due = now + PACE_NS
        self._call_at(self.next_due, self.run)


def call_at_on(loop: asyncio.AbstractEventLoop) -> CallAt:
    """`CallAt` by the timers of `loop`."""

    def call_at(when: int, run: Callable[[int], None]) -> object:
        delay = max(0, when - time.monotonic_ns())
        return loop.call_later(delay / 1_000_000_000, lambda: run(time.monotonic_ns()))

    return call_at
