"""What the wiring knows of a protocol that encoders come by: what stands in its way before a start, and how it is made to listen."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from aiohttp import web

from gateway.access.authorizer import Authorizer
from gateway.access.credentials import Tokens
from gateway.config import Config
from gateway.ingress import MakeWay
from gateway.node.inherited_sockets import NO_SOCKETS, InheritedSockets
from gateway.node.selftest import Preconditions
from gateway.sessions.admission import Admission, Closing
from protocols.publisher import Listener
from protocols.webrtc.transport.udp_mux import UdpMux


@dataclass(frozen=True, slots=True)
class ListenerNeeds:
    """What a listener may be made of."""

    config: Config
    tokens: Tokens
    authorizer: Authorizer
    admission: Admission
    closing: Closing
    mux: UdpMux
    inherited: InheritedSockets = NO_SOCKETS


@dataclass(frozen=True, slots=True)
class Listening:
    """A listener that has been entered, and what others do for it."""

    listener: Listener
    routes: Sequence[web.RouteDef] = ()  # which the HTTP server has for it
    certificates: Mapping[str, str] = field(default_factory=dict)  # the files by what they are for: their ends are watched
    media_may_wait: bool = False  # its publishers may be without media for long
    stop_accepting: Callable[[], None] | None = (
        None  # leave who comes to whoever has its sockets next; None: it has none of its own
    )


@dataclass(frozen=True, slots=True)
class IngressProtocol:
    """One protocol, named as its listener names it. `listening` yields nothing where the configuration or this machine does not have it;
    raises `ConfigError`, `OSError` (a port is taken). `way` is what `gateway ingress` prints; None: there is nothing to paste."""

    name: str
    preconditions: Callable[[Config], Preconditions]
    listening: Callable[[ListenerNeeds], AbstractAsyncContextManager[Sequence[Listening]]]
    way: MakeWay | None
