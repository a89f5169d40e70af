"""What the wiring knows of an output beside the call: what it may be made of, and what others do for it."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field

from aiohttp import web

from gateway.access.authorizer import Authorizer
from gateway.api.framework.broadcasts import Broadcasts
from gateway.config import Config
from gateway.sessions.capacity import Capacity
from gateway.sessions.output import CountedDestination, ResumableDestination


@dataclass(frozen=True, slots=True)
class OutputNeeds:
    """What an output may be made of; `http_port` is the bound one, `secret` signs."""

    config: Config
    http_port: int
    secret: bytes = field(repr=False)
    authorizer: Authorizer
    capacity: Capacity


@dataclass(frozen=True, slots=True)
class MediaOutput:
    """An output that takes media of every seat, and what others do for it."""

    destination: CountedDestination
    routes: Sequence[web.RouteDef] = ()  # which the HTTP server has for it
    work: Mapping[str, Callable[[], Coroutine[object, object, None]]] = field(default_factory=dict)
    """What it does all the time, until it is cancelled, by its task's name; an error out of it ends the gateway."""
    broadcasts: Broadcasts | None = None  # what the API starts and stops of it; one output at most has that
    resumable: ResumableDestination | None = None  # what goes on of it after a restart


MakeOutput = Callable[[OutputNeeds], MediaOutput | None]
"""None where the configuration does not have it; raises `ConfigError`."""
