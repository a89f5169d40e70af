import socket
from collections.abc import Callable, Iterator

import pytest

from protocols.webrtc.transport.egress import Egress
from tests.unit.protocols.webrtc.loopback import GCM_256, Peer, Timers


@pytest.fixture
def egress() -> Iterator[Egress]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        yield Egress(sock)


@pytest.fixture
def peer_of(egress: Egress) -> Iterator[Callable[..., Peer]]:
    """Makes peers whose sockets are closed behind the test."""
    made: list[Peer] = []

    def make(profile: int = GCM_256) -> Peer:
        made.append(Peer(egress, profile))
        return made[-1]

    yield make
    for peer in made:
        peer.socket.close()


@pytest.fixture
def peer(peer_of: Callable[..., Peer]) -> Peer:
    return peer_of()


@pytest.fixture
def timers() -> Timers:
    return Timers()
