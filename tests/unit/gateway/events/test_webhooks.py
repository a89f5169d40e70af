"""Webhooks against real receivers, with a real store: signed, in order, at least once, and nobody waits for them."""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.config.sources import ConfigError, load
from gateway.events import webhook_call, webhooks
from gateway.events.webhook_call import signing_key
from gateway.events.webhooks import MAX_REFUSALS, MAX_UNSAVED, Webhooks
from gateway.model.events import Bus, Event, EventType
from gateway.store.outbox import MAX_WAITING
from gateway.store.store import Store
from protocols.back_off import BackOff
from tests.support.receiver import Receiver, receiving
from tests.support.waiting import eventually

SECRET = "a secret of the operator, forty characters"
QUICK = BackOff(0.02, 0.1)
CALL = "livestream:demo"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(f"sqlite+aiosqlite:///{tmp_path}/store.db") as store:
        yield store


def hooks(receiver: Receiver, store: Store, *types: str, timeout_s: float = 10.0, allow_private: bool = True) -> Webhooks:
    return Webhooks(_where(receiver, *types, timeout_s=timeout_s, allow_private=allow_private), store.outbox, QUICK)


def _where(receiver: Receiver, *types: str, timeout_s: float = 10.0, allow_private: bool = True) -> webhook_call.Receiver:
    return webhook_call.Receiver(receiver.url, SECRET, frozenset(types), allow_private, timeout_s)


@asynccontextmanager
async def event_services(hooks: Webhooks) -> AsyncIterator[Bus]:
    bus = Bus()
    with bus.listening(hooks.hear):
        async with hooks.running():
            yield bus


def publish(bus: Bus, n: int, cid: str = CALL) -> list[Event]:
    return [bus.publish(EventType.CUSTOM, cid, {"custom": {"n": each}}) for each in range(n)]


def seqs(told: list[dict[str, object]], cid: str = CALL) -> list[object]:
    return [event["seq"] for event in told if event["cid"] == cid]


async def emptied(store: Store) -> None:
    async with asyncio.timeout(10):
        while True:
            if not await store.outbox.waiting():
                return
            await asyncio.sleep(0.01)


async def failed(told_to: Webhooks) -> None:
    async with asyncio.timeout(10):
        while True:
            if told_to.failed:
                return
            await asyncio.sleep(0.01)


async def test_events_are_told_in_order_and_signed_as_standard_webhooks_says(store: Store) -> None:
    async with receiving() as receiver, event_services(hooks(receiver, store)) as bus:
        published = publish(bus, 10)
        told = await receiver.told_of(10)
        await emptied(store)
    assert [event["id"] for event in told] == [event.id for event in published]
    for headers, body in receiver.asked:
        assert headers["Content-Type"] == "application/json"
        assert headers["webhook-id"] == json.loads(body)["id"]
        assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        digest = hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()
        assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"


def test_the_signature_of_standard_webhooks_own_example() -> None:
    """https://github.com/standard-webhooks/standard-webhooks: secret, message and signature of its test vectors."""
    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = webhook_call.signed(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signing_key("whsec_%") == b"whsec_%"


async def test_a_receiver_that_fails_is_told_everything_in_order_once_it_recovers(store: Store) -> None:
    async with receiving() as receiver:
        receiver.status = 503
        told_to = hooks(receiver, store)
        async with event_services(told_to) as bus:
            published = publish(bus, 5) + publish(bus, 5, "livestream:other")
            await receiver.asked_for(4)
            receiver.status = 200
            told = await receiver.told_of(10)
            await emptied(store)
    for cid in (CALL, "livestream:other"):
        assert seqs(told, cid) == [event.seq for event in published if event.cid == cid]
    assert told_to.failed["error"] >= 4
    assert told_to.delivered == 10
    assert not told_to.dropped


async def test_one_that_hangs_is_given_up_and_asked_again(store: Store) -> None:
    async with receiving() as receiver:
        receiver.working.clear()
        told_to = hooks(receiver, store, timeout_s=0.1)
        async with event_services(told_to) as bus:
            published = publish(bus, 3)
            await receiver.asked_for(2)
            receiver.working.set()
            told = await receiver.told_of(3)
            await emptied(store)
    assert told_to.failed["timeout"] >= 1
    assert list(dict.fromkeys(seqs(told))) == [event.seq for event in published][: len(set(seqs(told)))]


async def test_what_was_not_told_is_told_after_a_restart_by_the_next_gateway(store: Store) -> None:
    async with receiving() as receiver:
        port = int(receiver.url.split(":")[2].split("/")[0])
        away = hooks(receiver, store)
    async with event_services(away) as bus:  # nobody listens there now
        first = publish(bus, 3)
    assert await store.outbox.waiting() == 3, "the end of the gateway saves what came last"
    async with receiving(port) as receiver, event_services(hooks(receiver, store)) as bus:
        second = publish(bus, 2)
        told = await receiver.told_of(5)
    assert [event["id"] for event in told] == [event.id for event in first + second]


async def test_an_event_that_is_refused_holds_up_its_call_alone_and_is_dropped_in_the_end(store: Store) -> None:
    async with receiving() as receiver:
        receiver.status, receiver.refused = 422, "call.ended"
        told_to = hooks(receiver, store)
        async with event_services(told_to) as bus:
            bus.publish(EventType.CALL_ENDED, CALL)
            after = publish(bus, 2)
            other = publish(bus, 2, "livestream:other")
            told = await receiver.told_of(4)
    assert {tuple(seqs(told[:2], "livestream:other"))} == {tuple(event.seq for event in other)}
    assert seqs(told) == [event.seq for event in after]
    assert told_to.failed == {"refused": MAX_REFUSALS}
    assert told_to.dropped == {"refused": 1}


async def test_two_gateways_with_one_store_tell_each_event_once_and_in_order(store: Store) -> None:
    async with receiving() as receiver:
        one, other = (Webhooks(_where(receiver), store.outbox, QUICK, shared=True) for _ in range(2))
        async with event_services(one) as bus, event_services(other) as other_bus:
            published = [event for n in range(6) for event in publish(bus, 2) + publish(other_bus, 1, f"livestream:{n}")]
            told = await receiver.told_of(len(published))
            await emptied(store)
    assert one.delivered + other.delivered == len(published) == len(receiver.asked)
    assert seqs(told) == [event.seq for event in published if event.cid == CALL]


async def test_what_a_gateway_that_died_had_claimed_is_told_by_the_next(store: Store) -> None:
    async with receiving() as receiver:
        now = datetime.now(UTC)
        event = Bus().publish(EventType.CUSTOM, CALL)
        await store.outbox.add([(CALL, event.type, event.text.encode())], now)
        (waiting,) = await store.outbox.first_of_each_call()
        assert await store.outbox.claim(waiting.seq, now, now + timedelta(seconds=0.3))
        assert not await store.outbox.claim(waiting.seq, now, now + timedelta(seconds=60))
        async with event_services(Webhooks(_where(receiver), store.outbox, QUICK, shared=True)):
            assert [each["id"] for each in await receiver.told_of(1)] == [event.id]


async def test_only_the_events_that_were_asked_for(store: Store) -> None:
    async with receiving() as receiver, event_services(hooks(receiver, store, "call.ended", "ingress.error")) as bus:
        publish(bus, 3)
        for kind in (EventType.CALL_CREATED, EventType.INGRESS_ERROR, EventType.CALL_ENDED):
            bus.publish(kind, CALL)
        told = await receiver.told_of(2)
        await emptied(store)
    assert [event["type"] for event in told] == ["ingress.error", "call.ended"]
    assert len(receiver.asked) == 2


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0"])
async def test_no_private_address_is_called_unless_allowed(name: str, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    async with receiving() as receiver:
        receiver.url = receiver.url.replace("127.0.0.1", name)
        told_to = hooks(receiver, store, allow_private=False)
        with caplog.at_level(logging.WARNING):
            async with event_services(told_to) as bus:
                publish(bus, 1)
                await failed(told_to)
    assert set(told_to.failed) == {"private"}
    assert receiver.asked == []
    assert "webhooks.allow_private" in caplog.text


async def test_redirects_are_not_followed(store: Store) -> None:
    async with receiving() as receiver:
        receiver.status = 307
        told_to = hooks(receiver, store)
        async with event_services(told_to) as bus:
            publish(bus, 1)
            await receiver.asked_for(2)
    assert set(told_to.failed) == {"error"}


async def test_what_waits_is_bounded_in_memory_and_in_the_store(store: Store) -> None:
    async with receiving() as receiver:
        receiver.working.clear()
        told_to = hooks(receiver, store)
        async with event_services(told_to) as bus:
            publish(bus, 1)
            await receiver.asked_for(1)  # it hangs, and the store has the event
            for n in range(MAX_UNSAVED + 7):
                bus.publish(EventType.CUSTOM, CALL, {"n": n})
            await asyncio.sleep(0)
            assert told_to.dropped == {"overflow": 7}

            async def saved() -> bool:
                return await store.outbox.waiting() == 1 + MAX_UNSAVED

            await eventually(saved)
    assert MAX_WAITING > MAX_UNSAVED


async def test_no_address_and_no_secret_is_shown(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    where = webhook_call.Receiver("https://user:hidden-word@receiver.invalid/hidden-path", "hidden-secret", timeout_s=2)
    told_to = webhooks.Webhooks(where, store.outbox, QUICK)
    with caplog.at_level(logging.DEBUG):
        async with event_services(told_to) as bus:
            publish(bus, 1)
            await failed(told_to)
    assert set(told_to.failed) <= {"unreachable", "timeout"}
    assert "the webhook's receiver fails" in caplog.text
    assert "hidden" not in caplog.text + repr(where)


LONG = f"webhooks.secret={SECRET}"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["webhooks.url=ftp://a/b", LONG], "is no address"),
        (["webhooks.url=https:///path", LONG], "is no address"),
        (["webhooks.url=https://a.example/b"], "webhooks.secret is missing"),
        (["webhooks.url=https://a.example/b", "webhooks.secret=short"], "is too short"),
        (["webhooks.url=http://a.example/b", LONG], "webhooks.url must be https://"),
        (["webhooks.events=call.endet"], "call.ended"),
    ],
)
def test_configurations_that_would_not_do(settings: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        load(None, settings)
    assert SECRET not in str(error.value)


def test_a_configuration() -> None:
    config = load(None, ["webhooks.url=http://a:1/b", LONG, "webhooks.allow_private=true", "webhooks.events=call.ended,custom"])
    assert config.webhooks.events == (EventType.CALL_ENDED, EventType.CUSTOM)
