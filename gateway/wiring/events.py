"""Everybody who is told what happens, put together: the bus, the sockets of clients, and the operator's webhook where one is configured."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from gateway.access.authorizer import Authorizer
from gateway.api.event_socket import Sockets
from gateway.config import Config
from gateway.events.fanout import EventFanout
from gateway.events.interactions import Interactions
from gateway.events.producers import EventProducers
from gateway.events.webhook_call import Receiver
from gateway.events.webhooks import Webhooks
from gateway.model.events import Bus
from gateway.store.store import Store
from gateway.telemetry.latency import Histogram
from protocols.metric import MetricFamily


@dataclass(frozen=True, slots=True)
class EventServices:
    """`bus` is for who has something to tell, `producers` for seats and viewers, `interactions` for the API."""

    bus: Bus
    producers: EventProducers
    interactions: Interactions
    fanout: EventFanout
    sockets: Sockets
    webhooks: Webhooks | None

    @property
    def delay(self) -> Histogram:
        """From an event until it is written to the last of those that are told."""
        return self.fanout.delay

    def counters(self) -> Iterator[MetricFamily]:
        """For the metrics: what has been counted since the start, and what is now."""
        published = _by({kind.value: n for kind, n in self.bus.published.items()})
        yield MetricFamily("events", "Events, by type", published, ("type",))
        yield MetricFamily("events_sent", "Events times the sockets that they were written to", {(): self.fanout.written})
        yield MetricFamily("events_dropped", "Events that sockets were not told: too many waited", {(): self.fanout.dropped})
        meaning = "Reactions and messages beyond a rate, by whose"
        yield MetricFamily("interactions_refused", meaning, _by(self.interactions.refused), ("whose",))
        meaning = "WebSockets that ended, by why; client = it went"
        yield MetricFamily("event_sockets_closed", meaning, _by(self.sockets.closed), ("reason",))
        yield MetricFamily("event_sockets", "WebSockets open", {(): len(self.sockets.open)}, total=False)
        if (hooks := self.webhooks) is not None:
            yield MetricFamily("webhook_delivered", "Events that the webhook's receiver has taken", {(): hooks.delivered})
            yield MetricFamily("webhook_failed", "Attempts that failed, by why", _by(hooks.failed), ("reason",))
            meaning = "Events that the webhook's receiver will not be told"
            yield MetricFamily("webhook_dropped", meaning, _by(hooks.dropped), ("reason",))
            meaning = "Events that wait for the webhook's receiver"
            yield MetricFamily("webhook_waiting", meaning, {(): hooks.waiting}, total=False)


def _by(counts: Mapping[str, int]) -> Mapping[tuple[str, ...], float]:
    return {(label,): n for label, n in counts.items()}


@asynccontextmanager
async def event_services(config: Config, bus: Bus, authorizer: Authorizer, store: Store) -> AsyncIterator[EventServices]:
    """At the end what the webhook has not been told is in the store."""
    fanout = EventFanout()
    interactions = Interactions(bus)
    sockets = Sockets(authorizer, store, fanout, interactions, origins=config.http.cors_origins)
    webhooks = _webhooks(config, store)
    async with AsyncExitStack() as stack:
        if webhooks is not None:
            await stack.enter_async_context(webhooks.running())
            stack.enter_context(bus.listening(webhooks.hear))
        stack.enter_context(bus.listening(fanout.hear))
        await stack.enter_async_context(fanout.running())
        yield EventServices(bus, EventProducers(bus, authorizer.whose), interactions, fanout, sockets, webhooks)
        await asyncio.sleep(0)  # listeners are told in the event loop's next turn


def _webhooks(config: Config, store: Store) -> Webhooks | None:
    hooks = config.webhooks
    if not (url := hooks.url.get_secret_value()):
        return None
    types = frozenset(each.value for each in hooks.events)
    secret = hooks.secret.get_secret_value()
    receiver = Receiver(url, secret, types, hooks.allow_private, hooks.timeout_s)
    shared = config.database.url.get_secret_value().startswith("postgresql")
    return Webhooks(receiver, store.outbox, shared=shared)
