"""Who may publish and watch, and what a streamer is told who may not."""

import base64
import json
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from gateway.access.credentials import Secret, Tokens
from gateway.access.jwt import MAX_TOKEN, VIEWER
from gateway.config import Config
from gateway.config.sources import ConfigError, load
from protocols.errors import Reason, Rejected
from tests.support.authorizer import NOW, SECRET, Ruling, ruling

DEMO = "livestream:demo"
ROOT = Path(__file__).parents[4]


@pytest.fixture
async def gate() -> AsyncIterator[Ruling]:
    async with ruling(public=[DEMO]) as it:
        yield it


def tokens(now: int = NOW) -> Tokens:
    return Tokens(SECRET, now=lambda: now)


def publishing(gate: Ruling, key: str, call: str | None = None, *, user: str | None = None) -> tuple[str, str, int]:
    grant = gate.publish(key, call, user=user)
    return grant.user_id, grant.call_cid, grant.expires_at


def refusal(gate: Ruling, key: str, call: str | None = None, *, user: str | None = None) -> tuple[Reason, str]:
    with pytest.raises(Rejected) as caught:
        gate.publish(key, call, user=user)
    parts = [part for part in key.strip().split(".") if len(part) > 3]
    assert not any(part in str(caught.value) for part in parts), "a refusal must not hold the key"
    return caught.value.reason, caught.value.detail


def signed(secret: bytes = SECRET.value, algorithm: str = "HS256", **claims: Any) -> str:
    return jwt.encode({"user_id": "host", "call_cids": [DEMO], "exp": NOW + 60} | claims, secret, algorithm=algorithm)


def test_a_stream_key_names_user_call_and_end(gate: Ruling) -> None:
    key = tokens().issue("host", [DEMO], 3600)
    assert publishing(gate, key) == publishing(gate, f" {key}\n") == ("host", DEMO, NOW + 3600)


def test_a_key_for_several_calls_needs_to_be_told_which(gate: Ruling) -> None:
    key = tokens().issue("host", [DEMO, "livestream:b"], 3600)
    assert publishing(gate, key, "livestream:b")[1] == "livestream:b"
    reason, detail = refusal(gate, key)
    assert reason is Reason.BAD_REQUEST
    assert "?call=" in detail


def test_clocks_may_differ_by_half_a_minute(gate: Ruling) -> None:
    key = tokens().issue("host", [DEMO], 60)
    gate.now = NOW + 60 + 30
    assert publishing(gate, key)
    gate.now += 1
    assert refusal(gate, key)[0] is Reason.UNAUTHORIZED


GOOD = signed()
HEAD, BODY, SIGNATURE = GOOD.split(".")


@pytest.mark.parametrize(
    ("key", "reason", "words"),
    [
        ("", Reason.UNAUTHORIZED, "is empty"),
        ("   ", Reason.UNAUTHORIZED, "is empty"),
        ("x" * (MAX_TOKEN + 1), Reason.UNAUTHORIZED, "too long"),
        (f"{HEAD}.{BODY} .{SIGNATURE}", Reason.UNAUTHORIZED, "spaces or line breaks"),
        (f"{HEAD}.{BODY}", Reason.UNAUTHORIZED, "cut off"),
        (f"{HEAD}.{BODY[:20]}", Reason.UNAUTHORIZED, "cut off"),
        ("test", Reason.UNAUTHORIZED, "cut off"),
        ("é.ü.ß", Reason.UNAUTHORIZED, "cut off"),
        *((GOOD[:-cut], Reason.UNAUTHORIZED, "cut off") for cut in range(1, 43)),
        (f"{GOOD[:-1]}{'A' if GOOD[-1] != 'A' else 'E'}", Reason.UNAUTHORIZED, "a character of it is missing or changed"),
        (signed(b"another secret of thirty-two byte"), Reason.UNAUTHORIZED, "not made by this gateway"),
        (signed(exp=NOW - 3600), Reason.UNAUTHORIZED, "expired on 2026-11-18 10:06 UTC"),
        (signed(b"another secret of thirty-two byte", exp=NOW - 3600), Reason.UNAUTHORIZED, "not made by this gateway"),
        (signed(nbf=4_000_000_000), Reason.UNAUTHORIZED, "not valid yet"),
        (signed(user_id="a b"), Reason.UNAUTHORIZED, "no valid user"),
        (signed(user_id=7), Reason.UNAUTHORIZED, "no valid user"),
        (signed(call_cids=[]), Reason.UNAUTHORIZED, "no valid user or call"),
        (signed(call_cids=["../etc"]), Reason.UNAUTHORIZED, "no valid user or call"),
        (signed(exp="soon"), Reason.UNAUTHORIZED, ""),
        (signed(exp=10**15), Reason.UNAUTHORIZED, ""),
        (signed(role="viewer"), Reason.FORBIDDEN, "watching only"),
        (signed(role="unheard-of"), Reason.FORBIDDEN, ""),
    ],
)
def test_a_streamer_is_told_what_is_wrong(gate: Ruling, key: str, reason: Reason, words: str) -> None:
    found, detail = refusal(gate, key)
    assert found is reason
    assert words in detail


def test_a_key_for_another_call(gate: Ruling) -> None:
    reason, detail = refusal(gate, GOOD, "livestream:other")
    assert reason is Reason.FORBIDDEN
    assert "for another call" in detail


@pytest.mark.parametrize("claim", ["exp", "user_id", "call_cids"])
def test_each_claim_is_required(gate: Ruling, claim: str) -> None:
    claims = {"user_id": "host", "call_cids": [DEMO], "exp": NOW + 60}
    del claims[claim]
    assert "lacks a part" in refusal(gate, jwt.encode(claims, SECRET.value, algorithm="HS256"))[1]


def test_only_hs256_is_taken_whatever_the_token_says(gate: Ruling) -> None:
    for algorithm in ("HS384", "HS512"):
        assert "HS256" in refusal(gate, signed(SECRET.value, algorithm))[1]
    for head in ({"alg": "none"}, {"alg": "None", "typ": "JWT"}, {"typ": "JWT"}, {"alg": ["HS256"]}):
        forged = base64.urlsafe_b64encode(json.dumps(head).encode()).rstrip(b"=").decode()
        for signature in ("", SIGNATURE):
            assert refusal(gate, f"{forged}.{BODY}.{signature}")[0] is Reason.UNAUTHORIZED


async def test_watching(gate: Ruling) -> None:
    await gate.call(DEMO, live=True)
    await gate.call("livestream:closed")
    key = tokens().issue("ann", ["livestream:closed"], 60, VIEWER)
    watch = gate.authorizer.watch
    assert not (await watch(DEMO, None)).user_id
    assert not (await watch(DEMO, "nonsense")).user_id
    assert (await watch("livestream:closed", key)).user_id == "ann"
    for call, token, reason in (
        ("livestream:closed", None, Reason.UNAUTHORIZED),
        ("livestream:closed", "", Reason.UNAUTHORIZED),
        ("livestream:closed", "x.y.z", Reason.UNAUTHORIZED),
        ("livestream:third", key, Reason.FORBIDDEN),
        ("livestream:third", None, Reason.NOT_FOUND),
        ("../../etc", key, Reason.NOT_FOUND),
        (f"{DEMO}\n", None, Reason.NOT_FOUND),
    ):
        with pytest.raises(Rejected) as caught:
            await watch(call, token)
        assert caught.value.reason is reason, call


def test_user_and_password_say_the_same_as_a_key(gate: Ruling) -> None:
    user = tokens().user_name("host", DEMO, 3600)
    password = tokens().password(user)
    assert password is not None
    assert len(password) == 24
    assert publishing(gate, "live", user=user) == ("host", DEMO, NOW + 3600)
    assert tokens().password(user.replace("host", "root")) != password
    assert Tokens(Secret(b"x" * 32), now=lambda: NOW).password(user) != password


def test_user_names_that_give_no_password(gate: Ruling) -> None:
    user = tokens().user_name("host", DEMO, 3600)
    assert tokens(NOW + 3631).password(user) is None
    for bad in ("", "host", user[:-11], f"{user}\n", f"{user}x", user.replace("~", "/")):
        assert tokens().password(bad) is None
        assert refusal(gate, "live", user=bad)[0] is Reason.UNAUTHORIZED
    gate.now = NOW + 3631
    assert "expired on" in refusal(gate, "live", user=user)[1]


@pytest.mark.parametrize(("user", "call"), [("a b", DEMO), ("", DEMO), ("host", "demo"), ("a~b", DEMO), ("host", "a:b~c")])
def test_nothing_is_issued_for_names_that_are_none(user: str, call: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        tokens().issue(user, [call], 60)
    with pytest.raises(ValueError, match=r".+"):
        tokens().user_name(user, call, 60)


def config(path: Path) -> Config:
    return load(None, [f"auth.secret_file={path}"])


def test_the_first_start_makes_a_private_secret_and_the_next_ones_keep_it(tmp_path: Path) -> None:
    path = tmp_path / "var" / "secret"
    first = Secret.load(config(path))
    assert len(first.value) >= 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert Secret.load(config(path)).value == first.value
    assert list(path.parent.iterdir()) == [path]
    assert first.value.decode() not in repr(first)


def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    code = "import sys; from gateway.access.credentials import Secret; from gateway.config.sources import load; "
    code += "sys.stdin.read(1); print(Secret.load(load(None, [f'auth.secret_file={sys.argv[1]}'])).value)"
    starting = [
        subprocess.Popen(
            [sys.executable, "-c", code, tmp_path / "secret"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in starting:
        assert process.stdin is not None
        process.stdin.write("x")  # all of them are about to load
        process.stdin.flush()
    (secret,) = {process.communicate(timeout=30)[0] for process in starting}
    assert len(secret) > 32


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_secret_that_others_may_read_is_refused(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    Secret.load(config(path))
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"mode {mode:04o}.*chmod 600"):
        Secret.load(config(path))


def test_a_secret_that_is_too_short_or_no_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        file.write("short\n")
    with pytest.raises(ConfigError, match="shorter than 32"):
        Secret.load(config(path))
    with pytest.raises(ConfigError, match="cannot be made or read"):
        Secret.load(config(tmp_path))


def test_the_configured_secret_needs_no_file(tmp_path: Path) -> None:
    secret = "x" * 32
    configured = load(None, [f"auth.secret={secret}", f"auth.secret_file={tmp_path}/none"])
    assert Secret.load(configured).value == secret.encode()
    assert not list(tmp_path.iterdir())
