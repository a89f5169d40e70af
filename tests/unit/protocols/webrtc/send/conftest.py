import socket
from collections.abc import Iterator

import pytest

from protocols.webrtc.transport.egress import Egress


@pytest.fixture(params=["python", "native"])
def egress(request: pytest.FixtureRequest) -> Iterator[Egress]:
    """What is sent is the same whichever sends it."""
    module = request.getfixturevalue("module") if request.param == "native" else None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        yield Egress(sock, module)
