"""The livestream API alone, over real HTTP and a real store, with an application's key: for tests that need no media."""

import json
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr

from gateway.access.credentials import NOBODY, Identity, Secret, Tokens
from gateway.access.sealing import Sealing
from gateway.access.viewers import Viewers
from gateway.api.framework.dispatch import Api
from gateway.api.framework.encoder_addresses import EncoderAddresses
from gateway.api.framework.middleware import cors, errors
from gateway.api.framework.quotas import Quotas
from gateway.api.framework.services import Services
from gateway.api.routes import ROUTES
from gateway.config import Config, DatabaseConfig, QuotasConfig, StateConfig
from gateway.enforcement.change_feed import ChangeFeed
from gateway.enforcement.enforcement import Enforcement
from gateway.events.interactions import Interactions
from gateway.events.producers import CallEvents, EventProducers
from gateway.model.events import Bus, Event
from gateway.model.permissions import Capability
from gateway.model.records import ApiKey, SealedSecret
from gateway.outputs.embedded.call import EmbeddedCall
from gateway.sessions.admission import Rights
from gateway.sessions.registry import Registry
from gateway.wiring.store import StoreAccess, open_store_access
from protocols.errors import Rejected
from protocols.publisher import Applicant
from protocols.rtmp.listener import RtmpListener
from protocols.srt.admission import Access
from protocols.srt.listener import SrtListener
from protocols.srt.streamid import StreamId
from protocols.webrtc.transport.udp_mux import UdpMux
from protocols.whip.listener import WhipListener
from tests.support.unheard import unheard

BASE = "/api/v2/video"
API_KEY = "test-key"
MANY = QuotasConfig(requests_per_minute=0, lists_per_minute=0, calls_per_hour=0, open_calls=0)


class Broadcasts:
    """Notes what was asked for."""

    def __init__(self) -> None:
        self.running: set[str] = set()
        self.full: Rejected | None = None

    def check(self, cid: str) -> None:
        if self.full is not None and cid not in self.running:
            raise self.full

    def start(self, cid: str) -> None:
        self.running.add(cid)

    def stop(self, cid: str) -> None:
        self.running.discard(cid)

    def playlist_url(self, cid: str, watcher: Identity = NOBODY) -> str:
        whose = f"?{watcher.user_id}" if watcher.user_id else ""
        return f"/hls/{cid}/index.m3u8{whose}" if cid in self.running else ""

    def open_playlist_url(self, cid: str) -> str:
        return self.playlist_url(cid)


@dataclass(frozen=True)
class Answered:
    status: int
    body: Any
    headers: Any


@dataclass(frozen=True)
class Stage:
    """`ask` speaks as a user, as the server (`user=""`) or with nothing but `headers` (`user=None`)."""

    client: TestClient[Any, Any]
    store_access: StoreAccess
    tokens: Tokens
    registry: Registry
    rights: Rights
    broadcasts: Broadcasts
    events: list[Event]
    counted: Counter[int]
    secret: str

    def token(self, user: str = "", *, lasts_s: int = 3600, **claims: Any) -> str:
        """Signed with the application's secret."""
        who = {"user_id": user} if user else {"server": True}
        return jwt.encode({**who, "exp": int(time.time()) + lasts_s, **claims}, self.secret, algorithm="HS256")

    async def ask(self, method: str, path: str, body: Any = None, *, user: str | None = "", **headers: str) -> Answered:
        who = {} if user is None else {"Authorization": self.token(user)}
        data = None if body is None else json.dumps(body)
        typed = {"Content-Type": "application/json"} if data is not None else {}
        async with self.client.request(
            method, f"{BASE}{path}?api_key={API_KEY}", data=data, headers=who | typed | headers
        ) as response:
            text = await response.text()
            return Answered(response.status, json.loads(text) if text else None, response.headers)

    async def ok(self, method: str, path: str, body: Any = None, *, user: str | None = "") -> Any:
        """As `ask`; it must succeed."""
        answered = await self.ask(method, path, body, user=user)
        assert answered.status in (200, 201), (method, path, answered)
        return answered.body

    async def role(self, user: str, role: str) -> None:
        """The user's role in the application."""
        await self.ok("POST", "/users", {"users": [{"id": user, "role": role}]})


async def _anybody(applicant: Applicant) -> None:
    """Nobody publishes here."""


async def _open(stream: StreamId, host: str) -> Access:
    return Access()


@asynccontextmanager
async def api_stage(directory: Path, database: str = "", quotas: QuotasConfig = MANY) -> AsyncIterator[Stage]:
    """The API with a fresh store: a file in `directory`, or the (empty) `database` at this address."""
    config = Config(
        state=StateConfig(directory=str(directory)), database=DatabaseConfig(url=SecretStr(database)), quotas=quotas
    )
    tokens = Tokens(Secret(secrets.token_bytes(48)))
    async with open_store_access(config, tokens, unheard) as store_access:
        registry = Registry(lambda cid, on_empty: EmbeddedCall(cid, max_participants=4, on_empty=on_empty))
        authorizer = store_access.authorizer
        viewers_admitted = Viewers(
            registry.call, authorizer.watch, lambda who, cid: authorizer.judge(who, cid, Capability.JOIN_CALL), unheard
        )
        bus, events, broadcasts = Bus(), list[Event](), Broadcasts()
        producers, calls = EventProducers(bus, authorizer.whose), CallEvents(bus)
        rights: Rights = {}
        enforcement = Enforcement(
            registry,
            rights,
            viewers_admitted,
            store_access.rights_cache,
            authorizer,
            store_access.store,
            on_changed=unheard,
            on_ended=calls.written,
            on_muted=producers.muted,
        )
        change_feed = ChangeFeed(store_access.store, store_access.rights_cache, enforcement, on_elsewhere=calls.elsewhere)
        await change_feed.start()
        secret, now = secrets.token_hex(32), datetime.now(UTC)
        sealed = Sealing(tokens.secret.value).seal(secret.encode(), API_KEY)
        await store_access.store.api_keys.add(ApiKey(API_KEY, "tests", (SealedSecret(sealed, now),), now))
        counted = Counter[int]()
        services = Services(
            store=store_access.store,
            rights_cache=store_access.rights_cache,
            authorizer=authorizer,
            registry=registry,
            bus=bus,
            interactions=Interactions(bus),
            broadcasts=broadcasts,
            quotas=Quotas(config.quotas),
            ingress=EncoderAddresses(
                [
                    RtmpListener(port=1935),
                    SrtListener("", 9000, authorise=_open),
                    WhipListener(UdpMux("", 0), authorise=_anybody),
                ]
            ),
            tokens=tokens,
        )
        application = web.Application(middlewares=[cors(("*",)), errors])
        application.add_routes(Api(services, ROUTES, "test", counted).routes())
        with bus.listening(events.append):
            async with TestClient(TestServer(application)) as client:
                yield Stage(client, store_access, tokens, registry, rights, broadcasts, events, counted, secret)
