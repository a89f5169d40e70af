"""One RTP stream as one viewer gets it, with the stream of its repairs (RFC 4588): numbers, headers, protection, and the way out.

What is kept true: sequence numbers are contiguous; a packet leaves under one sequence number with one content (RFC 7714 §12.1: never two
under one key) and under its codec's payload type; what is sent again stays within the budget.
"""

import random
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from protocols.webrtc.rtp import VERSION_WITH_EXTENSION, HeaderLayout, SendFormat, SendParameters
from protocols.webrtc.send.history import History, Run
from protocols.webrtc.send.repair import RepairBudget
from protocols.webrtc.send.way import ViewerWay
from protocols.webrtc.transport.srtp import SrtpError

Sent = tuple[int, int, int, int, int, int, int]
"""A run as it left: (sequence, count, source index, timestamp, transport-wide sequence, monotonic ns, bytes); no number wrapped"""


class RtpStream:
    """Of one m-line. The counters are totals since the start."""

    __slots__ = (
        "_budget", "_departures", "_layout", "_least_delay_ms", "_repairable", "_rtx_sequence", "_sequence", "_transport",
        "dropped", "last_sent", "nacks", "packets", "parameters", "payload_bytes", "retransmitted", "sent",
    )  # fmt: skip

    def __init__(self, way: ViewerWay, parameters: SendParameters, sequence: int | None) -> None:
        """`sequence` is what to begin with; None: random (RFC 3550 §5.1)."""
        self._transport, self._departures = way.transport, way.departures
        self.parameters = parameters
        self.sent: deque[Sent] = deque()
        """What can be sent again, oldest first."""
        self.last_sent = 0
        self.packets = self.payload_bytes = self.dropped = self.nacks = self.retransmitted = 0
        self._layout = HeaderLayout.of(parameters)
        self._least_delay_ms = 0
        # Below 2^15: a receiver that misses the first packets must not guess a wrong rollover counter (RFC 3711 §3.3.1).
        self._sequence = random.randrange(1 << 15) if sequence is None else sequence
        self._rtx_sequence = random.randrange(1 << 15)
        self._repairable = self._sequence  # the first that is sent again
        self._budget = RepairBudget()

    def send(self, run: Run, payload_type: int, timestamp: int, now: int) -> bool:
        """False where there is no way to the viewer. The hot path: per packet one header, one copy and one protection in place; per run one
        system call."""
        transport = self._transport
        address, outbound = transport.address, transport.outbound
        count = len(run.packets)
        if address is None or outbound is None:
            self.dropped += count
            return False
        layout, egress = self._layout, transport.egress
        arena, protect, pack = egress.arena, outbound.protect, layout.struct.pack_into
        header, step, ssrc, view = layout.size, layout.transport_step, self.parameters.ssrc, arena.view
        extensions, stamp = layout.extensions(now), timestamp & 0xFFFFFFFF
        sequence, counted = self._sequence, self._departures.number(count, run.size, now) if step else 0
        self.sent.append((sequence, count, run.index, timestamp, counted, now, run.size))
        self._sequence = sequence + count
        begin = segment = 0
        try:
            for marker, payload in run.packets:
                pack(
                    view, begin, VERSION_WITH_EXTENSION, payload_type | marker, sequence & 0xFFFF, stamp, ssrc, extensions,
                    counted & 0xFFFF, payload,
                )  # fmt: skip
                begin += protect(arena, begin, header + len(payload))
                segment = segment or begin
                sequence += 1
                counted += step
        except SrtpError:
            self.dropped += count
            return True
        self.last_sent = now
        if not egress.send(view[:begin], segment, address):
            self.dropped += count
            return True
        self.packets += count
        self.payload_bytes += run.size
        return True

    def delay(self, least_ms: int) -> None:
        """The viewer is to play so long after it came what is sent from here on, at least, where it takes such wishes."""
        if least_ms != self._least_delay_ms and self.parameters.playout_delay_extension:
            self._least_delay_ms, self._layout = least_ms, HeaderLayout.of(self.parameters, least_ms)
            self.abandon()  # under one number there is one content

    def send_report(self, report: bytes) -> None:
        """RTCP that must not wait for the peer's own turn."""
        transport = self._transport
        if transport.address is not None and transport.outbound is not None:
            with suppress(SrtpError):
                protected = transport.outbound.protect_rtcp(report)
                transport.egress.send(memoryview(protected), len(protected), transport.address)

    def forget(self, oldest: int) -> None:
        """What is older than this index of the source is not repaired any more."""
        sent = self.sent
        while len(sent) > 1 and sent[0][2] < oldest:
            sent.popleft()

    # -- repair ----------------------------------------------------------------------------------------------------------------------

    def abandon(self) -> None:
        """Nothing of what left so far is sent again: a key frame takes its place."""
        self._repairable = self._sequence

    def measured(self, round_trip: int) -> None:
        """To the viewer and back, ns."""
        self._budget.measured(round_trip)

    def repair(
        self, sequences: Iterable[int], history: History, numbered: SendFormat, now: int, carried: int | None = None
    ) -> None:
        """Sends packets (sequence numbers of 16 bits) again, as far as `history` has them and the budget allows. `carried` as for
        `RepairBudget.begin`."""
        budget = self._budget
        budget.begin(self.payload_bytes, now, carried)
        for wrapped in sequences:
            if not budget.look():
                return
            self.nacks += 1
            sequence = self._sequence - ((self._sequence - wrapped) & 0xFFFF)
            if sequence >= self._repairable and budget.due(sequence, now):
                self._repair_one(sequence, history, numbered, now)

    def _repair_one(self, sequence: int, history: History, numbered: SendFormat, now: int) -> None:
        position = bisect_right(self.sent, sequence, key=_first_sequence) - 1
        if position < 0:
            return
        first, count, index, timestamp, transport_sequence, at, _ = self.sent[position]
        step = sequence - first
        packet = history.packet(index + step) if step < count else None
        if packet is None:
            return
        marker, payload = packet
        self._budget.spend(sequence, len(payload), now)
        parameters, layout = self.parameters, self._layout
        if parameters.rtx_ssrc is None or numbered.rtx_payload_type is None:
            # The same packet to the bit: other extensions under its sequence number would reuse the nonce (RFC 7714 §12.1).
            again = (
                marker | numbered.payload_type, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, parameters.ssrc, layout.extensions(at),
                (transport_sequence + step) & 0xFFFF if layout.transport_step else 0,
            )  # fmt: skip
        else:
            payload = (sequence & 0xFFFF).to_bytes(2, "big") + payload  # RFC 4588 §4: the original sequence number goes before
            again = (
                marker | numbered.rtx_payload_type, self._rtx_sequence & 0xFFFF, timestamp & 0xFFFFFFFF, parameters.rtx_ssrc,
                layout.extensions(now), self._departures.number_repair() & 0xFFFF if layout.transport_step else 0,
            )  # fmt: skip
            self._rtx_sequence += 1
        if self._send_single(again, payload):
            self.retransmitted += 1

    def _send_single(self, header: tuple[Any, ...], payload: bytes) -> bool:
        address, outbound, egress = self._transport.address, self._transport.outbound, self._transport.egress
        if address is None or outbound is None:
            return False
        view = egress.arena.view
        self._layout.struct.pack_into(view, 0, VERSION_WITH_EXTENSION, *header, payload)
        try:
            size = outbound.protect(egress.arena, 0, self._layout.size + len(payload))
        except SrtpError:
            return False
        return egress.send(view[:size], size, address)


def _first_sequence(sent: Sent) -> int:
    return sent[0]
