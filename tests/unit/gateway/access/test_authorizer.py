"""Who stands behind a credential and what he may do with it: applications' tokens, short keys, roles, and the directory that is asked."""

import base64
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import jwt
import pytest

from gateway.access import stream_keys
from gateway.access.credentials import WATCH_S, Identity
from gateway.access.jwt import VIEWER, Signer
from gateway.access.rights_cache import NotInMemory, RightsCache
from gateway.access.sealing import Sealing
from gateway.model import lifecycle
from gateway.model.permissions import SENDING, WATCHING, Capability
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


def sealed_by(own: bytes, key: str, secret: str) -> SealedSecret:
    return SealedSecret(Sealing(own).seal(secret.encode(), key), datetime.fromtimestamp(NOW, UTC))


def token(user: str | None = "john", secret: str = APP, **claims: Any) -> str:
    payload = {"user_id": user, "server": True if user is None else None, "exp": NOW + 600} | claims
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
    server = identify(token(None), api_key="app")
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
    key = await key_for(it, "max")
    grant = it.publish(whole(key))
    assert (grant.user_id, grant.call_cid, grant.expires_at) == ("max", X, 0)
    assert it.publish("live", user=key.name) == grant
    password = it.authorizer.authenticator.password
    assert password(key.name) == whole(key).partition("-")[2]
    assert "another call" in why_not(it, whole(key), "livestream:y")[1]
    assert "copy it again" in why_not(it, whole(key)[:-1])[1]
    assert "missing or changed" in why_not(it, "live", user=f"{key.name[:-1]}{'a' if key.name[-1] != 'a' else 'b'}")[1]
    assert it.authorizer.capabilities(grant.identity, X) == {Capability.SEND_VIDEO, Capability.SEND_AUDIO}
    with pytest.raises(Rejected, match="for publishing only"):
        it.authorizer.judge(grant.identity, X, Capability.GO_LIVE)
    await it.store.stream_keys.revoke(key.name, it.time)
    assert "revoked" in why_not(it, whole(key))[1]
    assert password(key.name) is None


async def test_a_short_key_ends_with_its_time_and_with_its_user(it: Ruling) -> None:
    soon = await key_for(it, "max", expires_at=it.time + timedelta(seconds=60))
    assert it.publish(whole(soon)).expires_at == NOW + 60
    it.now += 61
    assert "expired" in why_not(it, whole(soon))[1]
    key = await key_for(it, "max")
    await it.store.calls.change(X, lambda call: blocked(call, "max"), now=it.time)
    assert "blocked" in why_not(it, whole(key))[1]


async def test_publishing_makes_the_call_where_that_is_allowed(it: Ruling) -> None:
    own = it.tokens.issue("host", ["livestream:new"], 60)
    grant = it.publish(own)
    assert not grant.exists
    assert (await it.authorizer.settle(grant)).exists
    made = await it.store.calls.get("livestream:new")
    assert made is not None
    assert (made.created_by_id, made.backstage) == ("host", True)
    assert "no call type" in why_not(it, token(), "nothing:x")[1]
    await it.store.users.put([User("ada", it.time, it.time, "admin")])
    for user in ("zoe", "ada"):  # to an application it is a mistake, or a call that was deleted
        assert why_not(it, token(user), "livestream:zoes") == (
            Reason.NOT_FOUND,
            "there is no call livestream:zoes: create it first",
        )


async def test_a_call_that_ended_since_is_not_made_again(it: Ruling) -> None:
    grant = it.publish(it.tokens.issue("zoe", ["livestream:zoes"], 60))
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
    with pytest.raises(Rejected, match="without a token"):  # signed-in users
        await it.authorizer.watch(X, None)
    await it.store.calls.change(X, lambda call: lifecycle.stopped_live(call, it.time), now=it.time)
    with pytest.raises(Rejected, match="backstage"):  # the planned start is past
        await it.authorizer.watch(X, ann)


async def test_who_was_kicked_may_come_back_after_a_while_and_others_meanwhile(it: Ruling) -> None:
    await it.store.calls.update_members(X, [Member(X, "ann", it.time, it.time, "cohost")])
    key = whole(await key_for(it, "ann"))
    await it.store.calls.change(X, lambda call: lifecycle.gone_live(call, it.time), now=it.time)
    ann, max_ = it.authorizer.identify(token("ann")), it.authorizer.identify(token("max"))
    it.authorizer.send_out(X, "ann")
    reason, words = why_not(it, key)
    assert (reason, "come back in 30 s" in words) == (Reason.FORBIDDEN, True)
    assert not it.authorizer.may(ann, X, Capability.JOIN_CALL)
    assert it.authorizer.may(ann, X, Capability.READ_CALL)
    assert Capability.JOIN_CALL not in it.authorizer.capabilities(ann, X)
    assert it.authorizer.may(max_, X, Capability.JOIN_CALL)
    it.now += 31
    assert it.publish(key).user_id == "ann"
    assert it.authorizer.may(ann, X, Capability.JOIN_CALL)

    await it.store.calls.kick(X, "ann", block=True, now=it.time)
    it.authorizer.send_out(X, "ann")
    assert "blocked" in why_not(it, key)[1]
    await it.store.calls.change(X, lambda call: unblocked(call, "ann"), now=it.time)
    assert it.publish(key).user_id == "ann", "who unblocks him lets him in at once"


CLUB = "club:x"
"""Of a type that lets nobody in but its members."""


@pytest.fixture
async def ann_watches(it: Ruling) -> str:
    """What is handed out to somebody who watches in it by her role, of an application."""
    grants = {each: frozenset({Capability.READ_CALL, Capability.JOIN_CALL}) for each in ("host", "cohost")}
    club = await it.store.call_types.put(CallType("club", grants, Settings(), it.time, it.time))
    members = [Member("", "ann", it.time, it.time, "cohost", api_key="app")]
    await it.store.calls.get_or_create(lifecycle.created(club, "x", "john", it.time), members)
    ann = it.authorizer.identify(token("ann"))
    await it.authorizer.admit(ann, CLUB, Capability.JOIN_CALL)
    await it.authorizer.still_watches(Identity.of_watching(ann.watching_as, CLUB), CLUB)
    return ann.watching_as


Change = Callable[[Ruling], Awaitable[object]]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda it: it.store.calls.update_members(CLUB, (), ["ann"]), id="removed"),
        pytest.param(
            lambda it: it.store.calls.update_members(CLUB, [Member(CLUB, "ann", it.time, it.time, "viewer")]), id="demoted"
        ),
        pytest.param(lambda it: it.store.calls.kick(CLUB, "ann", block=True, now=it.time), id="blocked"),
        pytest.param(lambda it: it.store.api_keys.revoke("app", it.time), id="the key revoked"),
        pytest.param(
            lambda it: it.store.call_types.put(CallType("club", {}, Settings(), it.time, it.time)),
            id="the role's grants changed",
        ),
        pytest.param(lambda it: it.store.calls.delete(CLUB), id="the call deleted"),
    ],
)
async def test_what_is_handed_out_to_a_viewer_ends_with_their_right(it: Ruling, ann_watches: str, change: Change) -> None:
    await change(it)
    with pytest.raises(Rejected):
        await it.authorizer.still_watches(Identity.of_watching(ann_watches, CLUB), CLUB)


async def test_who_was_kicked_watches_nothing_for_a_while(it: Ruling, ann_watches: str) -> None:
    it.authorizer.send_out(CLUB, "ann")
    with pytest.raises(Rejected, match="taken you out"):
        await it.authorizer.still_watches(Identity.of_watching(ann_watches, CLUB), CLUB)
    it.now += 31
    await it.authorizer.still_watches(Identity.of_watching(ann_watches, CLUB), CLUB)


async def test_what_is_handed_out_to_a_viewer_outlives_the_show(it: Ruling, ann_watches: str) -> None:
    ann = Identity.of_watching(ann_watches, CLUB)
    for change in (lifecycle.gone_live, lifecycle.stopped_live, lifecycle.ended):
        await it.store.calls.change(CLUB, partial(change, now=it.time), now=it.time)
        await it.authorizer.still_watches(ann, CLUB)
    with pytest.raises(Rejected, match="another call"):
        await it.authorizer.still_watches(ann, X)


async def test_what_is_handed_out_by_the_operators_word_is_judged_by_it(it: Ruling, ann_watches: str) -> None:
    link = it.authorizer.identify(it.tokens.issue("somebody", [CLUB], 600, VIEWER))
    await it.authorizer.still_watches(Identity.of_watching(link.watching_as, CLUB), CLUB)
    await it.store.calls.kick(CLUB, "somebody", block=True, now=it.time)
    with pytest.raises(Rejected, match="blocked"):
        await it.authorizer.still_watches(Identity.of_watching(link.watching_as, CLUB), CLUB)
    assert it.authorizer.identify(token(None)).watching_as == "", "a server's is nobody's"


async def test_a_grant_says_of_what_its_user_is_muted(it: Ruling) -> None:
    assert it.publish(token(), X).muted == frozenset()
    await it.store.calls.change(X, lambda call: muted(call, ["john"], frozenset({Kind.VIDEO})), now=it.time)
    assert it.publish(token(), X).muted == {Kind.VIDEO}
    assert it.publish(whole(await key_for(it, "max")), X).muted == frozenset()


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


async def test_wrong_keys_are_slowed_by_address_and_right_ones_are_let_in_whatever_came_before() -> None:
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
        assert status(own, "192.0.2.1") is None
        assert status("wrong", "192.0.2.1") is Reason.TOO_MANY_REQUESTS
        assert status("wrong", "192.0.2.9") is Reason.UNAUTHORIZED
        it.monotonic += 60_000_000_000
        assert status("wrong", "192.0.2.1") is Reason.UNAUTHORIZED


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


@pytest.mark.parametrize(
    ("claims", "named"),
    [
        ({}, "exp"),
        ({"exp": NOW + 600}, "user_id"),
        ({"sub": "john", "exp": NOW + 600}, "user_id"),
        ({"userId": "john", "exp": NOW + 600}, "user_id"),
        ({"server": True, "userId": "john", "exp": NOW + 600}, "spells user_id"),
        ({"server": True, "callCids": [X], "exp": NOW + 600}, "spells call_cids"),
        ({"server": True, "call_cid": X, "exp": NOW + 600}, "spells call_cids"),
        ({"user_id": "john", "CALL-CIDS": [X], "exp": NOW + 600}, "spells call_cids"),
        ({"server": True, "call_ids": [X], "exp": NOW + 600}, "spells call_cids"),
        ({"server": True, "cids": [X], "exp": NOW + 600}, "spells call_cids"),
        ({"user_id": "john", "calls": [X], "exp": NOW + 600}, "spells call_cids"),
        ({"Server": True, "exp": NOW + 600}, "spells server"),
        ({"user_id": None, "exp": NOW + 600}, "user_id is null"),
        ({"user_id": "", "exp": NOW + 600}, "user_id"),
        ({"server": False, "exp": NOW + 600}, '"server": true'),
        ({"server": None, "exp": NOW + 600}, "server is null"),
        ({"server": 1, "exp": NOW + 600}, "server"),
        ({"server": "true", "exp": NOW + 600}, "server"),
        ({"server": True}, "exp"),
        ({"server": True, "exp": None}, "exp is null"),
        ({"server": True, "user_id": "john", "exp": NOW + 600}, "user_id or server"),
        ({"server": True, "call_cids": [], "exp": NOW + 600}, "call_cids is []"),
        ({"server": True, "call_cids": None, "exp": NOW + 600}, "call_cids is null"),
        ({"user_id": "john", "call_cids": [], "exp": NOW + 600}, "call_cids is []"),
        ({"user_id": "john", "call_cids": None, "exp": NOW + 600}, "call_cids is null"),
        ({"user_id": "john"}, "exp"),
        ({"user_id": "john", "exp": NOW + 31 * 86400}, "exp is sooner"),
        ({"user_id": "john", "iat": NOW - 20 * 86400, "exp": NOW + 20 * 86400}, "exp is sooner"),
        ({"user_id": "john", "exp": NOW + 600, "nbf": float("inf")}, "nbf"),
        ({"user_id": "john", "exp": NOW + 600, "iat": "now"}, "iat"),
        ({"user_id": "john", "exp": NOW + 600, "nbf": []}, "nbf is []"),
    ],
)
def test_absence_is_never_power(it: Ruling, claims: dict[str, Any], named: str) -> None:
    bad = signed(APP, json.dumps(claims))
    with pytest.raises(Rejected) as caught:
        it.authorizer.identify(bad, api_key="app")
    assert caught.value.reason is Reason.UNAUTHORIZED
    assert named in caught.value.detail


def signed(secret: str, body: str, head: str = '{"alg":"HS256","typ":"JWT"}') -> str:
    """A token of any content, be it none."""
    text = ".".join(base64.urlsafe_b64encode(part.encode()).rstrip(b"=").decode() for part in (head, body))
    signature = hmac.digest(secret.encode(), text.encode(), "sha256")
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def test_how_long_a_users_token_may_be_good_for(it: Ruling) -> None:
    identify = it.authorizer.identify
    assert identify(token(exp=NOW + 30 * 86400)).user_id == "john"
    assert identify(token(exp=NOW + 600, iat=NOW - 20 * 86400)).user_id == "john"
    assert identify(token(None, exp=NOW + 365 * 86400)).server
    assert identify(it.tokens.issue("john", [X], 365 * 86400)).claimed == "host", "by the operator's own word"


async def test_secrets_that_do_not_open_or_are_too_short_sign_nothing(it: Ruling) -> None:
    moved, short = sealed_by(b"another secret of the gateway's", "moved", APP), sealed(it, "short", "x" * 31)
    for key, secret in (("moved", moved), ("short", short)):
        await it.store.api_keys.add(ApiKey(key, "", (secret,), it.time))
    whys = it.authorizer.authenticator.useless_secrets()
    assert whys.keys() == {"moved", "short"}
    assert "auth.secret was changed" in whys["moved"]
    assert "shorter than 32 bytes" in whys["short"]
    for forged in (signed(secret, json.dumps({"server": True, "exp": NOW + 600})) for secret in ("", "x" * 31)):
        for api_key in ("", "moved", "short"):
            with pytest.raises(Rejected) as caught:
                it.authorizer.identify(forged, api_key=api_key)
            assert caught.value.reason is Reason.UNAUTHORIZED
    with pytest.raises(ValueError, match="32 bytes"):
        Signer(b"x" * 31)


HEADS = [
    "[" * 1400,
    '{"alg":"HS256","a":' + "[" * 1400,
    '{"alg":7}',
    '{"alg":"HS256","kid":[]}',
    '{"alg":"HS256","crit":["x"]}',
]


@pytest.mark.parametrize("head", HEADS)
def test_a_head_that_is_none_is_refused_in_words(it: Ruling, head: str) -> None:
    with pytest.raises(Rejected) as caught:
        it.authorizer.identify(signed(APP, '{"user_id":"john"}', head))
    assert caught.value.reason is Reason.UNAUTHORIZED


async def test_what_is_narrowed_administers_nothing(it: Ruling) -> None:
    await it.store.users.put([User("ada", it.time, it.time, "admin")])
    identify, key = it.authorizer.identify, await key_for(it, "ada")
    shown = {
        "server": token(None),
        "admin": token("ada"),
        "narrowed server": token(None, call_cids=[X]),
        "narrowed admin": token("ada", call_cids=[X]),
        "key of an admin": whole(key),
        "watch token of an admin": it.tokens.for_watching(identify(token("ada")), X)[0],
        "own token named as the admin": it.tokens.issue("ada", [X], 60),
        "user": token("john"),
        "nobody": None,
    }
    may = {who: await it.authorizer.administers(identify(text)) for who, text in shown.items()}
    assert [who for who, allowed in may.items() if allowed] == ["server", "admin"]


async def test_a_stream_key_is_good_for_what_its_user_may_do_now(it: Ruling) -> None:
    key = whole(await key_for(it, "ann"))
    assert "make you a host" in why_not(it, key)[1], "a viewer's key"
    for role, sends in (("cohost", SENDING), ("speaker", {Capability.SEND_AUDIO}), ("moderator", SENDING)):
        await it.store.calls.update_members(X, [Member(X, "ann", it.time, it.time, role)])
        identity = it.publish(key).identity
        assert it.publish(key).sends == it.authorizer.capabilities(identity, X) == sends
        with pytest.raises(Rejected, match="publishing only"):
            await it.authorizer.watch(X, key)
    await it.store.calls.update_members(X, remove=["ann"])
    assert "make you a host" in why_not(it, key)[1]
    await it.store.users.put([User("ann", it.time, it.time, "admin")])
    assert it.publish(key).sends == SENDING


async def test_what_an_api_key_gave_goes_with_it(it: Ruling) -> None:
    await application(it, "leaked", "l" * 43)
    made = lifecycle.created(it.rights_cache.call_types["livestream"], "made", "bob", it.time, api_key="leaked")
    await it.store.calls.get_or_create(made, [Member("", "cat", it.time, it.time, "host", api_key="app")])
    await it.store.calls.update_members(X, [Member(X, "eve", it.time, it.time, "host", api_key="leaked")])
    await it.store.users.put([User("mia", it.time, it.time, "admin", api_key="leaked")])
    key = await key_for(it, "john", api_key="leaked")
    watched = it.tokens.for_watching(it.authorizer.identify(token("john", "l" * 43)), X)[0]
    shown = {"john's key": (whole(key), X), "eve": (token("eve"), X), "mia": (token("mia"), X), "bob": (token("bob"), made.cid)}
    for text, cid in shown.values():
        assert it.publish(text, cid).sends == SENDING
    assert (await it.authorizer.watch(X, watched)).user_id == "john"
    await it.store.api_keys.revoke("leaked", it.time)
    for who, (text, cid) in shown.items():
        assert why_not(it, text, cid)[0] in (Reason.FORBIDDEN, Reason.UNAUTHORIZED), who
    with pytest.raises(Rejected, match="revoked"):
        await it.authorizer.watch(X, watched)
    assert it.publish(token("cat"), made.cid).sends == it.publish(token("john"), X).sends == SENDING


async def test_a_token_for_watching_is_its_user_and_watches_alone(it: Ruling) -> None:
    for text, role in ((token(), ""), (it.tokens.issue("host", [X], 600), "invited")):
        publishing = it.authorizer.identify(text)
        made, expires_at = it.tokens.for_watching(publishing, X)
        watching = it.authorizer.identify(made)
        assert (watching.user_id, watching.claimed, watching.expires_at) == (publishing.user_id, role, expires_at)
        assert expires_at == publishing.expires_at == NOW + 600
        assert it.authorizer.capabilities(watching, X) == WATCHING, "in backstage too: they are hosts"
        assert why_not(it, made)[1] == "The stream key is for watching only: make one for publishing"
        assert not it.authorizer.may(watching, "livestream:y", Capability.READ_CALL)
    john = it.authorizer.identify(it.tokens.for_watching(it.authorizer.identify(token()), X)[0])
    await it.store.calls.change(X, lambda call: replace(call, created_by_id="ann"), now=it.time)
    await it.store.calls.update_members(X, remove=["john"])
    assert not it.authorizer.may(john, X, Capability.JOIN_CALL), "it is in backstage, and they are nobody there any more"
    lasting = it.authorizer.identify(token(exp=NOW + 86400 * 20))
    assert it.tokens.for_watching(lasting, X)[1] == NOW + WATCH_S
