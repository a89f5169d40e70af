"""One viewer's way, which all m-lines that we send on share: what carries their packets, when those left, how fast they may."""

from typing import Any, Protocol

from protocols.webrtc.send.bursts import BurstRate
from protocols.webrtc.send.departures import Departures
from protocols.webrtc.transport.egress import Egress
from protocols.webrtc.transport.srtp import OutboundSrtp


class SenderTransport(Protocol):
    """What the peer (`transport.peer.Peer`) shows its senders."""

    address: tuple[Any, ...] | None
    """Where to, as the socket takes it; follows the peer when it roams. None: nowhere yet."""
    outbound: OutboundSrtp | None
    """None until DTLS is connected."""
    egress: Egress


class ViewerWay:
    """Made before the senders on it and the `RtcpSession` that reads what the viewer says of them."""

    __slots__ = ("bursts", "departures", "transport")

    def __init__(self, transport: SenderTransport, transport_sequence: int = 0) -> None:
        """`transport_sequence` is the first transport-wide sequence number: one counter for all m-lines."""
        self.transport = transport
        self.departures = Departures(transport_sequence)
        self.bursts = BurstRate()
