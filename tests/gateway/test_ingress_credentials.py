"""Credentials against a whole gateway: what is refused, in each client's words; what each protocol takes; who has to go when a right ends;
what a restart keeps; and that no secret is ever in the log."""

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
import pytest

from gateway.access import stream_keys
from gateway.access.sealing import Sealing
from gateway.model import lifecycle
from gateway.model.records import ApiKey, Call, Member, SealedSecret, StreamKey
from gateway.store.calls import blocked
from gateway.store.store import Store
from protocols.errors import Reason
from tests.support.encoders import X264_LIVE, ffmpeg, programme
from tests.support.gateway_process import GatewayProcess, running_gateway
from tests.support.postgres import Postgres, running_postgres
from tests.support.publishing import code_over_srt, over_http, over_rtmp, over_srt, over_whip
from tests.support.viewer import watching
from tests.support.waiting import eventually

LIVE = (*programme(320, 240), *X264_LIVE, "-c:a", "aac")
X, OVER = "livestream:x", "livestream:over"


@dataclass
class Town:
    """A store that the gateway shares with the test, as with another node, and who has what in it."""

    url: str
    store: Store
    own: str = ""  # the gateway's secret
    app: str = ""  # the application's

    @property
    def now(self) -> datetime:
        return datetime.now(UTC)

    def token(self, user: str, *, secret: str = "", algorithm: str = "HS256", **claims: Any) -> str:
        payload = {"user_id": user, "exp": int(time.time()) + 600} | claims
        payload = {name: value for name, value in payload.items() if value is not None}
        return jwt.encode(payload, secret or self.app, algorithm=algorithm)

    async def short(self, user: str, cid: str = X) -> tuple[str, str]:
        """Name and secret half of a short stream key."""
        name = stream_keys.new_name(self.own.encode())
        await self.store.stream_keys.add(StreamKey(name, cid, user, "john", self.now))
        return name, stream_keys.password(self.own.encode(), name)

    async def change(self, cid: str, change: Callable[[Call, datetime], Call]) -> None:
        await self.store.calls.change(cid, lambda call: change(call, self.now), now=self.now)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    async with peopled(f"sqlite+aiosqlite:///{tmp_path}/shared.db") as it:
        yield it


@asynccontextmanager
async def peopled(url: str) -> AsyncIterator[Town]:
    async with Store.open(url) as store:
        it = Town(url, store, secrets.token_hex(32), secrets.token_urlsafe(32))
        sealed = Sealing(it.own.encode()).seal(it.app.encode(), "app")
        await store.api_keys.add(ApiKey("app", "", (SealedSecret(sealed, it.now),), it.now))
        await store.call_types.ensure_built_in(it.now)
        kind = (await store.call_types.all())["livestream"]
        call = lifecycle.created(kind, "x", "john", it.now)
        encoders = dict.fromkeys(("rtmp", "adobe", "srt", "whip", "cam"), "cohost")
        roles = {"john": "host", "ann": "viewer", "eve": "host"} | encoders
        await store.calls.get_or_create(
            replace(call, blocked_user_ids=("eve",)), [Member(X, user, it.now, it.now, role) for user, role in roles.items()]
        )
        await store.calls.get_or_create(lifecycle.ended(replace(call, id="over"), it.now))
        yield it


@asynccontextmanager
async def gateway_of(town: Town, *settings: str, expect_exit: int | None = 0) -> AsyncIterator[GatewayProcess]:
    shared = f"database.url={town.url}"
    async with running_gateway(shared, *settings, secret=town.own, expect_exit=expect_exit) as gateway:
        yield gateway


def forged(header: dict[str, object], payload: dict[str, object], key: bytes) -> str:
    """What PyJWT would not make: any header with an HMAC-SHA256 under it."""

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    signed = f"{part(json.dumps(header).encode())}.{part(json.dumps(payload).encode())}"
    return f"{signed}.{part(hmac.digest(key, signed.encode(), hashlib.sha256)) if key else ''}"


async def bad_tokens(town: Town) -> dict[str, tuple[str, str, Reason, str]]:
    """By name: the token, the call that is asked for, why it is refused and in which words."""
    claims = {"user_id": "john", "exp": int(time.time()) + 600}
    unauthorized, forbidden = Reason.UNAUTHORIZED, Reason.FORBIDDEN
    return {
        "forged": (town.token("john", secret="x" * 43), X, unauthorized, "not made by this gateway"),
        "cut off": (town.token("john")[:-9], X, unauthorized, "cut off"),
        "expired": (town.token("john", exp=int(time.time()) - 60), X, unauthorized, "expired on"),
        "without an end": (town.token("john", exp=None), X, unauthorized, "lacks a part"),
        "alg none": (forged({"alg": "none"}, claims, b""), X, unauthorized, ""),
        "RS256 with the secret as key": (forged({"alg": "RS256"}, claims, town.app.encode()), X, unauthorized, "only HS256"),
        "HS384": (town.token("john", algorithm="HS384"), X, unauthorized, "only HS256"),
        "for another call": (town.token("john", call_cids=["livestream:y"]), X, forbidden, "for another call"),
    }


async def bad_keys(town: Town) -> dict[str, tuple[str, str, Reason, str]]:
    """Those that are wrong for publishing only."""
    name, half = await town.short("john")
    await town.store.stream_keys.revoke(name, town.now)
    mistyped = f"{name}-{'b' if half[0] == 'a' else 'a'}{half[1:]}"
    return {
        "revoked": (f"{name}-{half}", X, Reason.UNAUTHORIZED, "was revoked"),
        "mistyped": (mistyped, X, Reason.UNAUTHORIZED, "missing or changed"),
        "a viewer": (town.token("ann"), X, Reason.FORBIDDEN, "make you a host"),
        "a viewer's key": ("-".join(await town.short("ann")), X, Reason.FORBIDDEN, "make you a host"),
        "blocked": (town.token("eve"), X, Reason.FORBIDDEN, "blocked"),
        "into no call": (town.token("john"), "livestream:typo", Reason.NOT_FOUND, "there is no call livestream:typo"),
        "of an ended call": (town.token("john"), OVER, Reason.FORBIDDEN, "has ended"),
        "of no type": (town.token("john"), "nothing:x", Reason.NOT_FOUND, "no call type"),
        "a server": (town.token("", user_id=None, server=True), X, Reason.FORBIDDEN, "nobody's"),
    }


async def over_api(gateway: GatewayProcess, key: str, call: str) -> tuple[int, str]:
    kind, _, name = call.partition(":")
    return await over_http("GET", gateway.url(f"/api/v2/video/call/{kind}/{name}?api_key=app"), key)


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
async def test_what_is_wrong_is_refused_on_every_protocol_in_its_words(town: Town) -> None:
    at_once = asyncio.Semaphore(3)

    async def refused(key: str, call: str, reason: Reason, words: str, *, api: bool) -> None:
        async with at_once:
            said = await over_rtmp(gateway, key, call)
            assert words in said, said
            assert await code_over_srt(gateway, key, call) == reason.srt_code, words
            for status, text in [await over_whip(gateway, key, call), *([await over_api(gateway, key, call)] if api else [])]:
                assert (status, words in text) == (reason.status, True), text

    async with gateway_of(town, "auth.max_failures_per_minute=0") as gateway:
        async with asyncio.TaskGroup() as tasks:
            for case in (await bad_tokens(town)).values():
                tasks.create_task(refused(*case, api=True))
            for case in (await bad_keys(town)).values():
                tasks.create_task(refused(*case, api=False))
        assert not [entry for entry in gateway.log if entry["message"] == "publishing"]


async def test_an_address_that_guesses_waits_on_every_way_in_and_a_right_key_does_not(town: Town) -> None:
    wrong, right = town.token("john", secret="x" * 43), town.token("john")
    async with gateway_of(town, "auth.max_failures_per_minute=3") as gateway:
        for _ in range(3):
            assert (await over_whip(gateway, wrong, X))[0] == 401
        status, text = await over_whip(gateway, wrong, X)
        assert (status, "too many wrong keys" in text) == (429, True)
        assert "too many wrong keys" in await over_rtmp(gateway, wrong, X)
        assert await over_srt(gateway, wrong, X) == {"reject": Reason.TOO_MANY_REQUESTS.srt_code}
        assert (await over_api(gateway, wrong, X))[0] == (await over_whip(gateway, wrong, X, path="whep"))[0] == 429
        elsewhere = {"X-Forwarded-For": "198.51.100.7"}  # by a proxy on this machine: who else comes through it is not held up
        address = gateway.url("/api/v2/video/call/livestream/x?api_key=app")
        assert (await over_http("GET", address, wrong, headers=elsewhere))[0] == 401
        assert (await over_api(gateway, right, X))[0] == 200
        for path in ("whip", "whep"):
            assert (await over_whip(gateway, right, X, path=path))[0] not in (401, 403, 429), (
                "they are let in, and what they offer is none"
            )
        rtmp = f"rtmp://127.0.0.1:{gateway.ports['rtmp']}/live/{right}?call={X}"
        async with ffmpeg(*LIVE, "-f", "flv", rtmp):
            await live(gateway, "john")


async def ended(gateway: GatewayProcess, user: str) -> dict[str, Any]:
    """The line of the end of this user's session."""
    async with asyncio.timeout(60):
        while True:
            ids = {entry["session"] for entry in gateway.log if entry["message"] == "live" and entry.get("user") == user}
            for entry in gateway.log:
                if entry["message"] == "ended" and entry["session"] in ids:
                    return entry
            gateway.news.clear()
            await gateway.news.wait()


async def live(gateway: GatewayProcess, *users: str) -> None:
    try:
        async with asyncio.timeout(60):
            while not set(users) <= {entry.get("user") for entry in gateway.log if entry["message"] == "live"}:
                gateway.news.clear()
                await gateway.news.wait()
    except TimeoutError:
        raise AssertionError(f"not live: {users}; {gateway.log}") from None


async def gateway_knows(gateway: GatewayProcess, viewer: str) -> None:
    """That the call is live: half a second after it was written elsewhere."""

    async def let_in() -> bool:
        return (await over_whip(gateway, viewer, X, path="whep"))[0] != 403

    await eventually(let_in)


async def test_a_session_over_every_protocol_and_what_ends_it(town: Town) -> None:
    keys = {user: await town.short(user) for user in ("rtmp", "adobe", "srt", "whip")}
    viewer, john = town.token("ann", call_cids=[X]), town.token("john", call_cids=[X])
    whole = {user: "-".join(key) for user, key in keys.items()}
    async with gateway_of(town, "log.level=debug") as gateway, AsyncExitStack() as encoders:
        rtmp, srt = f"rtmp://127.0.0.1:{gateway.ports['rtmp']}", f"srt://127.0.0.1:{gateway.ports['srt']}"
        name, half = keys["adobe"]
        for address in (
            f"{rtmp}/live/{whole['rtmp']}",
            f"rtmp://{name}:{half}@127.0.0.1:{gateway.ports['rtmp']}/auth/live",
            f"{rtmp}/live/{john}?call={X}",
        ):
            await encoders.enter_async_context(ffmpeg(*LIVE, "-f", "flv", address))
        name, half = keys["srt"]
        await encoders.enter_async_context(
            ffmpeg(*LIVE, "-f", "mpegts", f"{srt}?streamid={name}&passphrase={half}&pbkeylen=16")
        )
        whip = (*programme(320, 240), *X264_LIVE, "-c:a", "libopus", "-ar", "48000", "-ac", "2", "-f", "whip", "-authorization")
        await encoders.enter_async_context(ffmpeg(*whip, whole["whip"], gateway.url(f"/whip/{X}"), version=9))
        await live(gateway, "rtmp", "adobe", "srt", "whip", "john")

        status, text = await over_whip(gateway, viewer, X, path="whep")
        assert (status, "backstage" in text) == (403, True)
        await town.change(X, lifecycle.gone_live)
        await gateway_knows(gateway, viewer)
        async with watching(gateway.url(f"/whep/{X}"), viewer) as watched, watching(gateway.url(f"/whep/{X}"), john) as host:
            await watched.until(frames=5)
            await town.change(X, lifecycle.stopped_live)
            async with asyncio.timeout(60):
                await watched.closed.wait()
            before = len(host.numbers)
            await host.until(frames=before + 20)  # who may be in backstage stays

        await town.store.stream_keys.revoke(keys["rtmp"][0], town.now)
        assert "revoked" in (await ended(gateway, "rtmp"))["why"]
        await town.store.calls.change(X, lambda call: blocked(call, "adobe"), now=town.now)
        assert "blocked" in (await ended(gateway, "adobe"))["why"]
        await town.store.calls.kick(X, "srt", now=town.now)
        assert "taken you out" in (await ended(gateway, "srt"))["why"]
        status, text = await over_whip(gateway, "-".join(keys["srt"]), X)
        assert (status, "may come back in" in text) == (403, True)
        await town.store.api_keys.revoke("app", town.now)
        assert "API key" in (await ended(gateway, "john"))["why"]
        await town.change(X, lifecycle.ended)
        assert "has ended" in (await ended(gateway, "whip"))["why"]
        log = "\n".join(map(json.dumps, gateway.log))
    tokens = [part for token in (viewer, john) for part in token.split(".")[1:]]
    for secret in (town.own, town.app, *(half for _, half in keys.values()), *tokens):
        assert secret not in log


async def test_whose_role_goes_loses_the_picture_the_connection_and_the_place_at_once(town: Town) -> None:
    key, john = "-".join(await town.short("cam")), town.token("john")

    async def becomes(user: str, role: str | None) -> None:
        put = [Member(X, user, town.now, town.now, role)] if role is not None else []
        await town.store.calls.update_members(X, put, [user] if role is None else [])

    def treated(video: str) -> Callable[[dict[str, Any]], bool]:
        modes = {"video": video, "audio": "transcode"}
        return lambda stream: {track["kind"]: track["mode"] for track in stream["tracks"]} == modes

    async with gateway_of(town) as gateway:
        rtmp = f"rtmp://127.0.0.1:{gateway.ports['rtmp']}/live/{key}"
        async with ffmpeg(*LIVE, "-f", "flv", rtmp):
            await gateway.stream("cam", tracks=2, wanted=treated("passthrough"), token=john, timeout=60)
            async with watching(gateway.url(f"/whep/{X}"), town.token("adobe")) as viewer:
                await viewer.until(frames=5)
                await becomes("cam", "speaker")
                shown = await gateway.stream("cam", tracks=2, wanted=treated("refuse"), token=john)
                assert "audio only" in next(track["why"] for track in shown["tracks"] if track["kind"] == "video")
                await becomes("cam", "moderator")
                await gateway.stream("cam", tracks=2, wanted=treated("passthrough"), token=john)
                await becomes("adobe", None)  # it is in backstage, where users are not
                async with asyncio.timeout(60):
                    await viewer.closed.wait()
            await becomes("cam", "viewer")
            assert "make you a host" in (await ended(gateway, "cam"))["why"]


async def test_what_an_api_key_gave_ends_with_it_while_it_is_live(town: Town) -> None:
    leaked = secrets.token_urlsafe(32)
    sealed = SealedSecret(Sealing(town.own.encode()).seal(leaked.encode(), "leaked"), town.now)
    await town.store.api_keys.add(ApiKey("leaked", "", (sealed,), town.now))
    await town.store.calls.update_members(X, [Member(X, "cam", town.now, town.now, "cohost", api_key="leaked")])
    async with gateway_of(town) as gateway:
        rtmp = f"rtmp://127.0.0.1:{gateway.ports['rtmp']}/live/{town.token('cam')}?call={X}"
        async with ffmpeg(*LIVE, "-f", "flv", rtmp), watching(gateway.url(f"/whep/{X}"), town.token("cam")) as viewer:
            await live(gateway, "cam")
            await town.store.api_keys.revoke("leaked", town.now)
            assert "make you a host" in (await ended(gateway, "cam"))["why"]
            async with asyncio.timeout(60):
                await viewer.closed.wait()


async def test_after_a_change_of_the_secret_what_was_sealed_signs_nothing_and_the_log_says_so(town: Town) -> None:
    claims: dict[str, object] = {"server": True, "exp": int(time.time()) + 600}
    async with running_gateway(f"database.url={town.url}", secret=secrets.token_hex(32)) as gateway:
        told = await gateway.logged("signs nothing")
        assert (told["level"], told["api_key"], "gateway apikey rotate" in told["message"]) == ("error", "app", True)
        for token in (town.token("john"), forged({"alg": "HS256"}, claims, b"\0")):
            assert (await over_api(gateway, token, X))[0] == 401
        empty = forged({"alg": "HS256"}, claims, b"\0").rpartition(".")[0]
        signature = base64.urlsafe_b64encode(hmac.digest(b"", empty.encode(), "sha256")).decode().rstrip("=")
        assert (await over_api(gateway, f"{empty}.{signature}", X))[0] == 401


async def test_a_restart_keeps_calls_keys_and_what_is_live(town: Town) -> None:
    name, half = await town.short("rtmp")
    await town.change(X, lifecycle.gone_live)
    for _ in range(2):
        async with gateway_of(town, expect_exit=None) as gateway:
            address = f"rtmp://127.0.0.1:{gateway.ports['rtmp']}/live/{name}-{half}"
            async with ffmpeg(*LIVE, "-f", "flv", address), asyncio.timeout(60):
                await live(gateway, "rtmp")
                async with watching(gateway.url(f"/whep/{X}"), town.token("ann")) as viewer:
                    await viewer.until(frames=10)
                gateway.process.kill()


async def test_two_gateways_with_one_postgresql_and_live_streams_while_it_is_away(postgres: Postgres) -> None:
    async with peopled(postgres.url()) as town, gateway_of(town) as one, gateway_of(town) as two:
        name, half = await town.short("cam")
        address = f"rtmp://127.0.0.1:{one.ports['rtmp']}/live/{name}-{half}"
        async with ffmpeg(*LIVE, "-f", "flv", address):
            await live(one, "cam")
            await town.change(X, lifecycle.gone_live)
            await gateway_knows(one, town.token("ann"))
            async with watching(one.url(f"/whep/{X}"), town.token("ann")) as viewer:
                await viewer.until(frames=5)
                postgres.kill()
                await one.logged("the store does not answer", timeout=60)
                have = len(viewer.numbers)
                await viewer.until(frames=have + 30)
                # Who is known is let in without it, who asks for what is to be written is told to come again.
                async with watching(one.url(f"/whep/{X}"), town.token("john")) as another:
                    await another.until(frames=5)
                create = "/api/v2/video/call/livestream/y?api_key=app"
                assert (await over_http("POST", one.url(create), town.token("john"), json={"data": {}}))[0] == 503
                postgres.start()
                await one.logged("the store answers again", timeout=60)
                await two.logged("the store answers again", timeout=60)
                assert (await over_http("POST", two.url(create), town.token("john"), json={"data": {}}))[0] == 201
                status, _ = await over_http(
                    "POST", two.url("/api/v2/video/call/livestream/x/stop_live?api_key=app"), town.token("john")
                )
                assert status == 200
                async with asyncio.timeout(60):
                    await viewer.closed.wait()
