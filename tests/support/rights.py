"""Every way in of a running gateway, asked by each kind of caller in each state of a call, as a table: `python -m tests.support.rights`
writes it to `tests/gateway/rights.txt`, which the test of the same name holds the gateway to.

A cell is `+` for who is let in, else the status of the refusal. What is not about one call is asked once.
"""

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from gateway.api.framework.route import AnyRoute
from gateway.api.routes import ROUTES
from tests.support.application import BASE, Application, running_application
from tests.support.publishing import OFFER

TABLE: Final = Path(__file__).parents[1] / "gateway" / "rights.txt"
STATES: Final = ("backstage", "live", "ended", "none")
ANY: Final = "-"
"""The state in which what is not about one call is asked."""

WHO: Final[Mapping[str, str]] = {
    "server": "the application's server",
    "admin": "a user whose role in the application is admin",
    "host": "a host of the call",
    "user": "a signed-in user who is nobody in the call",
    "n-server": "a server's token, narrowed to the call",
    "n-admin": "an administrator's token, narrowed to the call",
    "x-server": "a server's token, narrowed to another call",
    "key": "a stream key of a cohost",
    "watcher": "a token for watching, made by a cohost",
    "removed": "who was a cohost",
    "r-key": "a stream key of who was a cohost",
    "demoted": "who was a cohost and is a viewer",
    "d-key": "a stream key of who was a cohost and is a viewer",
    "blocked": "a cohost who is blocked",
    "b-key": "a stream key of a cohost who is blocked",
    "anonymous": "who says that they are anonymous",
    "no one": "who shows nothing",
}
SERVERS: Final = frozenset({"server", "n-server", "x-server"})
COHOSTS: Final = ("keyed", "removed", "demoted", "blocked")
KEYS: Final = {"key": "keyed", "r-key": "removed", "d-key": "demoted", "b-key": "blocked"}

SDP: Final = {"Content-Type": "application/sdp"}
_OUTSIDE_THE_API: Final = ("whip", "whep", "hls", "subscribe")
_ABOUT_ALL: Final = ("subscribe to *", "drain")  # the last one is the last thing that is asked
_SPEAKS_FOR: Final = frozenset({"send_reaction", "send_event", "create_stream_key"})  # where a server says for whom
_LEAVES_ANOTHER_CALL: Final = frozenset(
    {"get_or_create_call", "delete_call", "go_live", "stop_live", "end_call", "revoke_stream_key"}
)
_BODIES: Final[Mapping[str, Any]] = {
    "update_call": {"custom": {"a": 1}},
    "update_members": {"update_members": [{"user_id": "somebody"}]},
    **{name: {"user_id": "somebody"} for name in ("block_user", "unblock_user", "kick_user")},
    **{name: {"user_ids": ["somebody"]} for name in ("mute_users", "unmute_users")},
    "send_reaction": {"type": "like"},
    "send_event": {"custom": {}},
    "upsert_users": {"users": [{"id": "somebody"}]},
}

Rights = Mapping[tuple[str, str], Mapping[str, str]]
"""By way in and state: by caller, the cell."""


@dataclass
class Subject:
    """A call in one state, and the secrets that were handed out for it while it was open."""

    cid: str
    keys: dict[str, str] = field(default_factory=dict)  # by `KEYS`
    watch_token: str = ""
    spare: str = ""  # the name of a key that may be revoked

    @property
    def path(self) -> str:
        return f"/call/{self.cid.replace(':', '/')}"


@dataclass
class Walk:
    application: Application
    http: aiohttp.ClientSession
    numbers: Iterator[int] = field(default_factory=itertools.count)

    async def rights(self) -> Rights:
        found: dict[tuple[str, str], dict[str, str]] = {}
        await self.application.ok("POST", "/users", {"users": [{"id": "admin", "role": "admin"}]})
        await self.application.ok("POST", "/calltypes", {"name": "kept"})
        for state in STATES:
            subject = await self.call_in(state)
            for route in (each for each in ROUTES if "{id}" in each.path):
                cells = found[route.name, state] = {}
                for who in WHO:
                    status = await self.of_api(route, who, subject)
                    cells[who] = _cell(status)
                    if status < 300 and route.name in _LEAVES_ANOTHER_CALL:
                        subject = await self.call_in(state)
            for name in _OUTSIDE_THE_API:
                found[name, state] = {who: _cell(await self.beside_api(name, who, subject)) for who in WHO}
        subject = await self.call_in("live")
        for route in (each for each in ROUTES if "{id}" not in each.path):
            found[route.name, ANY] = {who: _cell(await self.of_api(route, who, subject)) for who in WHO}
        for name in _ABOUT_ALL:
            found[name, ANY] = {who: _cell(await self.beside_api(name, who, subject)) for who in reversed(list(WHO))}
        return found

    async def call_in(self, state: str) -> Subject:
        ok = self.application.ok
        subject = Subject(f"livestream:{state}-{next(self.numbers)}")
        members = [{"user_id": "host", "role": "host"}, *({"user_id": each, "role": "cohost"} for each in COHOSTS)]
        await ok("POST", subject.path, {"data": {"created_by_id": "owner", "members": members}})
        for who, user in KEYS.items():
            subject.keys[who] = (await ok("POST", f"{subject.path}/stream_keys", {}, user=user))["key"]
        subject.spare = (await ok("POST", f"{subject.path}/stream_keys", {}, user="host"))["stream_key"]["name"]
        subject.watch_token = (await ok("POST", f"{subject.path}/watch_token", user="keyed"))["token"]
        changed = {"update_members": [{"user_id": "demoted", "role": "viewer"}], "remove_members": ["removed"]}
        await ok("POST", f"{subject.path}/members", changed)
        await ok("POST", f"{subject.path}/block", {"user_id": "blocked"})
        if state in ("live", "ended"):
            await ok("POST", f"{subject.path}/go_live")
        if state == "ended":
            await ok("POST", f"{subject.path}/mark_ended")
        if state == "none":
            await ok("DELETE", subject.path)
        return subject

    def token(self, who: str, subject: Subject) -> str:
        """What they show; empty: nothing."""
        token = self.application.token
        match who:
            case "server":
                return token()
            case "n-server":
                return token(call_cids=[subject.cid])
            case "x-server":
                return token(call_cids=["livestream:another"])
            case "n-admin":
                return token("admin", call_cids=[subject.cid])
            case "watcher":
                return subject.watch_token
            case "anonymous" | "no one":
                return ""
            case _:
                return subject.keys.get(who) or token(who)

    def headers(self, who: str, subject: Subject) -> dict[str, str]:
        if who == "anonymous":
            return {"stream-auth-type": "anonymous"}
        return {"Authorization": f"Bearer {token}"} if (token := self.token(who, subject)) else {}

    async def of_api(self, route: AnyRoute, who: str, subject: Subject) -> int:
        kind, _, name = subject.cid.partition(":")
        names = {"type": kind, "id": name, "user_id": "somebody", "key": subject.spare, "name": "kept"}
        body = dict(_BODIES.get(route.name, {}))
        if route.name == "get_or_create_call" and who in SERVERS:
            body = {"data": {"created_by_id": "owner"}}
        if route.name in _SPEAKS_FOR and who in SERVERS:
            body["user_id"] = f"for-{who}"
        if route.name == "create_call_type":
            body["name"] = f"kind-{next(self.numbers)}"
        if route.name == "delete_call_type":
            await self.application.ask("POST", "/calltypes", {"name": "gone"})
            names["name"] = "gone"
        path = re.sub(r"{(\w+)}", lambda found: names[found[1]], route.path)
        sent = None if route.takes is None else body
        return await self.status(route.method, f"{BASE}{path}?api_key={self.application.api_key}", who, subject, json=sent)

    async def beside_api(self, name: str, who: str, subject: Subject) -> int:
        match name:
            case "whip":
                return await self.published(who, subject)
            case "whep":
                status = await self.status("POST", f"/{name}/{subject.cid}", who, subject, data="v=0", more=SDP)
                return 200 if status == 400 else status  # what they offer is looked at
            case "hls":
                status = await self.status("GET", f"/hls/{subject.cid}", who, subject)
                return (
                    200 if status == 404 and not subject.cid.startswith("livestream:none") else status
                )  # nothing is broadcast
            case "drain":
                far = {"X-Forwarded-For": "203.0.113.7"}  # as through a proxy: from this machine anybody may
                return await self.status("POST", f"/drain?api_key={self.application.api_key}", who, subject, more=far)
            case _:
                return await self.subscribed("*" if name.endswith("*") else subject.cid, who, subject)

    async def published(self, who: str, subject: Subject) -> int:
        shown = self.headers(who, subject)  # once: made in the next second it is another token, and the resource is its maker's
        url = self.application.gateway.url(f"/whip/{subject.cid}")
        async with self.http.post(url, data=OFFER, headers={**shown, **SDP}) as response:
            if response.status == 201:
                made = self.application.gateway.url(response.headers["Location"])
                async with self.http.delete(made, headers=shown) as ended:
                    assert ended.status == 200, (ended.status, await ended.text(), who, subject)
            return response.status

    async def status(
        self, method: str, path: str, who: str, subject: Subject, *, more: Mapping[str, str] | None = None, **sent: Any
    ) -> int:
        headers = {**self.headers(who, subject), **(more or {})}
        async with self.http.request(method, self.application.gateway.url(path), headers=headers, **sent) as response:
            await response.read()
            return response.status

    async def subscribed(self, cid: str, who: str, subject: Subject) -> int:
        hello = {"type": "authenticate", "id": "1", "token": self.token(who, subject), "api_key": self.application.api_key}
        async with self.http.ws_connect(self.application.gateway.url(f"{BASE}/connect")) as socket:
            for message in (hello, {"type": "subscribe", "id": "2", "cid": cid}):
                await socket.send_str(json.dumps(message))
                answer = await socket.receive_json(timeout=20)
                while answer.get("reply_to") != message["id"]:
                    answer = await socket.receive_json(timeout=20)
                if answer["type"] == "error":
                    return int(answer["status"])
        return 200


def _cell(status: int) -> str:
    return "+" if status < 300 else str(status)


def as_text(rights: Rights) -> str:
    names = [f"{who:<10} {meaning}" for who, meaning in WHO.items()]
    lines = [f"{'':<24}{'':<11}" + "".join(f"{who:<10}" for who in WHO)]
    for (name, state), cells in rights.items():
        lines.append(f"{name:<24}{state:<11}" + "".join(f"{cells[who]:<10}" for who in WHO))
    return "\n".join([*names, "", *(line.rstrip() for line in lines)]) + "\n"


@asynccontextmanager
async def walking() -> AsyncIterator[Walk]:
    unbounded = (
        "auth.max_failures_per_minute=0",
        *(f"quotas.{each}=0" for each in ("requests_per_minute", "lists_per_minute")),
    )
    async with running_application(*unbounded) as application, aiohttp.ClientSession() as http:
        yield Walk(application, http)


async def _write() -> None:
    async with walking() as walk:
        TABLE.write_text(as_text(await walk.rights()))


if __name__ == "__main__":
    asyncio.run(_write())
