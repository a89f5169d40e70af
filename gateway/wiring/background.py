"""What goes on from the start to the end: media is taken, the store is followed, and what that costs is measured; then the goodbye."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

from gateway.config import Config
from gateway.enforcement.change_feed import ChangeFeed
from gateway.enforcement.retention import forget_ended_calls
from gateway.node.cpu import measure
from gateway.node.event_loop import measure_lag
from gateway.store.store import Store
from gateway.telemetry.latency import Histogram
from gateway.telemetry.log import event
from gateway.wiring.events import EventServices
from gateway.wiring.protocol import Listening
from gateway.wiring.sessions import SessionServices
from gateway.wiring.webrtc import WebrtcServices
from protocols.whep.resource import WhepResource

log = logging.getLogger(__name__)

GOODBYE_S = 2.0

Work = tuple[str, Coroutine[object, object, None]]
"""Its task's name, and what is done until it is cancelled."""


@asynccontextmanager
async def at_work(
    seats: SessionServices,
    told: EventServices,
    listening: Sequence[Listening],
    whep: WhepResource,
    webrtc: WebrtcServices,
    feed: ChangeFeed,
    lag: Histogram,
    further: Iterable[Work],
) -> AsyncIterator[None]:
    """Leaving it tells encoders, viewers and sockets that it is over, and waits for them for a moment."""
    async with asyncio.TaskGroup() as group:
        work = [("following the store", feed.run()), ("event loop delay", measure_lag(lag)), *further]
        work += _work(seats, listening, whep, webrtc)
        tasks = [group.create_task(each, name=name) for name, each in work]
        try:
            yield
        finally:
            await _say_goodbye(seats, whep)
            told.sockets.close()
            for task in tasks:
                task.cancel()


def retention(config: Config, store: Store) -> Iterator[Work]:
    """What deletes old calls, where they are not kept for ever."""
    if config.quotas.keep_ended_days:
        yield "retention", forget_ended_calls(store, timedelta(days=config.quotas.keep_ended_days))


def _work(seats: SessionServices, listening: Sequence[Listening], whep: WhepResource, webrtc: WebrtcServices) -> Iterator[Work]:
    for each in listening:
        policy = replace(seats.policy, track_timeout_s=None) if each.media_may_wait else seats.policy
        yield f"{each.listener.protocol} admission", seats.admission.serve(each.listener, policy)
    slate = seats.policy.slate

    def beside_cpu_ns() -> int:
        return webrtc.cpu_ns + (slate.pictures.cpu_ns if slate is not None else 0)

    yield "capacity", measure(seats.capacity, seats.registry, lambda: whep.viewers, beside_cpu_ns)
    yield "kept seats", seats.kept.run()
    for output in seats.outputs:
        yield from ((name, work()) for name, work in output.work.items())


async def _say_goodbye(seats: SessionServices, whep: WhepResource) -> None:
    registry = seats.registry
    await seats.kept.hand_over()
    seats.drain.end("the gateway is shutting down: connect again in a moment")
    try:
        async with asyncio.timeout(GOODBYE_S):
            await whep.aclose()
            while registry.seats:
                await registry.changed.wait()
    except TimeoutError:
        event(log, logging.WARNING, "some sessions did not end in time", seats=len(registry.seats))
