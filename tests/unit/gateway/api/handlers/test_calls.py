"""Calls over HTTP: created, read, changed, live, ended, deleted, queried; and the events that tell of it."""

from collections.abc import AsyncIterator, Iterator, Mapping
from itertools import count
from typing import Any

import pytest
import pytest_asyncio

from gateway.model.permissions import WATCHING, Capability
from protocols.errors import Reason, Rejected
from protocols.media import Kind
from protocols.publisher import Credential
from tests.support.api import Stage, api_stage
from tests.support.memory import seated

SEED = {"data": {"created_by_id": "john", "members": [{"role": "host", "user_id": "john"}]}}
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with api_stage(tmp_path_factory.mktemp("store")) as stage:
        yield stage


@pytest.fixture(scope="module")
def names() -> Iterator[str]:
    return (f"show-{n}" for n in count())


@pytest.fixture
def call(names: Iterator[str]) -> str:
    """A call that no other test has, as a path."""
    return f"/call/livestream/{next(names)}"


async def test_a_call_is_created_once_and_found_after_that(api: Stage, call: str) -> None:
    first = await api.ask("POST", call, SEED)
    assert first.status == 201
    assert first.body["created"] is True
    shown, cid = first.body["call"], cid_of(call)
    assert (shown["cid"], shown["type"], shown["id"]) == (cid, "livestream", cid.partition(":")[2])
    assert shown["created_by"]["id"] == "john"
    assert shown["backstage"] is True
    assert shown["settings"]["backstage"]["enabled"] is True
    assert first.body["members"][0]["role"] == "host"
    assert first.body["duration"].endswith("ms")
    host = f"127.0.0.1:{api.client.port}"
    assert shown["ingress"]["rtmp"]["address"] == f"rtmp://127.0.0.1:1935/live?call={cid}"
    assert shown["ingress"]["srt"]["address"] == "srt://127.0.0.1:9000"
    assert shown["ingress"]["whip"]["address"] == f"http://{host}/whip/{cid}"
    behind_a_proxy = await api.ask("GET", call, **{"X-Forwarded-Proto": "https", "Host": "live.example.org"})
    told_there = behind_a_proxy.body["call"]["ingress"]
    assert told_there["whip"]["address"] == f"https://live.example.org/whip/{cid}"
    assert told_there["rtmp"]["address"] == f"rtmp://live.example.org:1935/live?call={cid}"
    again = await api.ask("POST", call, {"data": {"created_by_id": "mary", "custom": {"a": 1}}})
    assert again.status == 200
    assert again.body["created"] is False
    assert again.body["call"]["created_by"]["id"] == "john"
    assert again.body["call"]["custom"] == {}
    assert told(api, call) == ["call.created"]


async def test_a_user_creates_calls_of_his_own_alone(api: Stage, call: str) -> None:
    refused = await api.ask("POST", call, {"data": {"created_by_id": "john"}}, user="mary")
    assert refused.status == 403
    made = await api.ok("POST", call, {}, user="mary")
    assert made["call"]["created_by"]["id"] == "mary"
    assert "go-live" in made["own_capabilities"]
    nameless = await api.ask("POST", call + "-other", {})
    assert nameless.status == 400
    assert "created_by_id" in nameless.body["message"]


async def test_a_change_keeps_what_it_does_not_name(api: Stage, call: str) -> None:
    await api.ok("POST", call, {"data": {"created_by_id": "john", "settings_override": {"limits": {"max_participants": 3}}}})
    override = {"settings_override": {"backstage": {"join_ahead_time_seconds": 60}}}
    body = {"custom": {"title": "Show"}, "starts_at": "2030-01-01T12:00:00+01:00"} | override
    changed = (await api.ok("PATCH", call, body))["call"]
    assert changed["custom"] == {"title": "Show"}
    assert changed["starts_at"] == "2030-01-01T11:00:00Z"
    assert changed["settings"]["limits"]["max_participants"] == 3
    assert changed["settings"]["backstage"] == {"enabled": True, "join_ahead_time_seconds": 60}
    cleared = (await api.ok("PATCH", call, {"starts_at": None}))["call"]
    assert cleared["starts_at"] is None
    assert cleared["custom"] == {"title": "Show"}


async def test_a_call_goes_live_back_and_ends(api: Stage, call: str) -> None:
    await api.ok("POST", call, SEED)
    live = await api.ok("POST", call + "/go_live", {"start_hls": True})
    assert live["call"]["backstage"] is False
    assert live["call"]["live"] is True
    assert live["call"]["session"]["live_started_at"]
    assert live["playlist_url"] == live["call"]["egress"]["hls"]["playlist_url"] == f"/hls/{cid_of(call)}/index.m3u8"
    await api.ok("POST", call + "/go_live")  # again: nothing changes
    kept = await api.ok("POST", call + "/stop_live", {"continue_hls": True})
    assert kept["call"]["egress"]["broadcasting"] is True
    stopped = await api.ok("POST", call + "/stop_live")
    assert stopped["call"]["backstage"] is True
    assert stopped["call"]["egress"]["broadcasting"] is False
    assert not api.broadcasts.running
    await api.ok("POST", call + "/mark_ended")
    assert (await api.ask("POST", call + "/go_live")).status in (403, 409)
    ended = await api.ok("GET", call)
    assert ended["call"]["ended_at"]
    await api.ok("DELETE", call)
    assert (await api.ask("GET", call)).status == 404
    assert told(api, call) == [
        "call.created",
        "call.live_started",
        "call.hls_broadcasting_started",
        "call.live_ended",
        "call.hls_broadcasting_stopped",
        "call.ended",
        "call.deleted",
    ]


async def test_hls_for_which_there_is_no_room_is_refused_and_the_show_goes_on(api: Stage, call: str) -> None:
    await api.ok("POST", call, SEED)
    api.broadcasts.full = Rejected(Reason.OVERLOADED, "the gateway is overloaded: HLS takes about 0.50 of a CPU core here")
    try:
        for path, body in (("/go_live", {"start_hls": True}), ("/start_broadcasting", {})):
            refused = await api.ask("POST", call + path, body)
            assert (refused.status, refused.body["code"]) == (503, "unavailable")
            assert "overloaded" in refused.body["message"]
        assert (await api.ok("GET", call))["call"]["backstage"] is True, "a refusal changes nothing"
        live = await api.ok("POST", call + "/go_live")
        assert live["call"]["live"] is True
        assert live["call"]["egress"]["broadcasting"] is False
    finally:
        api.broadcasts.full = None


async def test_the_address_of_hls_is_told_to_those_who_may_watch_and_is_their_own(api: Stage, call: str) -> None:
    await api.ok("POST", call, SEED)
    started = await api.ok("POST", call + "/start_broadcasting", user="john")
    assert started["playlist_url"] == f"/hls/{cid_of(call)}/index.m3u8?john"
    shown = {user: (await api.ok("GET", call, user=user))["call"]["egress"] for user in ("john", "viewer", "")}
    assert all(each["broadcasting"] for each in shown.values())
    urls = {user: each["hls"]["playlist_url"] for user, each in shown.items()}
    assert urls == {"john": started["playlist_url"], "viewer": "", "": f"/hls/{cid_of(call)}/index.m3u8"}, "it is in backstage"
    await api.ok("POST", call + "/go_live")
    assert (await api.ok("GET", call, user="viewer"))["call"]["egress"]["hls"]["playlist_url"].endswith("?viewer")


async def test_calls_are_queried_in_pages_of_what_one_may_read(api: Stage, call: str) -> None:
    name = cid_of(call).partition(":")[2]
    for n in range(5):
        await api.ok("POST", f"{call}-{n}", {"data": {"created_by_id": "bert" if n % 2 else "ann"}})
    await api.ok("POST", f"{call}-3/go_live")
    query = {"filter_conditions": {"created_by_user_id": {"$in": ["bert", "ann"]}}, "sort": [{"field": "id"}], "limit": 2}
    first = await api.ok("POST", "/calls", query)
    second = await api.ok("POST", "/calls", query | {"next": first["next"]})
    third = await api.ok("POST", "/calls", query | {"next": second["next"]})
    shown = [each["call"]["id"] for page in (first, second, third) for each in page["calls"]]
    assert shown == [f"{name}-{n}" for n in range(5)]
    assert third["next"] is None
    back = await api.ok("POST", "/calls", query | {"prev": second["prev"]})
    assert [each["call"]["id"] for each in back["calls"]] == [f"{name}-0", f"{name}-1"]
    live = await api.ok("POST", "/calls", {"filter_conditions": {"live": True, "created_by_user_id": "bert"}})
    assert [each["call"]["id"] for each in live["calls"]] == [f"{name}-3"]
    assert (await api.ask("POST", "/calls", {"filter_conditions": {"colour": "red"}})).status == 400
    assert (await api.ask("POST", "/calls", {"next": "AAAA"})).status == 400
    narrowed = api.token("bert", call_cids=[f"livestream:{name}-1"])
    assert (await api.ask("POST", "/calls", {}, user="bert", Authorization=narrowed)).status == 403


async def test_members_users_and_who_is_blocked(api: Stage, call: str) -> None:
    await api.ok("POST", call, SEED)
    await api.role("zoe", "guest")
    given = {"update_members": [{"user_id": "amy", "role": "host"}, {"user_id": "bob"}], "remove_members": ["john"]}
    assert [each["user_id"] for each in (await api.ok("POST", call + "/members", given))["members"]] == ["amy", "bob"]
    hosts = await api.ok("POST", call + "/members/query", {"filter_conditions": {"role": "host"}})
    assert [each["user"]["id"] for each in hosts["members"]] == ["amy"]
    await api.ok("POST", call + "/block", {"user_id": "bob"}, user="amy")
    assert (await api.ok("GET", call, user="amy"))["call"]["blocked_user_ids"] == ["bob"]
    assert (await api.ask("GET", call, user="bob")).status == 403
    await api.ok("POST", call + "/unblock", {"user_id": "bob"}, user="amy")
    assert (await api.ok("GET", call, user="bob"))["call"]["blocked_user_ids"] == []
    await api.ok("POST", call + "/kick", {"user_id": "bob", "block": True}, user="amy")
    assert (await api.ask("GET", call, user="bob")).status == 403
    users = await api.ok("POST", "/users/query", {"filter_conditions": {"role": "guest"}})
    assert [each["id"] for each in users["users"]] == ["zoe"]
    assert (await api.ok("GET", "/user/zoe", user="zoe"))["user"]["role"] == "guest"
    assert (await api.ask("GET", "/user/amy", user="zoe")).status == 403
    assert told(api, call)[1:] == [
        "call.member_added",
        "call.member_removed",
        "call.user_blocked",
        "call.user_unblocked",
        "call.user_kicked",
        "call.user_blocked",
    ]


async def test_who_is_muted_is_written_down_whether_they_are_there_or_not(api: Stage, call: str) -> None:
    await api.ok("POST", call, SEED)
    cid, sound, picture = cid_of(call), frozenset({Kind.AUDIO}), frozenset({Kind.VIDEO})

    async def in_store() -> Mapping[str, frozenset[Kind]]:
        stored = await api.store_access.store.calls.get(cid)
        assert stored is not None
        return stored.muted_users

    await api.ok("POST", call + "/mute_users", {"user_ids": ["amy", "bob", "amy"]}, user="john")
    assert await in_store() == {"amy": sound, "bob": sound}
    seat = seated(api.registry, api.rights, cid, "zoe")
    await api.ok("POST", call + "/mute_users", {"mute_all_users": True, "audio": False, "video": True}, user="john")
    assert await in_store() == {"amy": sound, "bob": sound, "zoe": picture}
    assert seat.muted == picture
    await api.ok("POST", call + "/unmute_users", {"user_ids": ["zoe", "amy"], "video": False}, user="john")
    assert await in_store() == {"bob": sound, "zoe": picture}
    await api.ok("POST", call + "/unmute_users", {"user_ids": ["zoe", "nobody"]}, user="john")
    assert await in_store() == {"bob": sound}
    assert seat.muted == frozenset()
    assert (await api.ask("POST", call + "/mute_users", {}, user="john")).status == 400
    assert [dict(each.payload) for each in api.events if each.cid == cid and each.type == "call.user_muted"] == [
        {"user_id": "amy", "audio": True, "video": False},
        {"user_id": "bob", "audio": True, "video": False},
        {"user_id": "zoe", "audio": False, "video": True},
    ]
    await api.ok("POST", call + "/mark_ended")
    assert await in_store() == {}


async def test_reactions_and_events_are_told(api: Stage, call: str) -> None:
    await api.ok("POST", call, SEED)
    await api.ok("POST", call + "/go_live")
    sent = await api.ok("POST", call + "/reaction", {"type": "like", "emoji_code": "👍"}, user="viewer")
    assert sent["reaction"] == {"type": "like", "emoji_code": "👍", "custom": {}, "user_id": "viewer"}
    await api.ok("POST", call + "/event", {"custom": {"text": "hello"}, "user_id": "john"})
    assert (await api.ask("POST", call + "/event", {"custom": {}})).status == 400  # a server says for whom
    assert (await api.ask("POST", call + "/event", {"custom": {}, "user_id": "john"}, user="viewer")).status == 403
    reaction, custom = api.events[-2:]
    assert (reaction.type, reaction.payload["user"]["id"]) == ("call.reaction_new", "viewer")
    assert (custom.type, custom.payload["custom"], custom.payload["user"]["id"]) == ("custom", {"text": "hello"}, "john")


async def test_stream_keys_are_told_once_and_revoked(api: Stage, call: str) -> None:
    await api.ok("POST", call, SEED)
    made = await api.ask("POST", call + "/stream_keys", {"expires_in_seconds": 600}, user="john")
    assert made.status == 201
    key, name = made.body["key"], made.body["stream_key"]["name"]
    assert made.body["rtmp"] == {"server": f"rtmp://127.0.0.1:1935/live?call={cid_of(call)}", "stream_key": key}
    assert name in made.body["srt"]["address"]
    assert made.body["whip"]["bearer_token"] == key
    listed = await api.ok("GET", call + "/stream_keys", user="john")
    assert [each["name"] for each in listed["stream_keys"]] == [name]
    assert key not in str(listed)
    assert (await api.ask("POST", call + "/stream_keys", {}, user="viewer")).status == 403
    await api.ok("DELETE", f"{call}/stream_keys/{name}", user="john")
    assert (await api.ok("GET", call + "/stream_keys"))["stream_keys"][0]["revoked_at"]
    assert (await api.ask("DELETE", call + "/stream_keys/nokey")).status == 404


async def test_a_stream_key_says_which_picture_stands_in_for_its_encoder(api: Stage, call: str) -> None:
    await api.ok("POST", call, SEED)
    made = await api.ok("POST", call + "/stream_keys", {"picture": "brb.mp4"}, user="john")
    assert made["stream_key"]["picture"] == "brb.mp4"
    grant = api.store_access.authorizer.examine(Credential(made["key"]), None)
    assert grant.identity.picture == "brb.mp4"
    listed = await api.ok("GET", call + "/stream_keys", user="john")
    assert [each["picture"] for each in listed["stream_keys"]] == ["brb.mp4"]
    assert (await api.ask("POST", call + "/stream_keys", {"picture": "../brb.mp4"}, user="john")).status == 400


async def test_nobody_in_particular_gets_no_key_and_no_call_of_his_own(api: Stage, call: str) -> None:
    everything = {"anonymous": [each.value for each in Capability]}
    await api.ok("POST", "/calltypes", {"name": "graffiti", "grants": everything})
    open_to_all = call.replace("livestream", "graffiti")
    assert (await api.ask("POST", open_to_all, {}, user=None)).status == 400
    await api.ok("POST", open_to_all, SEED)
    assert (await api.ask("POST", open_to_all + "/stream_keys", {}, user=None)).status == 401


async def test_call_types_are_made_changed_and_deleted(api: Stage, call: str) -> None:
    kind = {"name": "concert", "grants": {"user": ["read-call", "join-call"]}, "settings": {"backstage": {"enabled": True}}}
    made = await api.ask("POST", "/calltypes", kind)
    assert made.status == 201
    assert made.body["call_type"]["grants"] == {"user": ["join-call", "read-call"]}
    assert (await api.ask("POST", "/calltypes", kind)).status == 409
    changed = await api.ok("PUT", "/calltypes/concert", {"settings": {"limits": {"max_participants": 2}}})
    assert changed["call_type"]["settings"]["backstage"]["enabled"] is True
    assert changed["call_type"]["settings"]["limits"]["max_participants"] == 2
    assert "concert" in (await api.ok("GET", "/calltypes"))["call_types"]
    await api.ok("POST", "/call/concert/one", {"data": {"created_by_id": "john"}})
    assert (await api.ask("DELETE", "/calltypes/concert")).status == 409
    await api.ok("DELETE", "/call/concert/one")
    await api.ok("DELETE", "/calltypes/concert")
    assert (await api.ask("GET", "/calltypes/concert")).status == 404
    assert (await api.ask("DELETE", "/calltypes/livestream")).status == 409
    assert (await api.ask("POST", "/call/concert/two", {"data": {"created_by_id": "john"}})).status == 404


async def test_who_may_change_but_not_read_is_answered_all_the_same(api: Stage) -> None:
    await api.ok("POST", "/calltypes", {"name": "dropbox", "grants": {"user": ["create-call", "update-call"]}})
    made = await api.ask("POST", "/call/dropbox/one", {}, user="drew")
    assert made.status == 201
    assert made.body["own_capabilities"] == ["create-call", "update-call"]
    assert (await api.ok("PATCH", "/call/dropbox/one", {"custom": {"a": 1}}, user="drew"))["call"]["custom"] == {"a": 1}
    assert (await api.ask("GET", "/call/dropbox/one", user="drew")).status == 403
    assert (await api.ok("POST", "/calls", {"filter_conditions": {"type": "dropbox"}}, user="drew"))["calls"] == []


async def test_errors_have_one_form(api: Stage, call: str) -> None:
    unknown = await api.ask("POST", call, {"data": {"created_by": {"id": "john"}, "costum": {}}})
    assert unknown.body == {
        "code": "invalid_request",
        "message": "data: there is no field 'costum': did you mean custom?",
        "status": 400,
        "more_info": "docs/api.md#errors",
        "details": [{"field": "data", "message": "there is no field 'costum': did you mean custom?"}],
    }
    for method, path, status, code in (
        ("GET", "/call/livestream/nothing", 404, "not_found"),
        ("GET", "/nowhere", 404, "not_found"),
        ("PUT", call, 405, "method_not_allowed"),
        ("GET", "/call/livestream/no%20name", 400, "invalid_request"),
    ):
        answered = await api.ask(method, path)
        assert (answered.status, answered.body["code"], answered.body["status"]) == (status, code, status)
    too_large = await api.ask("POST", call, {"data": {"custom": {"a": "x" * 70_000}}})
    assert too_large.status == 413
    not_json = await api.ask("POST", call, {}, **{"Content-Type": "text/plain"})
    assert not_json.status == 415


async def test_tokens_that_are_none_are_refused(api: Stage, call: str) -> None:
    await api.ok("POST", call, SEED)
    for token in (
        "nonsense",
        api.token("john")[:-4] + "AAAA",
        api.token("john", lasts_s=-3600),
        "Basic " + api.token("john"),
        api.tokens.issue("john", ["livestream:other"], 60),
    ):
        answered = await api.ask("GET", call, Authorization=token)
        assert answered.status in (401, 403), token
        assert token not in str(answered.body)
    assert (await api.ask("GET", call, Authorization=f"Bearer {api.token('john')}")).status == 200


async def test_pages_of_other_origins_may_ask(api: Stage, call: str) -> None:
    asks = {"Origin": "https://app.example", "Access-Control-Request-Method": "PATCH"}
    async with api.client.options("/api/v2/video" + call, headers=asks) as response:
        assert response.status == 204
        assert "PATCH" in response.headers["Access-Control-Allow-Methods"]
        assert response.headers["Access-Control-Allow-Origin"] == "*"
    await api.ok("POST", call, SEED)
    answered = await api.ask("GET", call, Origin="https://app.example")
    assert answered.headers["Access-Control-Allow-Origin"] == "*"


def cid_of(call: str) -> str:
    return "livestream:" + call.rpartition("/")[2]


def told(api: Stage, call: str) -> list[str]:
    """The events of this call so far."""
    return [each.type.value for each in api.events if each.cid == cid_of(call)]


async def test_nobody_gives_a_role_above_their_own_nor_blocks_themselves(api: Stage, call: str) -> None:
    await api.ok("POST", call, SEED)

    def gives(user: str, role: str) -> Any:
        return {"update_members": [{"user_id": user, "role": role}]}

    for user in ("john", "amy"):
        refused = await api.ask("POST", call + "/members", gives(user, "admin"), user="john")
        assert (refused.status, "above your own role" in refused.body["message"]) == (403, True)
    await api.ok("POST", call + "/members", gives("amy", "host"), user="john")
    own = await api.ask("POST", f"{call}-own", {"data": {"members": [{"user_id": "eve", "role": "admin"}]}}, user="eve")
    assert own.status == 403
    assert (await api.ask("GET", f"{call}-own")).status == 404, "and nothing was made"
    await api.ok("POST", f"{call}-own", {"data": {"members": [{"user_id": "eve", "role": "host"}]}}, user="eve")
    await api.ok("POST", call + "/members", gives("amy", "admin"))  # a server may
    for path, body in (("/block", {}), ("/kick", {"block": True})):
        refused = await api.ask("POST", call + path, body | {"user_id": "john"}, user="john")
        assert (refused.status, "yourself" in refused.body["message"]) == (400, True)
    await api.ok("POST", call + "/kick", {"user_id": "john"}, user="john")


async def test_what_is_narrowed_makes_no_users_and_calls_of_others_only_where_it_is_for(api: Stage, call: str) -> None:
    await api.role("ada", "admin")
    server = api.token(call_cids=[cid_of(call)])
    made = await api.ask(
        "POST", call, {"data": {"created_by": {"id": "eve", "role": "admin"}}}, user=None, Authorization=server
    )
    assert (made.status, made.body["call"]["created_by"]["id"]) == (201, "eve")
    assert (await api.ok("GET", "/user/eve"))["user"]["role"] == "user", "that is about no call"
    elsewhere = await api.ask("POST", f"{call}-2", {"data": {"created_by_id": "eve"}}, user=None, Authorization=server)
    assert elsewhere.status == 403
    for token in (server, api.token("ada", call_cids=[cid_of(call)])):
        for method, path, body in (
            ("GET", "/user/ada", None),
            ("POST", "/users", {"users": [{"id": "eve", "role": "admin"}]}),
            ("POST", "/calls", {}),
            ("GET", "/streams", None),
            ("PUT", "/calltypes/livestream", {"grants": {"user": ["delete-call"]}}),
        ):
            assert (await api.ask(method, path, body, user=None, Authorization=token)).status == 403, path
        assert (await api.ask("PATCH", call, {"custom": {"a": 1}}, user=None, Authorization=token)).status == 200


async def test_backstage_shows_its_state_and_its_start_to_those_who_may_not_enter(api: Stage, call: str) -> None:
    starts_at = "2030-01-01T20:00:00Z"
    await api.ok("POST", call, {"data": {**SEED["data"], "starts_at": starts_at, "custom": {"title": "a secret"}}})
    shown = {user: await api.ok("GET", call, user=user) for user in ("john", "vera")}
    assert shown["john"]["call"]["custom"] == {"title": "a secret"}
    inside = shown["vera"]["call"]
    assert (inside["backstage"], inside["live"], inside["starts_at"]) == (True, False, starts_at)
    assert (inside["created_by"], inside["custom"], inside["settings"]) == (None, {}, None)
    assert {each["address"] for each in inside["ingress"].values()} == {""}
    assert (shown["vera"]["members"], bool(shown["john"]["members"])) == ([], True)
    assert (await api.ask("POST", call + "/members/query", {}, user="vera")).status == 403
    listed = await api.ok("POST", "/calls", {"filter_conditions": {"cid": cid_of(call)}}, user="vera")
    assert [each["call"]["custom"] for each in listed["calls"]] == [{}]
    await api.ok("POST", call + "/go_live")
    assert (await api.ok("GET", call, user="vera"))["call"]["custom"] == {"title": "a secret"}


async def test_strangers_read_what_is_open_and_list_nothing(api: Stage, call: str) -> None:
    await api.ok("POST", "/calltypes", {"name": "plaza", "grants": {"anonymous": ["read-call", "join-call"]}})
    square = call.replace("livestream", "plaza")
    await api.ok("POST", square, {"data": {**SEED["data"], "settings_override": {"backstage": {"enabled": True}}}})
    assert (await api.ask("GET", square, user=None)).status == 403
    await api.ok("POST", square + "/go_live")
    assert (await api.ok("GET", square, user=None))["members"] == []
    for method, path in (("POST", square + "/members/query"), ("POST", "/calls"), ("GET", "/streams")):
        assert (await api.ask(method, path, {} if method == "POST" else None, user=None)).status == 401, path
    await api.ok("POST", square + "/mark_ended")
    assert (await api.ask("GET", square, user=None)).status == 403
    await api.ok("POST", call, SEED)
    await api.ok("POST", call + "/go_live")
    assert (await api.ask("GET", call, user=None)).status == 401, "a livestream is for signed-in users"


async def test_a_stream_key_is_for_encoders_alone(api: Stage, call: str) -> None:
    await api.ok("POST", call, SEED)
    key = (await api.ok("POST", call + "/stream_keys", {"expires_in_seconds": 60}, user="john"))["key"]
    for method, path, body in (("POST", "/stream_keys", {}), ("GET", "/stream_keys", None), ("GET", "", None)):
        assert (await api.ask(method, call + path, body, user=None, Authorization=key)).status == 403


async def test_a_watch_token_watches_and_does_no_more(api: Stage, call: str) -> None:
    await api.ok("POST", call, SEED)
    for publishing in (api.token("john"), api.tokens.issue("john", [cid_of(call)], 60)):
        made = await api.ask("POST", call + "/watch_token", user=None, Authorization=publishing)
        assert made.status == 201
        watching = {"Authorization": made.body["token"]}
        own = (await api.ask("GET", call, user=None, **watching)).body["own_capabilities"]
        assert {"join-call", "join-backstage"} <= set(own) <= {each.value for each in WATCHING}
        assert (await api.ask("POST", call + "/stream_keys", {}, user=None, **watching)).status == 403
        assert (await api.ask("POST", call + "/go_live", {}, user=None, **watching)).status == 403
    assert (await api.ask("POST", call + "/watch_token", user="vera")).status == 403, "it is in backstage"
    assert (await api.ask("POST", call + "/watch_token")).status == 400, "a server is no viewer"
