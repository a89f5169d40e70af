"""The whole gateway, from its start to its end: what is made in which order, what runs, and how it goes.

Kept true: what is started is stopped in the opposite order, each with a time limit; on SIGTERM no new stream is taken, those that are live
may go on for `shutdown.drain_s`, then encoders and viewers are told, and the process is gone within five seconds. A second signal ends the
drain. Where the listening sockets are somebody else's, who keeps them open, it is a restart: the process leaves at once, and who comes
meanwhile waits for the next one.
"""

import asyncio
import gc
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from gateway.access.credentials import Secret, Tokens
from gateway.config import Config
from gateway.events.producers import CallEvents
from gateway.model.events import Bus
from gateway.node.descriptors import raise_limit
from gateway.node.drain import Drain
from gateway.node.inherited_sockets import NO_SOCKETS, InheritedSockets
from gateway.telemetry.latency import Histogram
from gateway.telemetry.log import event
from gateway.telemetry.tracing import tracing
from gateway.wiring.api import observed, routes
from gateway.wiring.background import at_work, retention
from gateway.wiring.enforcement import change_feed
from gateway.wiring.events import event_services
from gateway.wiring.http import http_connections, http_server, http_sockets, operator_socket, port_of
from gateway.wiring.leaving import StopAccepting, accepting, drained, make_way
from gateway.wiring.listeners import PROTOCOLS, listeners, ports
from gateway.wiring.output import MakeOutput
from gateway.wiring.outputs import OUTPUTS
from gateway.wiring.protocol import IngressProtocol, ListenerNeeds
from gateway.wiring.sessions import session_services, worker_limits
from gateway.wiring.store import open_store_access
from gateway.wiring.webrtc import webrtc_services
from protocols.whep.resource import WhepResource
from transcode.host.pool import Workers

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway that takes streams. `ports` by name: those that are really bound (a configured 0 is any free one); 0: not listening."""

    ports: Mapping[str, int]
    drain: Drain
    accepting: Sequence[StopAccepting]


async def run(config: Config, ready: Callable[[Running], None]) -> None:
    """Run until SIGTERM or SIGINT. `ready` is told once everything listens.

    Raises:
        ConfigError: the secret file cannot be used.
        OSError: a port is taken, with the address in its text.
    """
    loop = asyncio.get_running_loop()
    stop, at_once = asyncio.Event(), asyncio.Event()

    def signalled() -> None:
        (at_once if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    inherited = InheritedSockets.of(os.environ)
    async with gateway(config, inherited=inherited) as running:
        gc.collect()
        gc.freeze()  # what stands now stays: collections that walk it (80,000 objects) stall all media for tens of ms
        gc.enable()
        ready(running)
        event(log, logging.INFO, "ready", **running.ports)
        await stop.wait()
        if inherited:
            await make_way(running.accepting)
        elif config.shutdown.drain_s:
            await drained(running.drain, config.shutdown.drain_s, at_once)
        event(log, logging.INFO, "shutting down: encoders and viewers are told")


@asynccontextmanager
async def gateway(
    config: Config,
    protocols: Sequence[IngressProtocol] = PROTOCOLS,
    outputs: Sequence[MakeOutput] = OUTPUTS,
    inherited: InheritedSockets = NO_SOCKETS,
) -> AsyncIterator[Running]:
    """Everything running; leaving it says goodbye to encoders and viewers and closes all. Encoders come by `protocols`; their media go to
    the call, and to `outputs`. Of the listening sockets those are used that were `inherited`."""
    tokens, bus, lag = Tokens(Secret.load(config)), Bus(), Histogram()
    calls, connections = CallEvents(bus), http_connections(config, protocols, raise_limit())
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        sockets = await enter(http_sockets(config, inherited))
        access = await enter(open_store_access(config, tokens, calls.written))
        told = await enter(event_services(config, bus, access.authorizer, access.store))
        workers = await enter(Workers(worker_limits(config)))
        webrtc = await enter(webrtc_services(config))
        trace = await enter(tracing(config.tracing.endpoint))
        seats = await session_services(config, port_of(sockets), tokens, access, told, workers, trace, outputs, webrtc.fanout)
        feed = await change_feed(access, seats, told, calls)
        whep = WhepResource(webrtc.mux, seats.viewers, webrtc.fanout, cors_origins=config.http.cors_origins)
        needs = ListenerNeeds(config, tokens, access.authorizer, seats.admission, seats.drain, webrtc.mux, inherited)
        listening = await enter(listeners(protocols, needs))
        figures = observed(config, seats, told, protocols, listening, workers, webrtc, whep, lag, connections)
        served = routes(config, tokens, access, seats, told, listening, whep, figures)
        server = await enter(http_server(config, sockets, connections, served))
        inherited.warn_of_unused()
        await enter(operator_socket(config, seats.drain))
        await enter(at_work(seats, told, listening, whep, webrtc, feed, lag, retention(config, access.store)))
        bound = {"http": port_of(sockets), **ports(listening), "webrtc": webrtc.mux.port}
        yield Running(bound, seats.drain, accepting(server.stop_accepting, listening))
