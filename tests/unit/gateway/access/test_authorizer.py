"""Who stands behind a credential and what he may do with it: applications' tokens, short keys, roles, and the directory that is asked."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import jwt
import pytest

from gateway.access import stream_keys
from gateway.access.rights_cache import NotInMemory, RightsCache
from gateway.access.sealing import Sealing
from gateway.model import lifecycle
from gateway.model.permissions import Capability
from gateway.model.records import ApiKey, CallType, Member, SealedSecret, Settings, StreamKey, User
from gateway.store.calls import blocked, muted, unblocked
from protocols.errors import Reason, Rejected
from protocols.media import Kind
from protocols.publisher import Credential
from tests.support.authorizer import NOW, SECRET, Ruling, ruling

X = "livestream:x"
APP = "s" * 43


@pytest.fixture
async def it() -> AsyncIterator[Ruling]:
    async with ruling() as made:
        await made.call(X, john="host", ann="viewer", max="moderator")
        await application(made, "app", APP)
        yield made


async def application(it: Ruling, key: str, secret: str) -> None:
    await it.store.api_keys.add(ApiKey(key, "", (sealed(it, key, secret),), it.time))


def sealed(it: Ruling, key: str, secret: str) -> SealedSecret:
    return SealedSecret(Sealing(SECRET.value).seal(secret.encode(), key), it.time)


def token(user: str | None = "john", secret: str = APP, **claims: Any) -> str:
    payload = {"user_id": user, "exp": NOW + 600} | claims
    return jwt.encode({name: value for name, value in payload.items() if value is not None}, secret, algorithm="HS256")


async def key_for(it: Ruling, user: str, **more: Any) -> StreamKey:
    key = StreamKey(stream_keys.new_name(SECRET.value), X, user, "john", it.time, **more)
    await it.store.stream_keys.add(key)
    return key


def whole(key: StreamKey) -> str:
    return stream_keys.whole(SECRET.value, key.name)


def why_not(it: Ruling, key: str, call: str | None = X, **more: Any) -> tuple[Reason, str]:
    with pytest.raises(Rejected) as caught:
        it.publish(key, call, **more)
    return caught.value.reason, caught.value.detail


def test_a_users_token_is_a_stream_key_where_the_user_is_a_host(it: Ruling) -> None:
    grant = it.publish(token(), X)
    assert (grant.user_id, grant.call_cid, grant.expires_at, grant.exists) == ("john", X, NOW + 600, True)
    assert it.publish(token(call_cids=[X])).call_cid == X
    assert "?call=" in why_not(it, token(), None)[1]
    assert why_not(it, token("ann"))[0] is Reason.FORBIDDEN
    assert why_not(it, token("stranger"))[0] is Reason.FORBIDDEN
    assert why_not(it, token(call_cids=["livestream:y"]))[0] is Reason.FORBIDDEN
    assert why_not(it, token(None)) == (
        Reason.FORBIDDEN,
        "The stream key is a server's token, which is nobody's: make one for a user",
    )


@pytest.mark.parametrize(
    "bad",
    [
        token(exp=None),
        token(exp=NOW - 60),
        token(exp=0),
        token(secret="x" * 43),
        token("no user"),
        token(call_cids=["nonsense"]),
        token(None, exp=NOW - 60),
        token(iat=NOW * 2),
    ],
)
def test_an_applications_token_that_is_none(it: Ruling, bad: str) -> None:
    with pytest.raises(Rejected) as caught:
        it.authorizer.identify(bad, api_key="app")
    assert caught.value.reason is Reason.UNAUTHORIZED


def test_who_an_identity_is(it: Ruling) -> None:
    identify = it.authorizer.identify
    server = identify(token(None, exp=None), api_key="app")
    assert (server.server, server.user_id, server.api_key) == (True, "", "app")
    assert it.authorizer.capabilities(server, X) == frozenset(Capability)
    assert not identify(None).user_id
    assert identify(token()).api_key == "app"  # found without being named, as encoders cannot
    with pytest.raises(Rejected, match="no such api_key"):
        identify(token(), api_key="other")
    with pytest.raises(Rejected, match="not made by this gateway"):
        identify(token(secret="z" * 43))


async def test_two_secrets_are_good_during_a_rotation_and_none_after_a_revocation(it: Ruling) -> None:
    new = "n" * 43
    await it.store.api_keys.rotate("app", sealed(it, "app", new), it.time + timedelta(minutes=5))
    assert it.publish(token(), X).user_id == it.publish(token(secret=new), X).user_id == "john"
    it.now += 301
    assert it.publish(token(secret=new), X)
    assert why_not(it, token())[0] is Reason.UNAUTHORIZED
    identity = it.authorizer.identify(token(secret=new))
    await it.store.api_keys.revoke("app", it.time)
    assert why_not(it, token(secret=new))[0] is Reason.UNAUTHORIZED
    with pytest.raises(Rejected, match="revoked"):
        it.authorizer.judge(identity, X, Capability.READ_CALL)


async def test_a_short_key_in_each_form(it: Ruling) -> None:
    key = await key_for(it, "guest7")
    grant = it.publish(whole(key))
    assert (grant.user_id, grant.call_cid, grant.expires_at) == ("guest7", X, 0)
    assert it.publish("live", user=key.name) == grant
    password = it.authorizer.authenticator.password
    assert password(key.name) == whole(key).partition("-")[2]
    assert "another call" in why_not(it, whole(key), "livestream:y")[1]
    assert "copy it again" in why_not(it, whole(key)[:-1])[1]
    assert "missing or changed" in why_not(it, "live", user=f"{key.name[:-1]}{'a' if key.name[-1] != 'a' else 'b'}")[1]
    assert it.authorizer.capabilities(grant.identity, X) <= {
        *(Capability.SEND_VIDEO, Capability.SEND_AUDIO, Capability.JOIN_CALL),
        *(Capability.JOIN_BACKSTAGE, Capability.READ_CALL, Capability.LIST_STREAMS),
    }
    with pytest.raises(Rejected, match="for publishing only"):
        it.authorizer.judge(grant.identity, X, Capability.GO_LIVE)
    await it.store.stream_keys.revoke(key.name, it.time)
    assert "revoked" in why_not(it, whole(key))[1]
    assert password(key.name) is None


async def test_a_short_key_ends_with_its_time_and_with_its_user(it: Ruling) -> None:
    soon = await key_for(it, "ann", expires_at=it.time + timedelta(seconds=60))
    assert it.publish(whole(soon)).expires_at == NOW + 60
    it.now += 61
    assert "expired" in why_not(it, whole(soon))[1]
    key = await key_for(it, "ann")
    await it.store.calls.change(X, lambda call: blocked(call, "ann"), now=it.time)
    assert "blocked" in why_not(it, whole(key))[1]


async def test_publishing_makes_the_call_where_that_is_allowed(it: Ruling) -> None:
    own = it.tokens.issue("host", ["livestream:new"], 60)
    grant = it.publish(own)
    assert not grant.exists
    assert (await it.authorizer.settle(grant)).exists
    made = await it.store.calls.get("livestream:new")
    assert made is not None
    assert (made.created_by_id, made.backstage) == ("host", True)
    user = it.publish(token("zoe"), "livestream:zoes")
    await it.authorizer.settle(user)
    assert it.publish(token("zoe"), "livestream:zoes").exists
    assert "no call type" in why_not(it, token(), "nothing:x")[1]
    await it.store.users.put([User("gus", it.time, it.time, "guest")])
    assert "create it first" in why_not(it, token("gus"), "livestream:gus")[1]


async def test_a_call_that_ended_since_is_not_made_again(it: Ruling) -> None:
    grant = it.publish(token("zoe"), "livestream:zoes")
    over = await it.call("livestream:zoes", by="zoe")
    await it.store.calls.change(over.cid, lambda call: lifecycle.ended(call, it.time), now=it.time)
    with pytest.raises(Rejected, match="has ended"):
        await it.authorizer.settle(grant)


async def test_where_publishing_makes_no_calls(it: Ruling) -> None:
    it.authorizer.rules = replace(it.authorizer.rules, create_on_publish=False)
    own = it.tokens.issue("host", ["livestream:new"], 60)
    assert why_not(it, own, None)[0] is Reason.NOT_FOUND
    assert why_not(it, token("zoe"), "livestream:new")[0] is Reason.NOT_FOUND


async def test_a_speaker_may_send_sound_alone(it: Ruling) -> None:
    await it.call("audio_room:r", sam="speaker")
    grant = it.publish(token("sam"), "audio_room:r")
    assert grant.sends == {Capability.SEND_AUDIO}


async def test_viewers_wait_for_the_call_and_may_come_ahead_of_its_start(it: Ruling) -> None:
    ann = token("ann")
    with pytest.raises(Rejected, match="backstage"):
        await it.authorizer.watch(X, ann)
    assert (await it.authorizer.watch(X, token())).user_id == "john"
    override = {"backstage": {"join_ahead_time_seconds": 300}}
    starts_at = it.time + timedelta(seconds=600)
    await it.store.calls.change(X, lambda call: replace(call, starts_at=starts_at, settings_override=override), now=it.time)
    it.now += 299
    with pytest.raises(Rejected, match="backstage"):
        await it.authorizer.watch(X, ann)
    it.now += 1
    assert await it.authorizer.watch(X, ann)
    await it.store.calls.change(X, lambda call: lifecycle.gone_live(call, it.time), now=it.time)
    assert not (await it.authorizer.watch(X, None)).user_id
    await it.store.calls.change(X, lambda call: lifecycle.stopped_live(call, it.time), now=it.time)
    with pytest.raises(Rejected, match="backstage"):  # the planned start is past
        await it.authorizer.watch(X, ann)


async def test_who_was_kicked_may_come_back_after_a_while_and_others_meanwhile(it: Ruling) -> None:
    key = whole(await key_for(it, "ann"))
    await it.store.calls.change(X, lambda call: lifecycle.gone_live(call, it.time), now=it.time)
    ann, max_ = it.authorizer.identify(token("ann")), it.authorizer.identify(token("max"))
    it.authorizer.send_out(X, "ann")
    assert it.authorizer.taken_out(X) == ["ann"]
    reason, words = why_not(it, key)
    assert (reason, "come back in 30 s" in words) == (Reason.FORBIDDEN, True)
    assert not it.authorizer.may(ann, X, Capability.JOIN_CALL)
    assert it.authorizer.may(ann, X, Capability.READ_CALL)
    assert Capability.JOIN_CALL not in it.authorizer.capabilities(ann, X)
    assert it.authorizer.may(max_, X, Capability.JOIN_CALL)
    it.now += 31
    assert it.authorizer.taken_out(X) == []
    assert it.publish(key).user_id == "ann"
    assert it.authorizer.may(ann, X, Capability.JOIN_CALL)

    await it.store.calls.kick(X, "ann", block=True, now=it.time)
    it.authorizer.send_out(X, "ann")
    assert it.authorizer.taken_out(X) == ["ann"]
    assert "blocked" in why_not(it, key)[1]
    await it.store.calls.change(X, lambda call: unblocked(call, "ann"), now=it.time)
    assert it.publish(key).user_id == "ann", "who unblocks him lets him in at once"


async def test_a_grant_says_of_what_its_user_is_muted(it: Ruling) -> None:
    assert it.publish(token(), X).muted == frozenset()
    await it.store.calls.change(X, lambda call: muted(call, ["john"], frozenset({Kind.VIDEO})), now=it.time)
    assert it.publish(token(), X).muted == {Kind.VIDEO}
    assert it.publish(whole(await key_for(it, "ann")), X).muted == frozenset()


async def test_which_calls_are_over(it: Ruling) -> None:
    assert not it.authorizer.is_over(X)
    assert it.authorizer.is_over("livestream:never-was")
    await it.store.calls.change(X, lambda call: lifecycle.ended(call, it.time), now=it.time)
    assert it.authorizer.is_over(X)


async def test_call_types_and_roles_are_followed(it: Ruling) -> None:
    kind = CallType("town-hall", {"chair": frozenset({Capability.SEND_VIDEO})}, Settings(), it.time, it.time)
    await it.store.call_types.put(kind)
    await it.call("town-hall:x", eve="chair")
    assert it.publish(token("eve"), "town-hall:x")
    await it.store.calls.update_members("town-hall:x", remove=["eve"])
    assert why_not(it, token("eve"), "town-hall:x")[0] is Reason.FORBIDDEN
    await it.store.users.put([User("eve", it.time, it.time, "admin")])
    assert it.publish(token("eve"), X)
    await it.store.users.put([User("eve", it.time, it.time)])
    assert why_not(it, token("eve"))[0] is Reason.FORBIDDEN


async def test_wrong_keys_are_slowed_by_address_and_right_ones_cost_nothing() -> None:
    async with ruling(failures_per_minute=2) as it:
        own = it.tokens.issue("host", [X], 60)

        def status(key: str, address: str) -> Reason | None:
            try:
                it.authorizer.examine(Credential(key), None, address)
            except Rejected as refusal:
                return refusal.reason
            return None

        assert [status(own, "192.0.2.1") for _ in range(9)] == [None] * 9
        assert [status("wrong", "192.0.2.1") for _ in range(3)] == [Reason.UNAUTHORIZED] * 2 + [Reason.TOO_MANY_REQUESTS]
        assert status(own, "192.0.2.1") is Reason.TOO_MANY_REQUESTS
        assert status(own, "192.0.2.9") is None
        it.monotonic += 60_000_000_000
        assert status(own, "192.0.2.1") is None


async def test_more_calls_than_fit_are_looked_up(it: Ruling) -> None:
    for n in range(5):
        await it.call(f"livestream:c{n}")
    small = RightsCache(it.store, max_calls=3)
    await small.start()
    newest = small.call("livestream:c4")
    assert newest is not None
    with pytest.raises(NotInMemory) as caught:
        small.call("livestream:c0")
    assert caught.value.reason is Reason.OVERLOADED
    await small.look_up(cid="livestream:c0")
    await small.look_up(cid="livestream:none")
    found = small.call("livestream:c0")
    assert found is not None
    assert found.call.cid == "livestream:c0"
    assert small.call("livestream:none") is None


async def test_a_thousand_keys_are_told_apart_quickly(it: Ruling) -> None:
    for n in range(100):
        await application(it, f"app{n}", f"{n:043}")
    it.publish(token(), X)
    begun = time.process_time()
    for _ in range(20):
        it.publish(token(secret=f"{99:043}"), X)
    assert time.process_time() - begun < 2, "a token is judged by each secret"


async def test_a_member_of_another_call_is_nobody_here(it: Ruling) -> None:
    await it.store.calls.get_or_create(
        lifecycle.created(it.rights_cache.call_types["livestream"], "y", "bob", it.time),
        [Member("", "cat", it.time, it.time, "host")],
    )
    assert it.publish(token("cat"), "livestream:y")
    assert it.publish(token("bob"), "livestream:y")  # who created it
    for user in ("cat", "bob"):
        assert why_not(it, token(user))[0] is Reason.FORBIDDEN
