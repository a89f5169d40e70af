"""The WebSocket of events: who is let in, what it is told, what it may send, and what happens to those who do not behave."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from aiohttp import WSMsgType, web

from gateway.access.credentials import Secret, Tokens
from gateway.access.jwt import VIEWER
from gateway.access.sealing import Sealing
from gateway.access.viewers import Viewers
from gateway.api.event_socket import MAX_MESSAGE, MAX_PER_USER, MAX_SUBSCRIPTIONS, Sockets, Timeouts
from gateway.config.sources import load
from gateway.enforcement.change_feed import ChangeFeed
from gateway.enforcement.enforcement import Enforcement
from gateway.events.fanout import EventFanout
from gateway.events.interactions import SENDER_BURST, Interactions
from gateway.events.producers import CallEvents, EventProducers
from gateway.model import lifecycle
from gateway.model.events import Bus, EventType, event_of
from gateway.model.records import ApiKey, Call, Member, SealedSecret, User
from gateway.outputs.embedded.call import EmbeddedCall
from gateway.sessions.registry import Registry
from gateway.store.calls import blocked
from gateway.store.store import Store
from gateway.wiring.store import StoreAccess, open_store_access
from tests.support.unheard import unheard

DEMO = "livestream:demo"  # public and live
SHOW = "livestream:show"  # in backstage; its host is john
SECRET = b"s" * 32
APP_SECRET = b"a" * 32
NOW = datetime.now(UTC)


@dataclass
class Stage:
    """A gateway's events, without its media."""

    store_access: StoreAccess
    tokens: Tokens
    bus: Bus
    sockets: Sockets
    url: str = ""

    def user(self, user_id: str, ttl_s: int = 3600, **claims: Any) -> str:
        """A user's token of the application."""
        exp = int(datetime.now(UTC).timestamp()) + ttl_s
        return jwt.encode({"user_id": user_id, "exp": exp} | claims, APP_SECRET, algorithm="HS256")

    def server(self, **claims: Any) -> str:
        exp = int(datetime.now(UTC).timestamp()) + 3600
        return jwt.encode({"server": True, "exp": exp} | claims, APP_SECRET, algorithm="HS256")

    async def change(self, kind: EventType, change: Any) -> None:
        call = await self.store_access.store.calls.change(SHOW, change, now=datetime.now(UTC))
        self.bus.publish(kind, SHOW, {"live": call.live})

    def open(self, token: str | None = "", **options: Any) -> "Client":
        return Client(self.url, token, options)


class Client:
    """`async with`: connected, and known by `token` (None: it says nothing first)."""

    def __init__(self, url: str, token: str | None, options: dict[str, Any]) -> None:
        small = options.pop("small_buffer", False)
        self._connector = aiohttp.TCPConnector(socket_factory=_small_buffer if small else None)
        self._url, self._token, self._options = url, token, options
        self.transport: asyncio.Transport | None = None

    async def __aenter__(self) -> "Client":
        self._http = aiohttp.ClientSession(connector=self._connector)
        self.ws = await self._http.ws_connect(self._url, **self._options)
        self.transport = self.ws._writer.transport  # to stop reading as a stuck client does
        if self._token is not None:
            await self.ws.send_json({"type": "authenticate", "token": self._token, "api_key": "app" if self._token else ""})
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.ws.close()
        await self._http.close()

    async def say(self, **message: Any) -> dict[str, Any]:
        """The answer to it."""
        await self.ws.send_json({"id": "n", **message})
        return await self.hear(reply_to="n")

    async def hear(self, *types: str, reply_to: str | None = None) -> dict[str, Any]:
        """The next message of these types (any), with this `reply_to` (any)."""
        async with asyncio.timeout(10):
            while True:
                message = await self.ws.receive()
                assert message.type is WSMsgType.TEXT, (message, self.ws.close_code)
                found: dict[str, Any] = json.loads(message.data)
                if (not types or found["type"] in types) and reply_to in (None, found.get("reply_to")):
                    return found

    async def closed(self) -> int | None:
        async with asyncio.timeout(10):
            while (await self.ws.receive()).type is WSMsgType.TEXT:
                pass
        code: int | None = self.ws.close_code
        return code

    async def until(self, n: int) -> list[str]:
        """The types of what is told up to the custom event `n`."""
        types: list[str] = []
        while True:
            event = await self.hear()
            types.append(event["type"])
            if event["type"] == "custom" and event["payload"]["custom"].get("n") == n:
                return types


@asynccontextmanager
async def staged(folder: Path, **options: Any) -> AsyncIterator[Stage]:
    tokens, bus, broadcast = Tokens(Secret(SECRET)), Bus(), EventFanout()
    async with open_store_access(
        load(None, [f"state.directory={folder}", f"calls.public={DEMO}"]), tokens, unheard
    ) as store_access:
        registry = Registry(lambda cid, on_empty: EmbeddedCall(cid, max_participants=4, on_empty=on_empty))
        viewers_admitted = Viewers(registry.call, store_access.authorizer.watch, unheard, unheard)
        producers, calls = EventProducers(bus, store_access.authorizer.whose), CallEvents(bus)
        enforcement = Enforcement(
            registry,
            {},
            viewers_admitted,
            store_access.rights_cache,
            store_access.authorizer,
            store_access.store,
            on_changed=broadcast.reconsider,
            on_ended=calls.written,
            on_muted=producers.muted,
        )
        change_feed = ChangeFeed(
            store_access.store,
            store_access.rights_cache,
            enforcement,
            on_elsewhere=calls.elsewhere,
        )
        await change_feed.start()
        sealed = Sealing(SECRET).seal(APP_SECRET, "app")
        await store_access.store.api_keys.add(ApiKey("app", "an app", (SealedSecret(sealed, NOW),), NOW))
        await store_access.store.users.put([User("john", NOW, NOW, name="John"), User("vera", NOW, NOW, name="Vera")])
        kinds = await store_access.store.call_types.all()
        await store_access.store.calls.get_or_create(
            lifecycle.created(kinds["livestream"], "show", "john", NOW), [Member(SHOW, "john", NOW, NOW, "host")]
        )
        sockets = Sockets(store_access.authorizer, store_access.store, broadcast, Interactions(bus), **options)
        stage = Stage(store_access, tokens, bus, sockets)
        application = web.Application()
        application.add_routes(sockets.routes())
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        polling = asyncio.create_task(change_feed.run())
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            stage.url = f"http://127.0.0.1:{runner.addresses[0][1]}/api/v2/video/connect"
            with bus.listening(broadcast.hear):
                async with broadcast.running():
                    yield stage
        finally:
            polling.cancel()
            await runner.cleanup()


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as stage:
        yield stage


async def nobody_left(stage: Stage) -> None:
    async with asyncio.timeout(10):
        while True:
            if not stage.sockets.open:
                return
            await asyncio.sleep(0.01)


def custom(n: int) -> dict[str, Any]:
    return {"custom": {"n": n}}


async def test_a_viewer_is_told_what_happens_and_may_take_part(stage: Stage) -> None:
    async with stage.open(stage.user("vera")) as vera, stage.open() as anybody:
        assert (await vera.hear("connection.ok"))["user"] == {"id": "vera", "name": "Vera", "role": "user"}
        assert (await anybody.hear("connection.ok"))["user"]["role"] == "anonymous"
        subscribed = await vera.say(type="subscribe", cid=DEMO)
        assert "send-event" in subscribed["own_capabilities"]
        assert "send-event" not in (await anybody.say(type="subscribe", cid=DEMO))["own_capabilities"]

        sent = await vera.say(type="reaction", cid=DEMO, reaction={"type": "like", "emoji_code": "👍"})
        for client in (vera, anybody):
            event = await client.hear("call.reaction_new")
            assert event["payload"]["reaction"] == {"type": "like", "emoji_code": "👍", "custom": {}}
            assert event["payload"]["user"]["id"] == "vera"
        assert event["id"] == sent["event_id"]

        await vera.say(type="custom", cid=DEMO, custom={"text": "hello"})
        assert (await anybody.hear("custom"))["payload"]["custom"] == {"text": "hello"}
        refused = await anybody.say(type="custom", cid=DEMO, custom={"text": "me too"})
        assert (refused["type"], refused["status"], refused["code"]) == ("error", 401, "unauthenticated")

        await anybody.say(type="unsubscribe", cid=DEMO)
        stage.bus.publish(EventType.CUSTOM, DEMO, custom(1))
        stage.bus.publish(EventType.CUSTOM, DEMO, custom(2))
        assert (await vera.until(2))[-2:] == ["custom", "custom"]
        assert (await anybody.say(type="ping"))["type"] == "pong"


async def test_audiences_follow_the_calls_life(stage: Stage) -> None:
    async with stage.open(stage.user("vera")) as vera, stage.open(stage.user("john")) as john:
        await vera.say(type="subscribe", cid=SHOW)
        await john.say(type="subscribe", cid=SHOW)
        refused = await vera.say(type="custom", cid=SHOW, custom={})
        assert (refused["status"], "backstage" in refused["message"]) == (403, True)

        stage.bus.publish(EventType.CUSTOM, SHOW, custom(1))
        stage.bus.publish(EventType.INGRESS_STARTED, SHOW)
        await stage.change(EventType.CALL_LIVE_STARTED, lambda call: lifecycle.gone_live(call, NOW))
        stage.bus.publish(EventType.CUSTOM, SHOW, custom(2))
        await stage.change(EventType.CALL_LIVE_ENDED, lambda call: lifecycle.stopped_live(call, NOW))
        stage.bus.publish(EventType.CUSTOM, SHOW, custom(3))
        await stage.change(EventType.CALL_LIVE_STARTED, lambda call: lifecycle.gone_live(call, NOW))
        stage.bus.publish(EventType.CUSTOM, SHOW, custom(4))
        live = ["call.live_started", "custom", "call.live_ended", "call.live_started", "custom"]
        assert await vera.until(4) == live
        assert await john.until(4) == ["custom", "ingress.started", *live[:3], "custom", *live[3:]]


async def test_who_comes_later_is_given_what_was_said_but_not_in_backstage(stage: Stage) -> None:
    for n in range(80):
        stage.bus.publish(EventType.CUSTOM, DEMO, custom(n))
    for n in range(5):
        stage.bus.publish(EventType.CUSTOM, SHOW, {"custom": {"n": n, "text": "x" * 9000}})
    async with stage.open(stage.user("vera")) as vera, stage.open(stage.user("john")) as john:
        recent = (await vera.say(type="subscribe", cid=DEMO))["recent"]
        assert [each["payload"]["custom"]["n"] for each in recent] == list(range(30, 80))
        assert recent[0].keys() == {"id", "type", "cid", "seq", "created_at", "payload"}
        assert "recent" not in await vera.say(type="subscribe", cid=SHOW)
        assert [each["payload"]["custom"]["n"] for each in (await john.say(type="subscribe", cid=SHOW))["recent"]] == [2, 3, 4]
        await stage.change(EventType.CALL_LIVE_STARTED, lambda call: lifecycle.gone_live(call, NOW))
        stage.bus.publish(EventType.CUSTOM, SHOW, custom(5))
        await vera.until(5)
        assert len((await vera.say(type="subscribe", cid=SHOW))["recent"]) == 1
        stage.bus.publish(EventType.CALL_DELETED, SHOW)
        await vera.hear("call.deleted")
        assert "recent" not in await vera.say(type="subscribe", cid=SHOW)


async def test_a_role_is_told_as_it_is_and_not_as_it_was_when_they_came(stage: Stage) -> None:
    await stage.store_access.store.users.put([User("vera", NOW, NOW, "admin", "Vera", api_key="app")])
    async with stage.open(stage.user("vera")) as vera:
        assert (await vera.hear("connection.ok"))["user"]["role"] == "admin"
        await vera.say(type="subscribe", cid=DEMO)
        for given, told in (("admin", "admin"), ("user", "user")):
            await stage.store_access.store.users.put([User("vera", NOW, NOW, given, "Vera", api_key="app")])
            await vera.ws.send_json({"type": "custom", "cid": DEMO, "custom": {}})
            assert (await vera.hear("custom"))["payload"]["user"]["role"] == told


async def test_who_is_blocked_hears_no_more(stage: Stage) -> None:
    await stage.change(EventType.CALL_LIVE_STARTED, lambda call: lifecycle.gone_live(call, NOW))
    async with stage.open(stage.user("vera")) as vera, stage.open(stage.user("anna")) as anna:
        await vera.say(type="subscribe", cid=SHOW)
        await anna.say(type="subscribe", cid=SHOW)
        await stage.change(EventType.USER_BLOCKED, lambda call: blocked(call, "vera"))
        stage.bus.publish(EventType.CUSTOM, SHOW, custom(1))
        assert await anna.until(1) == ["call.user_blocked", "custom"]
        ended = await vera.hear()
        assert (ended["type"], ended["cid"], "blocked" in ended["message"]) == ("subscription.ended", SHOW, True)
        refused = await vera.say(type="subscribe", cid=SHOW)
        assert (refused["type"], refused["status"]) == ("error", 403)
        assert (await vera.say(type="custom", cid=SHOW, custom={}))["status"] == 403


async def test_what_another_node_or_the_command_line_does_to_a_call_is_told_here(stage: Stage, tmp_path: Path) -> None:
    async with stage.open(stage.user("vera")) as vera, Store.open(f"sqlite+aiosqlite:///{tmp_path}/gateway.db") as elsewhere:
        await vera.say(type="subscribe", cid=SHOW)
        await elsewhere.calls.change(SHOW, lambda call: lifecycle.gone_live(call, NOW), now=NOW)
        assert (await vera.hear())["type"] == "call.live_started"
        assert (await vera.say(type="custom", cid=SHOW, custom={}))["type"] == "sent"
        await elsewhere.calls.change(SHOW, lambda call: blocked(call, "vera"), now=NOW)
        await vera.hear("subscription.ended")


async def test_a_key_that_is_revoked_ends_what_it_was_for(stage: Stage) -> None:
    async with stage.open(stage.user("vera")) as vera:
        await vera.say(type="subscribe", cid=DEMO)
        await stage.store_access.store.api_keys.revoke("app", NOW)
        assert "revoked" in (await vera.hear("subscription.ended"))["message"]


async def test_a_server_hears_every_call_and_speaks_for_users(stage: Stage) -> None:
    header = {"Authorization": f"Bearer {stage.server()}", "X-Api-Key": "app"}
    async with stage.open(None, headers=header) as server:
        assert (await server.hear("connection.ok"))["server"] is True
        await server.say(type="subscribe", cid="*")
        for cid in (DEMO, SHOW, "livestream:unheard-of"):
            stage.bus.publish(EventType.INGRESS_ERROR, cid)
        assert [(await server.hear())["cid"] for _ in range(3)] == [DEMO, SHOW, "livestream:unheard-of"]
        assert (await server.say(type="custom", cid=DEMO, custom={}))["status"] == 400
        assert (await server.say(type="custom", cid=DEMO, custom={}, user_id="vera"))["type"] == "sent"
        assert (await server.hear("custom"))["payload"]["user"]["name"] == "Vera"
    async with stage.open(stage.user("vera")) as vera:
        assert (await vera.say(type="subscribe", cid="*"))["status"] == 403
        assert (await vera.say(type="custom", cid=DEMO, custom={}, user_id="john"))["status"] == 403


async def test_a_watch_link_of_the_operator_is_for_its_call(stage: Stage) -> None:
    async with stage.open(stage.tokens.issue("guest", [DEMO], 60, VIEWER)) as guest:
        assert (await guest.hear("connection.ok"))["user"]["id"] == "guest"
        assert (await guest.say(type="subscribe", cid=DEMO))["type"] == "subscribed"
        assert (await guest.say(type="subscribe", cid=SHOW))["status"] == 403
        assert (await guest.say(type="subscribe", cid="livestream:none"))["type"] == "error"


@pytest.mark.parametrize("message", ["{", "[]", '{"type":"nonsense"}', '{"type":"subscribe","cid":"x"}',
                                     '{"type":"custom","cid":"livestream:demo","custom":[]}', "[" * 5000,
                                     '{"type":"reaction","cid":"livestream:demo","reaction":{"type":"a","colour":1}}'])  # fmt: skip
async def test_what_cannot_be_read_is_an_error_and_not_the_end(stage: Stage, message: str) -> None:
    async with stage.open(stage.user("vera")) as vera:
        await vera.hear("connection.ok")
        await vera.ws.send_str(message)
        error = await vera.hear("error")
        assert (error["status"], error["code"]) == (400, "invalid_request")
        assert (await vera.say(type="ping"))["type"] == "pong"


async def test_tokens_that_are_none(stage: Stage) -> None:
    for token in ("nonsense", stage.user("vera") + "x", stage.user("vera", -3600)):
        async with stage.open(token) as client:
            assert (await client.hear("error"))["status"] == 401
            assert await client.closed() == 4001
    async with stage.open(None) as client:
        await client.ws.send_json({"type": "subscribe", "cid": DEMO})
        assert (await client.hear("error"))["status"] == 401
        assert await client.closed() == 4001
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        async with stage.open(None, headers={"Authorization": "nonsense"}):
            pass
    assert refusal.value.status == 401
    await nobody_left(stage)


async def test_a_token_that_expires_ends_the_connection(stage: Stage) -> None:
    async with stage.open(stage.user("vera", 1)) as vera:
        assert await vera.closed() == 4002


async def test_one_that_does_not_say_who_it_is_is_closed(tmp_path: Path) -> None:
    async with staged(tmp_path, timeouts=Timeouts(hello_s=0.05)) as stage, stage.open(None) as silent:
        assert await silent.closed() == 4001


async def test_too_much_is_refused_or_ends_the_connection(stage: Stage) -> None:
    async with stage.open(stage.user("vera")) as vera:
        for n in range(MAX_SUBSCRIPTIONS):
            stage_call = f"livestream:c{n}"
            await stage.store_access.store.calls.get_or_create(_live(stage_call))
            assert (await vera.say(type="subscribe", cid=stage_call))["type"] == "subscribed"
        assert (await vera.say(type="subscribe", cid=DEMO))["status"] == 429
        answers = [(await vera.say(type="custom", cid=DEMO, custom={}))["type"] for _ in range(int(SENDER_BURST) + 1)]
        assert answers == ["sent"] * int(SENDER_BURST) + ["error"]
        for _ in range(100):
            await vera.ws.send_json({"type": "ping"})
        assert await vera.closed() == 4029
    async with stage.open(stage.user("vera")) as vera:
        await vera.ws.send_str("x" * (MAX_MESSAGE + 1))
        assert await vera.closed() == 1009
    async with stage.open(stage.user("vera")) as vera:
        await vera.ws.send_bytes(b"{}")
        assert await vera.closed() == 1003
    await nobody_left(stage)
    assert stage.sockets.closed == {"too_many": 1, "client": 1, "not_text": 1}


@pytest.mark.parametrize("greeted", [True, False])
@pytest.mark.parametrize("kind", [WSMsgType.PING, WSMsgType.PONG])
async def test_pings_are_counted_as_messages_are(stage: Stage, kind: WSMsgType, greeted: bool) -> None:
    async with stage.open(stage.user("vera") if greeted else None) as vera:
        send = vera.ws.ping if kind is WSMsgType.PING else vera.ws.pong
        for _ in range(100):
            await send()
        assert await vera.closed() == 4029
    await nobody_left(stage)
    assert stage.sockets.closed == {"too_many": 1}


async def test_one_that_has_vanished_is_found_out(tmp_path: Path) -> None:
    async with (
        staged(tmp_path, timeouts=Timeouts(ping_s=0.1)) as stage,
        stage.open(stage.user("vera"), autoping=False) as vera,
    ):
        assert (await vera.hear("connection.ok"))["ping_seconds"] == 0.1
        await nobody_left(stage)
    assert stage.sockets.closed == {"client": 1}


def _live(cid: str) -> Call:
    kind, _, name = cid.partition(":")
    return Call(kind, name, "john", NOW, NOW, live_started_at=NOW)


async def test_connections_are_bounded_for_each_user_and_in_all(tmp_path: Path) -> None:
    async with staged(tmp_path, max_connections=MAX_PER_USER + 1) as stage:
        many = [stage.open(stage.user("vera")) for _ in range(MAX_PER_USER)]
        for each in many:
            await (await each.__aenter__()).hear("connection.ok")
        async with stage.open(stage.user("vera")) as one_more:
            assert await one_more.closed() == 4029
        async with stage.open(stage.user("john")) as john:
            await john.hear("connection.ok")
            with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
                async with stage.open():
                    pass
            assert refusal.value.status == 503
        for each in many:
            await each.__aexit__()
    assert stage.sockets.users == {}
    assert stage.sockets.closed["too_many"] == 1


def _small_buffer(address: Any) -> socket.socket:
    made = socket.socket(*address[:3])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return made


async def test_one_that_does_not_read_is_ended_and_the_others_go_on(tmp_path: Path) -> None:
    async with (
        staged(tmp_path, timeouts=Timeouts(close_s=0.1)) as stage,
        stage.open(stage.user("vera")) as vera,
        stage.open(small_buffer=True) as slow,
    ):
        await vera.say(type="subscribe", cid=DEMO)
        await slow.say(type="subscribe", cid=DEMO)
        assert slow.transport is not None
        slow.transport.pause_reading()
        sent = 0
        while not stage.sockets.closed:
            sent += 1
            stage.bus.publish(EventType.CUSTOM, DEMO, {"custom": {"n": sent, "text": "x" * 60_000}})
            await vera.until(sent)
        assert stage.sockets.closed == {"too_slow": 1}
        assert (await vera.say(type="ping"))["type"] == "pong"
        slow.transport.resume_reading()
        assert await slow.closed() in (4008, 1006), "the code, where it still gets through"


async def test_pages_of_other_origins(tmp_path: Path) -> None:
    async with staged(tmp_path, origins=["https://our.example"]) as stage:
        own = stage.url.partition("/api")[0]
        for origin in ("https://our.example", own):
            async with stage.open(headers={"Origin": origin}) as client:
                await client.hear("connection.ok")
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            async with stage.open(headers={"Origin": "https://other.example"}):
                pass
        assert refusal.value.status == 403
        async with aiohttp.ClientSession() as http, http.get(stage.url) as response:
            assert (response.status, (await response.json())["code"]) == (400, "invalid_request")


async def test_at_the_end_clients_are_told_to_come_back(stage: Stage) -> None:
    async with stage.open() as client:
        await client.hear("connection.ok")
        stage.sockets.close()
        assert await client.closed() == 1001


async def test_every_call_is_for_an_unnarrowed_server_as_long_as_its_key_is_good(stage: Stage) -> None:
    for narrowed in (stage.server(call_cids=[SHOW]), stage.user("vera", call_cids=[SHOW])):
        async with stage.open(narrowed) as client:
            assert (await client.say(type="subscribe", cid="*"))["status"] == 403
    async with stage.open(stage.server()) as server:
        await server.say(type="subscribe", cid="*")
        stage.bus.publish(EventType.CUSTOM, SHOW, custom(1))
        assert (await server.hear())["payload"] == custom(1)
        await stage.store_access.store.api_keys.revoke("app", NOW)
        stage.bus.publish(EventType.CUSTOM, SHOW, custom(2))
        ended = await server.hear()
        assert (ended["type"], ended["cid"], "revoked" in ended["message"]) == ("subscription.ended", "*", True)


async def test_those_outside_are_told_a_calls_state_and_those_inside_what_it_is(stage: Stage) -> None:
    call = await stage.store_access.store.calls.get(SHOW)
    assert call is not None
    async with stage.open(stage.user("vera")) as vera, stage.open(stage.user("john")) as john:
        for client in (vera, john):
            await client.say(type="subscribe", cid=SHOW)
        stage.bus.publish(EventType.CALL_UPDATED, SHOW, {"call": event_of(call)})
        stage.bus.publish(EventType.MEMBER_ADDED, SHOW, {"members": []})
        stage.bus.publish(EventType.CALL_ENDED, SHOW, {"call": event_of(call)})
        assert [(await john.hear())["type"] for _ in range(2)] == ["call.updated", "call.member_added"]
        assert (await john.hear("call.ended"))["payload"]["call"]["created_by_id"] == "john"
        told = await vera.hear()
        assert told["type"] == "call.ended"
        assert told["payload"]["call"].keys() == event_of(call).keys() - {"created_by_id", "custom"}
