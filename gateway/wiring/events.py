"""Everybody who is told what happens, put together: the bus, the sockets of clients, and the operator's webhook where one is configured."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
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

Samples = Iterable[tuple[tuple[str, ...], int]]
Figure = tuple[str, str, tuple[str, ...], Samples]
"""For the metrics: name, meaning, labels, and each of the labels' values with its count."""


@dataclass(frozen=True, slots=True)
class EventServices:
    """`bus` is for who has something to tell, `announcements` for sessions and calls, `interactions` for the API."""

    bus: Bus
    producers: EventProducers
    interactions: Interactions
    fanout: EventFanout
    sockets: Sockets
    webhooks: Webhooks | None

    def totals(self) -> Iterator[Figure]:
        """What has been counted since the start."""
        published = [((kind.value,), n) for kind, n in self.bus.published.items()]
        yield "events", "Events, by type", ("type",), published
        yield "events_sent", "Events times the sockets that they were written to", (), [((), self.fanout.written)]
        yield "events_dropped", "Events that sockets were not told: too many waited", (), [((), self.fanout.dropped)]
        yield (
            "interactions_refused",
            "Reactions and messages beyond a rate, by whose",
            ("whose",),
            _by(self.interactions.refused),
        )
        yield "event_sockets_closed", "WebSockets that ended, by why; client = it went", ("reason",), _by(self.sockets.closed)
        if self.webhooks is not None:
            hooks = self.webhooks
            yield "webhook_delivered", "Events that the webhook's receiver has taken", (), [((), hooks.delivered)]
            yield "webhook_failed", "Attempts that failed, by why", ("reason",), _by(hooks.failed)
            yield "webhook_dropped", "Events that the webhook's receiver will not be told", ("reason",), _by(hooks.dropped)

    def present(self) -> Iterator[Figure]:
        """What is now."""
        yield "event_sockets", "WebSockets open", (), [((), len(self.sockets.open))]
        if self.webhooks is not None:
            yield "webhook_waiting", "Events that wait for the webhook's receiver", (), [((), self.webhooks.waiting)]


def _by(counts: Mapping[str, int]) -> Samples:
    return [((label,), n) for label, n in counts.items()]


@asynccontextmanager
async def event_services(config: Config, authorizer: Authorizer, store: Store) -> AsyncIterator[EventServices]:
    """At the end what the webhook has not been told is in the store."""
    bus, fanout = Bus(), EventFanout()
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
