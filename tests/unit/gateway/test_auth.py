"""Who may publish and watch, and what a streamer is told who may not."""

import base64
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import jwt
import pytest

from gateway.auth import MAX_TOKEN, VIEWER, Grant, Secret, Tokens
from gateway.config import Config
from gateway.config_sources import ConfigError, load
from protocols.errors import Reason, Rejected
from protocols.publisher import Credential

NOW = 1_795_000_000
DEMO = "livestream:demo"
ROOT = Path(__file__).parents[3]
SECRET = Secret(b"0123456789abcdef" * 4)


def tokens(now: int = NOW, **more: Any) -> Tokens:
    return Tokens(SECRET, now=lambda: now, **more)


def refusal(key: str, call: str | None = None, *, now: int = NOW, user: str | None = None) -> tuple[Reason, str]:
    with pytest.raises(Rejected) as caught:
        tokens(now).authorise_publish(Credential(key, user), call)
    parts = [part for part in key.strip().split(".") if len(part) > 3]
    assert not any(part in str(caught.value) for part in parts), "a refusal must not hold the key"
    return caught.value.reason, caught.value.detail


def signed(secret: bytes = SECRET.value, algorithm: str = "HS256", **claims: Any) -> str:
    return jwt.encode({"user_id": "host", "call_cids": [DEMO], "exp": NOW + 60} | claims, secret, algorithm=algorithm)


def test_a_stream_key_names_user_call_and_end() -> None:
    key = tokens().issue("host", [DEMO], 3600)
    assert tokens().authorise_publish(Credential(key)) == Grant("host", DEMO, NOW + 3600)
    assert tokens().authorise_publish(Credential(f" {key}\n")) == Grant("host", DEMO, NOW + 3600)


def test_a_key_for_several_calls_needs_to_be_told_which() -> None:
    key = tokens().issue("host", [DEMO, "livestream:b"], 3600)
    assert tokens().authorise_publish(Credential(key), "livestream:b").call_cid == "livestream:b"
    reason, detail = refusal(key)
    assert reason is Reason.BAD_REQUEST
    assert "?call=" in detail


def test_clocks_may_differ_by_half_a_minute() -> None:
    key = tokens().issue("host", [DEMO], 60)
    assert tokens(NOW + 60 + 30).authorise_publish(Credential(key))
    assert refusal(key, now=NOW + 60 + 31)[0] is Reason.UNAUTHORIZED


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
def test_a_streamer_is_told_what_is_wrong(key: str, reason: Reason, words: str) -> None:
    found, detail = refusal(key)
    assert found is reason
    assert words in detail


def test_a_key_for_another_call() -> None:
    reason, detail = refusal(GOOD, "livestream:other")
    assert reason is Reason.FORBIDDEN
    assert "for another call" in detail


@pytest.mark.parametrize("claim", ["exp", "user_id", "call_cids"])
def test_each_claim_is_required(claim: str) -> None:
    claims = {"user_id": "host", "call_cids": [DEMO], "exp": NOW + 60}
    del claims[claim]
    assert "lacks a part" in refusal(jwt.encode(claims, SECRET.value, algorithm="HS256"))[1]


def test_only_hs256_is_taken_whatever_the_token_says() -> None:
    for algorithm in ("HS384", "HS512"):
        assert "HS256" in refusal(signed(SECRET.value, algorithm))[1]
    for head in ({"alg": "none"}, {"alg": "None", "typ": "JWT"}, {"typ": "JWT"}, {"alg": ["HS256"]}):
        forged = base64.urlsafe_b64encode(json.dumps(head).encode()).rstrip(b"=").decode()
        for signature in ("", SIGNATURE):
            assert refusal(f"{forged}.{BODY}.{signature}")[0] is Reason.UNAUTHORIZED


def test_watching() -> None:
    judge = tokens(public=[DEMO])
    key = judge.issue("ann", ["livestream:closed"], 60, VIEWER)
    assert judge.authorise_watch(DEMO) == Grant("", DEMO, 0)
    assert judge.authorise_watch(DEMO, "nonsense") == Grant("", DEMO, 0)
    assert judge.authorise_watch("livestream:closed", key) == Grant("ann", "livestream:closed", NOW + 60)
    for call, token, reason in (
        ("livestream:closed", None, Reason.UNAUTHORIZED),
        ("livestream:closed", "", Reason.UNAUTHORIZED),
        ("livestream:closed", "x.y.z", Reason.UNAUTHORIZED),
        ("livestream:third", key, Reason.FORBIDDEN),
        ("../../etc", key, Reason.NOT_FOUND),
        (f"{DEMO}\n", None, Reason.NOT_FOUND),
    ):
        with pytest.raises(Rejected) as caught:
            judge.authorise_watch(call, token)
        assert caught.value.reason is reason, call


def test_user_and_password_say_the_same_as_a_key() -> None:
    user = tokens().user_name("host", DEMO, 3600)
    password = tokens().password(user)
    assert password is not None
    assert len(password) == 24
    assert tokens().authorise_publish(Credential("live", user)) == Grant("host", DEMO, NOW + 3600)
    assert tokens().password(user.replace("host", "root")) != password
    assert Tokens(Secret(b"x" * 32), now=lambda: NOW).password(user) != password


def test_user_names_that_give_no_password() -> None:
    user = tokens().user_name("host", DEMO, 3600)
    assert tokens(NOW + 3631).password(user) is None
    for bad in ("", "host", user[:-11], f"{user}\n", f"{user}x", user.replace("~", "/")):
        assert tokens().password(bad) is None
        assert refusal("live", user=bad)[0] is Reason.UNAUTHORIZED
    assert "expired on" in refusal("live", user=user, now=NOW + 3631)[1]


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
    code = "import sys; from gateway.auth import Secret; from gateway.config_sources import load; "
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
    assert len({process.communicate(timeout=30)[0] for process in starting}) == 1


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
