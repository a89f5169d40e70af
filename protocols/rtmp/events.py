"""What happens in an RTMP session, as its user is told. Sans-IO."""

from dataclasses import dataclass, field
from typing import TypeAlias

from protocols.errors import ProtocolError
from protocols.media import LeftOut
from protocols.publisher import Credential
from protocols.rtmp.tracks import MediaItem


@dataclass(frozen=True, slots=True)
class HandshakeDone:
    """The peer speaks RTMP."""


@dataclass(frozen=True, slots=True)
class PublishRequested:
    """The session is held until `accept` or `refuse`. `params` has `app` and the queries of app and name."""

    credential: Credential
    params: dict[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The encoder ended its stream in order."""


@dataclass(frozen=True, slots=True)
class Dismissed:
    """We end the connection: what is to be sent goes out `delay` ns from now. `failed`: a wrong password."""

    delay: int
    failed: bool


@dataclass(frozen=True, slots=True)
class Broken:
    """The peer broke the wire format; what came before stands. `told`: it is told so in what is to be sent now."""

    error: ProtocolError
    told: bool = False


Event: TypeAlias = HandshakeDone | PublishRequested | StreamEnded | Dismissed | Broken | MediaItem | LeftOut
