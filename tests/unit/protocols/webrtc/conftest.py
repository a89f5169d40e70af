import socket
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

import pytest

from protocols.webrtc.native.build import MODULE, build
from protocols.webrtc.transport.egress import Egress
from tests.unit.protocols.webrtc.loopback import GCM_256, Peer, Timers


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ModuleType]:
    """Builds the native part with these flags of the compiler, once each."""
    modules: dict[tuple[str, ...], ModuleType] = {}

    def of(*flags: str) -> ModuleType:
        if flags not in modules:
            spec = spec_from_file_location(MODULE, build(tmp_path_factory.mktemp("native"), flags))
            assert spec is not None
            assert spec.loader is not None
            modules[flags] = module_from_spec(spec)
            spec.loader.exec_module(modules[flags])
        return modules[flags]

    return of


@pytest.fixture
def module(built: Callable[..., ModuleType]) -> ModuleType:
    return built()


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
