"""One published track (a layer of a video, or a sound) in a call and its viewers: packetized once, kept once, sent to each.

What is kept true: the order of frames is the same for all; one viewer's dead address, closed session or full burst delays no other; a
viewer who joins has a picture at once where the group of pictures is cached.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Protocol

from protocols.media import EncodedPacket, Kind, Track
from protocols.webrtc.rtp import CLOCK_RATES
from protocols.webrtc.send.history import History, SentFrame
from protocols.webrtc.send.pacing import PACE_NS
from protocols.webrtc.send.packetize import PACKETIZERS, PAYLOAD_LIMIT
from protocols.webrtc.send.target import INTERVAL_NS, TargetBitrate
from protocols.webrtc.transport.egress import Egress
from protocols.webrtc.transport.runs import OutgoingRun

SourceClock = Callable[[int], tuple[int, int]]
"""From local monotonic ns to (wall clock ns since the Unix epoch, session media ns): one for all tracks of a participant. The wall clock
should run with the monotonic one (an offset taken once), so that setting the system's clock moves no lips."""

CallAt = Callable[[int, Callable[[int], None]], object]
"""`call_at(when, run)`: call `run(now)` once at `when`, both monotonic ns."""

OnSent = Callable[[EncodedPacket, int, int], None]
"""(frame, monotonic ns when its packets were ready, monotonic ns when the first viewer's last packet was handed to the kernel)"""

KeyframeWanted = Callable[[], bool | None]
"""Asks the owner for a key frame: True if one will come, None where the owner has to ask others first, and says it by `answered`."""

KEYFRAME_REQUEST_NS = 500_000_000
_NEVER = 1 << 62
_UNREPORTED = 32  # frames


class SourceReceiver(Protocol):
    """One viewer's end of a source (`sender.Sender`), as the source sees it."""

    carried: int | None
    """bit/s that the viewer's way has for this source, where the source should make do with it; None: whatever comes."""

    def deliver(self, frame: SentFrame, now: int) -> None:
        """Puts what is due of the newest frame to what is outgoing."""

    def keyframe_came(self, source: "Source", now: int) -> None:
        """`source`, in whose `awaiting` it is, is right about to deliver a key frame."""

    def answered(self, comes: bool, now: int) -> None:
        """Whether a key frame comes that was asked for, where that was not known at once."""

    def pump(self, now: int) -> bool:
        """Puts what is due of what waits to what is outgoing; whether more waits."""


class Source:
    """`push` a track's packets in; attach `SourceReceiver`s to it. `run` is called back by `call_at` for paced bursts."""

    def __init__(
        self,
        track: Track,
        clock: SourceClock,
        call_at: CallAt,
        *,
        on_keyframe_wanted: KeyframeWanted,
        on_bitrate: Callable[[int], None],
        on_sent: OnSent,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`on_keyframe_wanted` is called at most twice a second.
        `on_bitrate` is told what bitrate the viewers' ways carry (bit/s of the track itself, without headers) when that has changed
        noticeably, at most twice a second, by the rule in `target.py`; more than what was planned means: as planned. It is never called for
        a sound.

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
        self.receivers: tuple[SourceReceiver, ...] = ()
        self.awaiting: dict[SourceReceiver, None] = {}
        """Receivers of another layer, which go on with this one from its next key frame."""
        self.outgoing: defaultdict[Egress, list[OutgoingRun]] = defaultdict(list)
        """What is to `leave` by each socket."""
        self.next_due: int | None = None
        """When `run` has something to do."""
        self._packetize = PACKETIZERS[codec]
        self._clock_rate = CLOCK_RATES[codec.kind]
        self._call_at = call_at
        self._on_keyframe_wanted = on_keyframe_wanted
        self._on_sent = on_sent
        self._monotonic = monotonic
        self._paced: dict[SourceReceiver, None] = {}
        self._unreported: deque[tuple[int, EncodedPacket, int]] = deque(maxlen=_UNREPORTED)
        self._requested_at: int | None = None
        self._answer: bool | None = False
        self._on_bitrate = on_bitrate
        self._target = TargetBitrate()
        self._target_due = 0 if codec.kind is Kind.VIDEO else _NEVER

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
        self._unreported.append((frame.index + frame.count, packet, self._monotonic()))
        if self.awaiting and packet.keyframe:
            for receiver in tuple(self.awaiting):
                receiver.keyframe_came(self, now)
        for receiver in self.receivers:  # a tuple: a viewer may leave while it is walked
            receiver.deliver(frame, now)
        self.leave()
        if now >= self._target_due:
            self.tell_bitrate(now)

    def tell_bitrate(self, now: int) -> None:
        """Tell the owner what the viewers' ways carry, if that is new: at once where one of them cannot wait for its turn."""
        self._target_due = now + INTERVAL_NS
        share = self.history.payload_share
        carried = [int(receiver.carried * share) for receiver in self.receivers if receiver.carried is not None]
        target = self._target.judge(carried, self.track.width * self.track.height, now)
        if target is not None:
            self._on_bitrate(target)

    def request_keyframe(self, now: int) -> bool | None:
        """As `KeyframeWanted`. Many viewers' requests are one to the owner."""
        if self._requested_at is None or now - self._requested_at >= KEYFRAME_REQUEST_NS:
            self._requested_at = now
            self._answer = self._on_keyframe_wanted()
        return self._answer

    def answered(self, comes: bool, now: int) -> None:
        """The owner knows by now whether a key frame comes."""
        self._answer = comes
        for receiver in self.receivers:
            receiver.answered(comes, now)

    # -- for receivers ---------------------------------------------------------------------------------------------------------------

    def add(self, receiver: SourceReceiver) -> None:
        self.receivers = (*self.receivers, receiver)

    def remove(self, receiver: SourceReceiver) -> None:
        self.receivers = tuple(other for other in self.receivers if other is not receiver)
        self._paced.pop(receiver, None)

    def handed_over(self, end: int) -> None:
        """What is outgoing to a viewer ends with the last packet of the frame that ends before source index `end`. For the first one to
        say so it leaves at once, and that counts."""
        unreported = self._unreported
        if unreported and unreported[0][0] <= end:
            self.leave()
        while unreported and unreported[0][0] <= end:
            ends, packet, packetized = unreported.popleft()
            if ends == end:
                self._on_sent(packet, packetized, self._monotonic())

    def leave(self) -> None:
        """Sends what is outgoing. Each receiver puts there what is due to its viewer: so it leaves to all of them by one call."""
        for egress, runs in self.outgoing.items():
            if runs:
                for lost in egress.runs.send(runs):
                    lost.owner.lost(lost)
                runs.clear()

    def pace(self, receiver: SourceReceiver, now: int) -> None:
        """Takes the first slice of a receiver's burst at once and the others in turn."""
        if receiver not in self._paced and receiver.pump(now):
            self._paced[receiver] = None
            if self.next_due is None:
                self._arm(now)

    def run(self, now: int) -> None:
        """The next slice of every burst."""
        self.next_due = None
        for receiver in tuple(self._paced):
            if not receiver.pump(now):
                self._paced.pop(receiver, None)
        self.leave()
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
