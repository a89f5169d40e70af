"""The matrix: who may do what in a call of which state, asked over HTTP with a fresh call after each that was allowed.

Who: an application's server, its users by their role in the application and in the call, and bearers of the operator's own credentials.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.access import stream_keys
from gateway.access.credentials import Secret, Tokens
from gateway.config import Config
from gateway.model.permissions import DEVELOPMENT
from gateway.model.records import Call, Member, StreamKey
from gateway.wiring.store import open_store_access
from tests.support.api import Stage, api_stage
from tests.support.unheard import unheard

CREATOR = "creator"
APP_ROLES = {"admin": "admin", "guest": "guest"}  # of users who are no members; everybody else is a plain user
MEMBERS = {"host": "host", "cohost": "cohost", "moderator": "moderator", "speaker": "speaker", "viewer": "viewer"}
WHO = ("server", *APP_ROLES, *MEMBERS, CREATOR, "user", "anonymous", "blocked", "watch_link", "host_key", "stream_key")

MAY_ALL = frozenset({"server", "admin"})
HOSTS = MAY_ALL | {"host", CREATOR, "host_key"}  # a key of the gateway's own makes a host
MODERATORS = HOSTS | {"moderator"}
PUBLISHERS = MODERATORS | {"cohost"}
INSIDE = PUBLISHERS | {"speaker", "watch_link"}  # in backstage, too
USERS = INSIDE | {"viewer", "user", "guest"}  # not who shows a stream key, which is for encoders, nor who shows nothing
NOBODY: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Action:
    """A request, and who may make it in each state of the call."""

    method: str
    path: str
    body: Any
    backstage: frozenset[str]
    live: frozenset[str]
    ended: frozenset[str]


USER = {"user_id": "somebody"}
MEMBER = {"update_members": [{"user_id": "somebody"}]}
ACTIONS = {
    "read": Action("GET", "", None, USERS, USERS, USERS),
    "get or create": Action("POST", "", {}, USERS, USERS, USERS),
    "list members": Action("POST", "/members/query", {}, INSIDE, USERS, USERS),
    "update": Action("PATCH", "", {"custom": {"a": 1}}, HOSTS, HOSTS, HOSTS),
    "change members": Action("POST", "/members", MEMBER, HOSTS, HOSTS, HOSTS),
    "go live": Action("POST", "/go_live", {}, HOSTS, HOSTS, NOBODY),
    "stop live": Action("POST", "/stop_live", {}, HOSTS, HOSTS, NOBODY),
    "start HLS": Action("POST", "/start_broadcasting", {}, HOSTS, HOSTS, NOBODY),
    "stop HLS": Action("POST", "/stop_broadcasting", {}, HOSTS, HOSTS, frozenset({"server"})),
    "end": Action("POST", "/mark_ended", {}, HOSTS, HOSTS, frozenset({"server"})),
    "delete": Action("DELETE", "", None, MAY_ALL, MAY_ALL, MAY_ALL),
    "block": Action("POST", "/block", USER, MODERATORS, MODERATORS, frozenset({"server"})),
    "unblock": Action("POST", "/unblock", USER, MODERATORS, MODERATORS, frozenset({"server"})),
    "kick": Action("POST", "/kick", USER, MODERATORS, MODERATORS, frozenset({"server"})),
    "mute": Action("POST", "/mute_users", {"mute_all_users": True}, MODERATORS, MODERATORS, frozenset({"server"})),
    "react": Action("POST", "/reaction", {"type": "like"}, INSIDE, USERS, frozenset({"server"})),
    "send event": Action("POST", "/event", {"custom": {}}, INSIDE, USERS, frozenset({"server"})),
    "list streams": Action("GET", "/streams", None, INSIDE, USERS, frozenset({"server"})),
    "end stream": Action("DELETE", "/streams/somebody", None, MODERATORS, MODERATORS, frozenset({"server"})),
    "make own key": Action("POST", "/stream_keys", {}, PUBLISHERS, PUBLISHERS, NOBODY),
    "make another's key": Action("POST", "/stream_keys", USER, HOSTS, HOSTS, NOBODY),
}  # fmt: skip
CHANGING = ("go live", "stop live", "end", "delete")  # after these the call is in another state
STATES = ("backstage", "live", "ended")
SAYS_FOR_WHOM = ("/reaction", "/event", "/stream_keys")  # where a server names a user


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with api_stage(tmp_path_factory.mktemp("store")) as stage:
        for user, role in APP_ROLES.items():
            await stage.role(user, role)
        yield stage


async def call_in(api: Stage, state: str, number: int) -> Call:
    """A call of its own, with everybody in it who is a member."""
    now = datetime.now(UTC)
    call = Call(
        "livestream",
        f"{state}-{number}",
        CREATOR,
        now,
        now,
        backstage=state != "live",
        live_started_at=now if state != "backstage" else None,
        ended_at=now if state == "ended" else None,
        blocked_user_ids=("blocked",),
    )
    members = [Member(call.cid, user, now, now, role) for user, role in MEMBERS.items()]
    await api.store_access.store.calls.get_or_create(call, members)
    return call


async def credential(api: Stage, who: str, cid: str) -> dict[str, str]:
    """The header by which `who` shows who it is."""
    secret, now = api.tokens.secret.value, datetime.now(UTC)
    match who:
        case "server":
            token = api.token()
        case "anonymous":
            return {"stream-auth-type": "anonymous"}
        case "watch_link":
            token = api.tokens.issue("viewer-by-link", [cid], 60, "viewer")
        case "host_key":
            token = api.tokens.issue("host-by-key", [cid], 60)
        case "stream_key":
            key = StreamKey(stream_keys.new_name(secret), cid, "encoder", "", now, now + timedelta(hours=1))
            await api.store_access.store.stream_keys.add(key)
            token = stream_keys.whole(secret, key.name)
        case user:
            token = api.token(user)
    return {"Authorization": token}


@pytest.mark.parametrize("state", STATES)
async def test_who_may_do_what(api: Stage, state: str) -> None:
    numbers, wrong, call = count(), [], None
    for name, action in ACTIONS.items():
        for who in WHO:
            call = call or await call_in(api, state, next(numbers))
            body = action.body
            if who == "server" and action.path in SAYS_FOR_WHOM:
                body = {**body, **USER}
            shown = await credential(api, who, call.cid)
            answered = await api.ask(action.method, f"/call/livestream/{call.id}{action.path}", body, user=None, **shown)
            allowed = who in getattr(action, state)
            if (answered.status < 300) is not allowed or answered.status == 400:
                wrong.append((name, who, "should" if allowed else "should not", answered.status, answered.body.get("message")))
            if answered.status < 300 and name in CHANGING:
                call = None
    assert wrong == []


async def test_who_may_create_calls_and_look_after_the_application(api: Stage) -> None:
    wrong = []
    for who in set(WHO) - {"stream_key"}:
        shown = await credential(api, who, "livestream:new")
        creates = who not in ("guest", "anonymous", "watch_link", "host_key")
        given = {"data": {"created_by_id": who}} if who == "server" else {}
        for method, path, body, allowed in (
            ("POST", "/call/livestream/new", given, creates),
            ("GET", "/calltypes", None, who in MAY_ALL),
            ("POST", "/users", {"users": [{"id": "x"}]}, who in MAY_ALL),
            ("POST", "/users/query", {}, who in MAY_ALL),
            (
                "POST",
                "/calls",
                {},
                who not in ("anonymous", "watch_link", "host_key"),
            ),  # what is narrowed to calls is for those
        ):
            answered = await api.ask(method, path, body, user=None, **shown)
            if (answered.status < 300) is not allowed:
                wrong.append((who, method, path, answered))
        await api.ask("DELETE", "/call/livestream/new")
    assert wrong == []


@pytest.mark.parametrize("wanted", [False, True])
async def test_the_type_in_which_every_user_may_everything_is_there_only_where_it_is_configured(
    tmp_path: Path, wanted: bool
) -> None:
    config = Config.model_validate({"state": {"directory": str(tmp_path)}, "calls": {"development": wanted} if wanted else {}})
    async with open_store_access(config, Tokens(Secret(bytes(48))), unheard) as opened:
        assert (DEVELOPMENT in await opened.store.call_types.all()) is wanted
