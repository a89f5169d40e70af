"""The far end of a viewer, as in the tests of what is sent."""

from tests.unit.protocols.webrtc.conftest import egress, peer, peer_of, timers

__all__ = ["egress", "peer", "peer_of", "timers"]
