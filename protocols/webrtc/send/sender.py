"""One m-line of one viewer: what differs from the other viewers of the same source, and the loop that everything else makes cheap.

What is kept true, whatever joins, replays, drops and changes of source and codec happen: sequence numbers are contiguous, timestamps only
grow, a packet leaves under one sequence number with one content (RFC 7714 §12.1: never two under one key) and under its codec's payload
type, and nothing waits longer than `HOLD_NS` for its turn.
"""

import random
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from protocols.media import Kind
from protocols.webrtc.rtcp import ReportBlock, ntp_time, sender_report, source_description
from protocols.webrtc.rtp import CLOCK_RATES, VERSION_WITH_EXTENSION, HeaderLayout, SendParameters
from protocols.webrtc.send.history import Run, SentFrame
from protocols.webrtc.send.join import compressed
from protocols.webrtc.send.pacing import FRAME_DRAIN_NS, JOIN_DRAIN_NS, UNPACED, PacingQueue
from protocols.webrtc.send.repair import RepairBudget
from protocols.webrtc.transport.egress import Egress
from protocols.webrtc.transport.srtp import OutboundSrtp, SrtpError

if TYPE_CHECKING:
    from protocols.webrtc.send.source import Source

HOLD_NS = 250_000_000
"""Later than this is worse than lost: the viewer goes on with the next key frame."""
BURST = 4096
"""Packets (4.8 MB) of a group of pictures that is sent at once to a viewer who joins; a larger one waits for the next key frame."""
REPLAY_NS = 500_000_000
"""Between two replays; doubled each time that one did not help, until a key frame comes."""
REPORT_NS = 1_000_000_000


class SenderTransport(Protocol):
    """One viewer's way: what the peer (`mux.Peer`) shows its senders."""

    address: tuple[Any, ...] | None
    """Where to, as the socket takes it; follows the peer when it roams. None: nowhere yet."""
    outbound: OutboundSrtp | None
    """None until DTLS is connected."""
    egress: Egress
    transport_sequence: int
    """The next transport-wide sequence number: one counter for all m-lines."""


Sent = tuple[int, int, int, int, int, int, int]
"""A run as it left: (sequence not wrapped, count, source index, timestamp not wrapped, transport sequence, monotonic ns, bytes)"""


class Sender:
    """Sends one source at a time. Not live until its transport is ready; then it joins with the source's group of pictures.

    The counters are totals since the start; `lost_fraction` is of 256, `jitter` in units of the RTP clock.
    """

    def __init__(
        self,
        transport: SenderTransport,
        parameters: SendParameters,
        *,
        sequence: int | None = None,
        timestamp: int | None = None,
    ):
        """`sequence` and `timestamp` are what to begin with: random where not given (RFC 3550 §5.1)."""
        self.transport = transport
        self.parameters = parameters
        self.source: Source | None = None
        self.sent: deque[Sent] = deque()
        self.clock_rate = CLOCK_RATES[parameters.kind]
        self.report_due: int | None = None
        self.on_turn: Callable[[], None] | None = None
        """Told when another layer is sent from here on."""

        self.packets = self.bytes = self.frames = self.dropped = 0
        self.retransmitted = self.nacks = self.plis = self.replays = self.turns = 0
        self.lost_fraction = self.packets_lost = self.jitter = self.round_trip_ns = 0

        self._layout = HeaderLayout.of(parameters)
        self._format = next(iter(parameters.formats.values()))  # that of the source's codec, once there is one
        # Below 2^15: a receiver that misses the first packets must not guess a wrong rollover counter (RFC 3711 §3.3.1).
        self._sequence = random.randrange(1 << 15) if sequence is None else sequence
        self._rtx_sequence = random.randrange(1 << 15)
        self._offset = random.randrange(1 << 32) if timestamp is None else timestamp
        self._last_timestamp: int | None = None
        self._last_sent = 0
        self._live = False
        self._joined = False
        self._next: Source | None = None  # the layer to go on with at its next key frame
        self._replayed: int | None = None
        self._replay_wait = REPLAY_NS
        self._backlog = PacingQueue()
        self._reports: deque[tuple[int, int]] = deque(maxlen=8)
        self._budget = RepairBudget()

    # -- the source ------------------------------------------------------------------------------------------------------------------

    def attach(self, source: "Source", now: int, *, join: bool = True) -> None:
        """Goes on with `source`, whose codec the m-line takes; numbers and timestamps continue from those of the source before. Without
        `join` it begins with the next key frame and not with the group of pictures that is under way."""
        self._format = self.parameters.formats[source.track.codec]
        former = self.source
        self.detach()
        self.source = source
        # Layers of one picture have one media time: going over to another shifts nothing.
        if self._last_timestamp is not None and (former is None or former.clock != source.clock):
            here = self._last_timestamp + (now - self._last_sent) * self.clock_rate // 1_000_000_000
            self._offset = here - source.ticks(source.clock(now)[1])
        source.add(self)
        if join:
            self.start(now)
        else:
            self._joined = True

    def turn(self, source: "Source", now: int) -> None:
        """Goes on with `source`, another layer of the same picture, at its next key frame; until then with the present one. To be called
        again while it has not come: it is then asked for again."""
        if source is self.source or not self._live:
            self._turn_to(None)
            if source is not self.source:
                self.attach(source, now)
            return
        self._turn_to(source)
        source.request_keyframe(now)

    def _turn_to(self, source: "Source | None") -> None:
        if source is not self._next:
            if self._next is not None:
                self._next.awaiting.pop(self, None)
            self._next = source
            if source is not None:
                source.awaiting[self] = None

    def keyframe_came(self, source: "Source", now: int) -> None:
        """Called by the source that is turned to, right before it delivers a key frame."""
        self.attach(source, now, join=False)
        self.turns += 1
        if self.on_turn is not None:
            self.on_turn()

    def detach(self) -> None:
        self._turn_to(None)
        if self.source is not None:
            self.source.remove(self)
            self.source = None
        self.sent.clear()  # what is asked for again after this is not repaired: it would need the former source and its payload type
        self._lose_sync()
        self._joined = False
        self.report_due = None  # the next source has another clock: report before its first packet

    def start(self, now: int) -> None:
        """To be called when the transport becomes ready: the viewer sees the picture now and not at the source's next frame."""
        if self.source is not None and not self._joined and self._ready():
            self._join(self.source, now)

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
            self._replay_wait = REPLAY_NS
        if self._backlog or frame.count > UNPACED:
            self._backlog.add(frame, timestamp, now, now + FRAME_DRAIN_NS)
            source.pace(self, now)
            return
        for run in frame.runs:
            self._send(run, timestamp, now)
        if self._live:
            source.handed_over(frame.index + frame.count)

    def _follow(self, source: "Source", frame: SentFrame, now: int) -> bool:
        """Whether to go on with this frame, when not live."""
        if not self._ready():
            return False
        if not self._joined:
            self._join(source, now)  # this frame included where it can be
            if self._live:
                return self.parameters.kind is Kind.AUDIO
        self._live = frame.keyframe or self.parameters.kind is Kind.AUDIO
        return self._live

    def _ready(self) -> bool:
        return self.transport.address is not None and self.transport.outbound is not None

    def _lose_sync(self) -> None:
        self._live = False
        self._backlog.clear()

    # -- joining ---------------------------------------------------------------------------------------------------------------------

    def _join(self, source: "Source", now: int) -> None:
        self._joined = True
        if self.parameters.kind is Kind.AUDIO:
            self._live = True
        elif not self._replay(source, now):
            source.request_keyframe(now)

    def _replay(self, source: "Source", now: int) -> bool:
        """Sends the group of pictures so far, its timestamps compressed so that the viewer is at the live picture when it has it."""
        group = source.history.group
        if not group or group[-1].index + group[-1].count - group[0].index > BURST:
            return False
        self._replayed = now
        self._live = True
        self.replays += 1
        stamps = compressed(group, self._offset, self._last_timestamp, self.clock_rate)
        for frame, timestamp in zip(group, stamps, strict=True):
            self._last_timestamp = timestamp
            self.frames += 1
            self._backlog.add(frame, timestamp, now, now + JOIN_DRAIN_NS)
        source.pace(self, now)
        return True

    def request_keyframe(self, now: int) -> None:
        """The viewer cannot decode (PLI, FIR): a new key frame where the source makes one, else the cached group again."""
        self.plis += 1
        source = self.source
        if source is None or not self._joined or self._backlog:  # it is on its way
            return
        if source.request_keyframe(now) or not self._ready():
            return
        if (self._replayed is None or now - self._replayed >= self._replay_wait) and self._replay(source, now):
            self._replay_wait *= 2

    # -- pacing ----------------------------------------------------------------------------------------------------------------------

    def pump(self, now: int) -> bool:
        """Sends the slice that is due; True while more waits."""
        backlog, source = self._backlog, self.source
        if not backlog or source is None:
            return False
        if now - backlog.since > HOLD_NS:
            self.dropped += backlog.packets
            self._lose_sync()
            source.request_keyframe(now)
            return False
        for run, timestamp in backlog.due(now):
            self._send(run, timestamp, now)
            if run.ends:
                source.handed_over(run.index + len(run.packets))
        return bool(backlog)

    # -- packets ---------------------------------------------------------------------------------------------------------------------

    def _send(self, run: Run, timestamp: int, now: int) -> None:
        """The hot path: per packet one header, one copy and one protection in place; per run one system call."""
        transport = self.transport
        address, outbound = transport.address, transport.outbound
        if address is None or outbound is None:
            self.dropped += len(run.packets)
            self._lose_sync()
            self._joined = False  # as new when the peer is back
            return
        if self.report_due is None:
            self._first_report(address, outbound, now)
        layout, parameters, egress = self._layout, self.parameters, transport.egress
        arena = egress.arena
        view, protect, pack = arena.view, outbound.protect, layout.struct.pack_into
        header, step = layout.size, layout.transport_step
        payload_type, ssrc = self._format.payload_type, parameters.ssrc
        extensions, stamp = layout.extensions(now), timestamp & 0xFFFFFFFF
        sequence, transport_sequence = self._sequence, transport.transport_sequence if step else 0
        count = len(run.packets)
        self.sent.append((sequence, count, run.index, timestamp, transport_sequence, now, run.size))
        self._sequence = sequence + count
        if step:
            transport.transport_sequence = transport_sequence + count & 0xFFFF
        begin = segment = 0
        try:
            for marker, payload in run.packets:
                data = begin + header
                end = data + len(payload)
                pack(
                    view, begin, VERSION_WITH_EXTENSION, payload_type | marker, sequence & 0xFFFF, stamp, ssrc, extensions,
                    transport_sequence & 0xFFFF,
                )  # fmt: skip
                view[data:end] = payload
                begin += protect(arena, begin, end - begin)
                segment = segment or begin
                sequence += 1
                transport_sequence += step
        except SrtpError:
            self.dropped += count
            return
        self._last_sent = now
        if not egress.send(view[:begin], segment, address):
            self.dropped += count
            return
        self.packets += count
        self.bytes += run.size
        self._budget.earn(run.size)
        self._forget()

    def _forget(self) -> None:
        source, sent = self.source, self.sent
        if source is not None:
            oldest = source.history.oldest
            while sent and sent[0][2] < oldest and len(sent) > 1:
                sent.popleft()

    # -- repair ----------------------------------------------------------------------------------------------------------------------

    def repair(self, sequences: Iterable[int], now: int) -> None:
        """Sends again what a NACK asks for, within the budget."""
        budget = self._budget
        budget.begin(now)
        for wrapped in sequences:
            if not budget.look():
                return
            self.nacks += 1
            sequence = self._sequence - ((self._sequence - wrapped) & 0xFFFF)
            if budget.due(sequence, now):
                self._repair_one(sequence, now)

    def _repair_one(self, sequence: int, now: int) -> None:
        position = bisect_right(self.sent, sequence, key=_first_sequence) - 1
        if position < 0 or self.source is None:
            return
        first, count, index, timestamp, transport_sequence, at, _ = self.sent[position]
        step = sequence - first
        packet = self.source.history.packet(index + step) if step < count else None
        if packet is None:
            return
        marker, payload = packet
        self._budget.spend(sequence, len(payload), now)
        parameters, numbered, transport = self.parameters, self._format, self.transport
        if parameters.rtx_ssrc is None or numbered.rtx_payload_type is None:
            # The same packet to the bit: other extensions under its sequence number would reuse the nonce (RFC 7714 §12.1).
            again = (
                marker | numbered.payload_type, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, parameters.ssrc, self._layout.extensions(at),
                (transport_sequence + step) & 0xFFFF if self._layout.transport_step else 0,
            )  # fmt: skip
        else:
            payload = (sequence & 0xFFFF).to_bytes(2, "big") + payload  # RFC 4588 §4: the original sequence number goes before
            again = (
                marker | numbered.rtx_payload_type, self._rtx_sequence & 0xFFFF, timestamp & 0xFFFFFFFF, parameters.rtx_ssrc,
                self._layout.extensions(now), transport.transport_sequence if self._layout.transport_step else 0,
            )  # fmt: skip
            self._rtx_sequence += 1
            transport.transport_sequence = transport.transport_sequence + self._layout.transport_step & 0xFFFF
        if self._send_single(again, payload):
            self.retransmitted += 1

    def _send_single(self, header: tuple[Any, ...], payload: bytes) -> bool:
        address, outbound, egress = self.transport.address, self.transport.outbound, self.transport.egress
        if address is None or outbound is None:
            return False
        view = egress.arena.view
        self._layout.struct.pack_into(view, 0, VERSION_WITH_EXTENSION, *header)
        end = self._layout.size + len(payload)
        view[self._layout.size : end] = payload
        try:
            size = outbound.protect(egress.arena, 0, end)
        except SrtpError:
            return False
        return egress.send(view[:size], size, address)

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
        return sender_report(ssrc, ntp, stamp, self.packets, self.bytes) + source_description(ssrc, self.parameters.cname)

    def reported(self, block: ReportBlock, now: int) -> None:
        """What the viewer says of this stream."""
        self.lost_fraction, self.packets_lost, self.jitter = block.fraction_lost, block.packets_lost, block.jitter
        for ntp, at in self._reports:
            if ntp == block.last_report:
                self.round_trip_ns = max(0, now - at - block.delay * 1_000_000_000 // 65536)
                self._budget.measured(self.round_trip_ns)

    def _first_report(self, address: tuple[Any, ...], outbound: OutboundSrtp, now: int) -> None:
        # Before the first packet: a player that has it can align audio and video from the first picture.
        report = self.report(now)
        if report is not None:
            with suppress(SrtpError):
                protected = outbound.protect_rtcp(report)
                self.transport.egress.send(memoryview(protected), len(protected), address)


def _first_sequence(sent: Sent) -> int:
    return sent[0]
