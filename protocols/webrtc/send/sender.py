"""One m-line of one viewer: where it stands in the source that it is sent, and what the viewer says of what it gets.

What is kept true, whatever joins, replays, drops and changes of source and codec happen: timestamps only grow, and nothing waits longer
than `HOLD_NS` for its turn.
"""

import random
from collections import deque
from collections.abc import Callable, Iterable

from protocols.media import Kind
from protocols.webrtc.rtcp import ReportBlock, ntp_time, sender_report, source_description
from protocols.webrtc.rtp import CLOCK_RATES, SendParameters
from protocols.webrtc.send.history import Run, SentFrame
from protocols.webrtc.send.join import compressed
from protocols.webrtc.send.pacing import (
    FRAME_DRAIN_NS,
    JOIN_DRAIN_NS,
    NARROW,
    NARROW_DRAIN_NS,
    PACE_NS,
    UNPACED,
    WIDE,
    Pace,
    PacingQueue,
)
from protocols.webrtc.send.rtp_stream import RtpStream
from protocols.webrtc.send.source import Source
from protocols.webrtc.send.way import ViewerWay

HOLD_NS = 250_000_000
"""Later than this is worse than lost: the viewer goes on with the next key frame."""
BURST = 4096
"""Packets (4.8 MB) of a group of pictures that is sent at once to a viewer who joins; a larger one waits for the next key frame."""
REPLAY_NS = 500_000_000
"""Between two replays; doubled each time that one did not help, until a key frame comes."""
REPORT_NS = 1_000_000_000


class Sender:
    """Sends one source at a time. Not live until its transport is ready; then it joins with the source's group of pictures.

    The counters are totals since the start; those of what left are the `stream`'s.
    """

    __slots__ = (
        "_asks", "_backlog", "_bursts", "_clock_rate", "_cut", "_description", "_format", "_joined", "_last_timestamp", "_left_out",
        "_live", "_next", "_offset", "_on_turn", "_replay_wait", "_replayed", "_reports", "_transport", "carried",
        "frames", "parameters", "plis", "replays", "report_due", "round_trip_ns", "source", "stream", "turns",
    )  # fmt: skip

    def __init__(
        self,
        way: ViewerWay,
        parameters: SendParameters,
        *,
        on_turn: Callable[[], None],
        sequence: int | None = None,
        timestamp: int | None = None,
    ):
        """`on_turn` is told when another layer is sent from here on. `sequence` and `timestamp` are what to begin with: random where not
        given (RFC 3550 §5.1)."""
        self.parameters = parameters
        self.source: Source | None = None
        self.stream = RtpStream(way, parameters, sequence)
        self.carried: int | None = None
        """bit/s that the viewer's way has for the present source, where the source should make do with it; None: whatever comes. Said by
        who knows the viewer's other sources."""
        self.report_due: int | None = None
        self.round_trip_ns = 0
        self.frames = self.plis = self.replays = self.turns = 0

        self._transport, self._bursts = way.transport, way.bursts
        self._on_turn = on_turn
        self._clock_rate = CLOCK_RATES[parameters.kind]
        self._format = next(iter(parameters.formats.values()))  # that of the source's codec, once there is one
        self._offset = random.randrange(1 << 32) if timestamp is None else timestamp
        self._last_timestamp: int | None = None
        self._left_out = 0  # packets that waited for too long, or are of no use before a key frame
        self._live = False
        self._joined = False
        self._cut = False  # and the key frame that was asked for has not come
        self._asks = False  # for a key frame, and nobody knows yet whether one comes
        self._next: Source | None = None  # the layer to go on with at its next key frame
        self._replayed: int | None = None
        self._replay_wait = REPLAY_NS
        self._backlog = PacingQueue()
        self._description = source_description(parameters.ssrc, parameters.cname)
        self._reports: deque[tuple[int, int]] = deque(maxlen=8)

    @property
    def dropped(self) -> int:
        """Packets that nobody got: too late, of no use before a key frame, without a way, or not taken by the kernel."""
        return self.stream.dropped + self._left_out

    # -- the source ------------------------------------------------------------------------------------------------------------------

    def attach(self, source: Source, now: int, *, join: bool = True) -> None:
        """Goes on with `source`, whose codec the m-line takes; numbers and timestamps continue from those of the source before. Without
        `join` it begins with the next key frame and not with the group of pictures that is under way."""
        self._format = self.parameters.formats[source.track.codec]
        former = self.source
        self.detach()
        self.source = source
        # Layers of one picture have one media time: going over to another shifts nothing.
        if self._last_timestamp is not None and (former is None or former.clock != source.clock):
            here = self._last_timestamp + (now - self.stream.last_sent) * self._clock_rate // 1_000_000_000
            self._offset = here - source.ticks(source.clock(now)[1])
        source.add(self)
        if join:
            self.start(now)
        else:
            self._joined = True

    def turn(self, source: Source, now: int) -> None:
        """Goes on with `source`, another layer of the same picture, at its next key frame; until then with the present one. To be called
        again while it has not come: it is then asked for again."""
        if source is self.source or not self._live:
            self._turn_to(None)
            if source is not self.source:
                self.attach(source, now)
            return
        self._turn_to(source)
        source.request_keyframe(now)

    def _turn_to(self, source: Source | None) -> None:
        if source is not self._next:
            if self._next is not None:
                self._next.awaiting.pop(self, None)
            self._next = source
            if source is not None:
                source.awaiting[self] = None

    def keyframe_came(self, source: Source, now: int) -> None:
        """Called by the source that is turned to, right before it delivers a key frame."""
        self.attach(source, now, join=False)
        self.turns += 1
        self._on_turn()

    def detach(self) -> None:
        self._turn_to(None)
        if self.source is not None:
            self.source.remove(self)
            self.source = None
        self.carried = None
        self.stream.sent.clear()  # what is asked for again after this is not repaired: it would need the former source and its payload type
        self._lose_sync()
        self._joined = False
        self.report_due = None  # the next source has another clock: report before its first packet

    def start(self, now: int) -> None:
        """To be called when the transport becomes ready: the viewer sees the picture now and not at the source's next frame."""
        source = self.source
        if source is not None and not self._joined and self._ready():
            self._join(source, now)
            source.leave()

    def deliver(self, frame: SentFrame, now: int) -> None:
        """Called by the source for each new frame."""
        source = self.source
        if source is None:
            return
        if not self._live and not self._follow(source, frame, now):
            return
        timestamp = frame.timestamp + self._offset
        last = self._last_timestamp
        if last is not None and timestamp <= last:
            timestamp = last + 1
        self._last_timestamp = timestamp
        self.frames += 1
        if frame.keyframe:
            self._cut = self._asks = False
            self._replay_wait = REPLAY_NS
        at_once = frame.count <= UNPACED and self.carried is None and not self._backlog.packets  # most frames are
        if not at_once and self._queue(frame, timestamp, source, now):
            return
        for run in frame.runs:
            self._send(run, timestamp, source, now)
        if self._live:
            source.handed_over(frame.index + frame.count)

    def _follow(self, source: Source, frame: SentFrame, now: int) -> bool:
        """Whether to go on with this frame, when not live."""
        if not self._ready():
            return False
        if not self._joined:
            self._join(source, now)  # this frame included where it can be
            if self._live:
                return self.parameters.kind is Kind.AUDIO
        self._live = frame.keyframe or self.parameters.kind is Kind.AUDIO
        if not self._live:
            self._left_out += frame.count
            if self._cut:
                source.request_keyframe(now)  # again, where what was asked for came before the cut
        return self._live

    def _ready(self) -> bool:
        return self._transport.address is not None and self._transport.outbound is not None

    def _lose_sync(self) -> None:
        self._live = False
        self._backlog.clear()

    # -- a way that narrows ----------------------------------------------------------------------------------------------------------

    def cut(self, now: int) -> None:
        """The way carries much less at one blow: some of what is on it is lost, and more would only stand in the queue before what can
        be decoded. Nothing is sent before a key frame, of what the way carries from here on, and nothing of before is sent again. Where
        there is none to be asked for, what comes is sent as before."""
        source = self._next or self.source
        if source is None or not self._live or self.parameters.kind is not Kind.VIDEO:
            return
        source.tell_bitrate(now)
        if source.request_keyframe(now):
            self._lose_sync()
            self._cut = True
            self.stream.abandon()

    # -- joining ---------------------------------------------------------------------------------------------------------------------

    def _join(self, source: Source, now: int) -> None:
        self._joined = True
        if self.parameters.kind is Kind.AUDIO:
            self._live = True
        elif not self._replay(source, now):
            source.request_keyframe(now)

    def _replay(self, source: Source, now: int) -> bool:
        """Sends the group of pictures so far, its timestamps compressed so that the viewer is at the live picture when it has it."""
        group = source.history.group
        if not group or group[-1].index + group[-1].count - group[0].index > BURST:
            return False
        if self.carried is not None and _duration(sum(frame.size for frame in group), self.carried) > JOIN_DRAIN_NS:
            return False
        self._replayed = now
        self._live = True
        self.replays += 1
        stamps = compressed(group, self._offset, self._last_timestamp, self._clock_rate)
        for frame, timestamp in zip(group, stamps, strict=True):
            self._last_timestamp = timestamp
            self.frames += 1
            self._backlog.add(frame, timestamp, now, now + JOIN_DRAIN_NS, self._pace)
        source.pace(self, now)
        return True

    def request_keyframe(self, now: int) -> None:
        """The viewer cannot decode (PLI, FIR): a new key frame where the source makes one, else the cached group again."""
        self.plis += 1
        source = self.source
        if source is None or not self._joined or self._backlog:  # it is on its way
            return
        comes = source.request_keyframe(now)
        self._asks = comes is None
        if comes is False:
            self._replay_again(source, now)

    def answered(self, comes: bool, now: int) -> None:
        """Called by the source where that was not known at once."""
        asks, self._asks = self._asks, False
        if asks and not comes and self.source is not None and not self._backlog:
            self._replay_again(self.source, now)

    def _replay_again(self, source: Source, now: int) -> None:
        due = self._replayed is None or now - self._replayed >= self._replay_wait
        if due and self._ready() and self._replay(source, now):
            self._replay_wait *= 2
            source.leave()

    # -- pacing ----------------------------------------------------------------------------------------------------------------------

    def pump(self, now: int) -> bool:
        """Sends the slice that is due; True while more waits."""
        backlog, source = self._backlog, self.source
        if not backlog or source is None:
            return False
        if now - backlog.since > HOLD_NS:
            self._left_out += backlog.packets
            self._lose_sync()
            source.request_keyframe(now)
            return False
        for run, timestamp in backlog.due(now):
            self._send(run, timestamp, source, now)
            if run.ends:
                source.handed_over(run.index + len(run.packets))
        return bool(backlog)

    def _queue(self, frame: SentFrame, timestamp: int, source: Source, now: int) -> bool:
        """Puts a frame that is not to leave at once behind what waits; whether it was one."""
        backlog, pace = self._backlog, self._pace
        if not backlog and frame.count <= (pace.unpaced_key if frame.keyframe else pace.unpaced):
            return False
        drained = self._drained(frame, now)
        if not backlog and drained - now < PACE_NS:
            return False
        backlog.add(frame, timestamp, now, drained, pace)
        source.pace(self, now)
        return True

    def _drained(self, frame: SentFrame, now: int) -> int:
        """When this frame is to be out: together with what waits, but on a way that is too narrow in its own time after that."""
        waiting = self._backlog.drained if self._backlog else None
        if self.carried is None:
            return now + self._spread(frame, now) if waiting is None else waiting
        return min(max(waiting or 0, now) + _duration(frame.size, self.carried), now + NARROW_DRAIN_NS)

    def _spread(self, frame: SentFrame, now: int) -> int:
        """Over how long a large frame is to leave, in ns: as the way carries it, and over no longer than `FRAME_DRAIN_NS`."""
        rate = self._bursts.at(now)
        return FRAME_DRAIN_NS if rate is None else min(FRAME_DRAIN_NS, _duration(frame.size, rate))

    @property
    def _pace(self) -> Pace:
        return WIDE if self.carried is None else NARROW

    def _send(self, run: Run, timestamp: int, source: Source, now: int) -> None:
        if self.report_due is None and self._ready():
            self._first_report(now)
        if not self.stream.send(run, self._format.payload_type, timestamp, now, source):
            self._lose_sync()
            self._joined = False  # as new when the peer is back

    # -- what the viewer says ---------------------------------------------------------------------------------------------------------

    def repair(self, sequences: Iterable[int], now: int) -> None:
        """Sends again what a NACK asks for, within the budget."""
        if self.source is not None:
            self.stream.repair(sequences, self.source.history, self._format, now, self.carried)

    # -- reports ---------------------------------------------------------------------------------------------------------------------

    def report(self, now: int) -> bytes | None:
        """Sender report and CNAME in one compound, from the source's clock and not from when its last packet left: audio and video of
        one participant are on one time line. None without a source."""
        source = self.source
        if source is None:
            return None
        wall, media = source.clock(now)
        ntp = ntp_time(wall)
        ssrc = self.parameters.ssrc
        self.report_due = now + REPORT_NS
        self._reports.append((ntp >> 16 & 0xFFFFFFFF, now))
        stamp = source.ticks(media) + self._offset
        report = sender_report(ssrc, ntp, stamp, self.stream.packets, self.stream.payload_bytes)
        return report + self._description

    def reported(self, block: ReportBlock, now: int) -> None:
        """What the viewer says of this stream."""
        for ntp, at in self._reports:
            if ntp == block.last_report:
                self.round_trip_ns = max(0, now - at - block.delay * 1_000_000_000 // 65536)
                self.stream.measured(self.round_trip_ns)

    def _first_report(self, now: int) -> None:
        # Before the first packet: a player that has it can align audio and video from the first picture.
        report = self.report(now)
        if report is not None:
            self.stream.send_report(report)


def _duration(size: int, bits_per_second: int) -> int:
    """Of so many bytes on a way, in ns."""
    return size * 8_000_000_000 // max(1, bits_per_second)
