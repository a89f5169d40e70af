"""One RTP stream as one viewer gets it, with the stream of its repairs (RFC 4588): numbers, headers, protection, and the way out.

What is kept true: sequence numbers are contiguous; a packet leaves under one sequence number with one content (RFC 7714 §12.1: never two
under one key) and under its codec's payload type; what is sent again stays within the budget.
"""

import random
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Protocol

from protocols.webrtc.rtp import HeaderLayout, SendFormat, SendParameters
from protocols.webrtc.send.departures import Sent
from protocols.webrtc.send.history import History, Run
from protocols.webrtc.send.repair import RepairBudget
from protocols.webrtc.send.way import ViewerWay
from protocols.webrtc.transport.egress import Egress
from protocols.webrtc.transport.runs import OutgoingRun, outgoing_run
from protocols.webrtc.transport.srtp import SrtpError


class RunSource(Protocol):
    """The source of what is sent (`source.Source`), as its streams see it."""

    history: History
    outgoing: defaultdict[Egress, list[OutgoingRun]]
    """What is to leave by each socket when all receivers have had their turn."""


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

    def send(self, run: Run, payload_type: int, timestamp: int, now: int, source: RunSource) -> bool:
        """Numbers it and puts it to what leaves `source` next. False where there is no way to the viewer."""
        transport, packets = self._transport, run.packets
        address, outbound = transport.address, transport.outbound
        count = len(packets)
        if address is None or outbound is None:
            self.dropped += count
            return False
        layout, sequence, sent, departures, size = self._layout, self._sequence, self.sent, self._departures, run.size
        counted = departures.next if layout.transport_step else 0
        left = (sequence, count, run.index, timestamp, counted, now, size)
        if layout.transport_step:
            departures.next = counted + count
            departures.runs.append(left)
        sent.append(left)
        oldest = source.history.oldest
        while sent[0][2] < oldest and len(sent) > 1:
            sent.popleft()
        self._sequence = sequence + count
        self.last_sent = now
        self.packets += count
        self.payload_bytes += size
        source.outgoing[transport.egress].append(
            outgoing_run(
                (
                    self,
                    packets,
                    layout,
                    payload_type,
                    sequence,
                    timestamp,
                    self.parameters.ssrc,
                    now,
                    counted,
                    outbound,
                    address,
                )
            )
        )
        return True

    def lost(self, run: OutgoingRun) -> None:
        """It is not among what was sent after all."""
        self.packets -= len(run.packets)
        self.payload_bytes -= sum(len(payload) for _, payload in run.packets)
        self.dropped += len(run.packets)

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
        again: list[OutgoingRun] = []
        for wrapped in sequences:
            if not budget.look():
                break
            self.nacks += 1
            sequence = self._sequence - ((self._sequence - wrapped) & 0xFFFF)
            if sequence >= self._repairable and budget.due(sequence, now):
                again += self._repairing(sequence, history, numbered, now)
        if again:
            self.retransmitted += len(again) - len(self._transport.egress.runs.send(again))

    def _repairing(self, sequence: int, history: History, numbered: SendFormat, now: int) -> Iterator[OutgoingRun]:
        """The packet to be sent for this one, where there is one."""
        address, outbound = self._transport.address, self._transport.outbound
        position = bisect_right(self.sent, sequence, key=_first_sequence) - 1
        if position < 0:
            return
        first, count, index, timestamp, counted, at, _ = self.sent[position]
        step = sequence - first
        packet = history.packet(index + step) if step < count else None
        if packet is None:
            return
        marker, payload = packet
        self._budget.spend(sequence, len(payload), now)
        if address is None or outbound is None:
            return
        layout, ssrc, payload_type = self._layout, self.parameters.rtx_ssrc, numbered.rtx_payload_type
        if ssrc is None or payload_type is None:
            # The same packet to the bit: other extensions under its sequence number would reuse the nonce (RFC 7714 §12.1).
            ssrc, payload_type = self.parameters.ssrc, numbered.payload_type
            counted, now = counted + step if layout.transport_step else 0, at
        else:
            payload = (sequence & 0xFFFF).to_bytes(2, "big") + payload  # RFC 4588 §4: the original sequence number goes before
            counted = self._departures.next if layout.transport_step else 0
            self._departures.next += layout.transport_step
            sequence, self._rtx_sequence = self._rtx_sequence, self._rtx_sequence + 1
        packets = ((marker, payload),)
        yield OutgoingRun(self, packets, layout, payload_type, sequence, timestamp, ssrc, now, counted, outbound, address)


def _first_sequence(sent: Sent) -> int:
    return sent[0]
