"""Publishers without HTTP: as a session that has decided gets them."""

from protocols.publisher import Credential
from protocols.webrtc.sdp import answer
from protocols.webrtc.sdp.description import Offer
from protocols.webrtc.transport.udp_mux import UdpMux
from protocols.whip.limits import WhipLimits
from protocols.whip.publisher import WhipPublisher
from tests.unit.protocols.webrtc.clients import BarePeer, within


def publisher_of(mux: UdpMux, offer: Offer) -> WhipPublisher:
    return WhipPublisher(
        mux,
        offer,
        answer.receiving(offer),
        credential=Credential("key"),
        params={},
        client="",
        remote="",
        software="",
        limits=WhipLimits(),
    )


async def published(mux: UdpMux, bare: BarePeer) -> WhipPublisher:
    """`bare`, connected, with a publisher's life around the port's side of it."""
    publisher = publisher_of(mux, bare.offer())
    await publisher.accept()
    assert publisher.peer is not None
    bare.peer.close()
    await within(bare.peer.closed.wait())
    bare.peer = publisher.peer
    await bare.connect()
    return publisher
