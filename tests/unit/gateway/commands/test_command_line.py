"""The commands as a person types them."""

import asyncio
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jwt
import pytest

from gateway.__main__ import main
from gateway.access import stream_keys
from gateway.access.credentials import Secret, Tokens
from gateway.access.jwt import Claims, Signer, read
from gateway.config import Config
from gateway.config.sources import render
from gateway.model.records import ChangeKind, StreamKey
from gateway.store.store import Store
from gateway.wiring.listeners import PROTOCOLS

SECRET = "0123456789abcdef0123456789abcdef"
ROOT = Path(__file__).parents[4]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_AUTH__SECRET", SECRET)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def claims(key: str) -> Claims:
    return read(key, "The stream key", [Signer(SECRET.encode())], time.time())[0]


def field(text: str, name: str) -> str:
    found = re.search(rf"^ *{name}: +(\S+)", text, re.MULTILINE)
    assert found, f"no {name} in {text}"
    return found[1]


def test_ingress_prints_what_works(capsys: pytest.CaptureFixture[str]) -> None:
    text = run(capsys, "ingress", "rtmp", "--call", "livestream:demo", "--user", "host", "--host", "example.org")
    assert field(text, "Server") == "rtmp://example.org:1935/live"
    assert claims(field(text, "Stream key")).user_id == "host"
    assert field(text, "Watch") == "http://example.org:8080/watch/livestream:demo"
    tokens = Tokens(Secret(SECRET.encode()))
    assert tokens.password(field(text, "User")) == field(text, "Password")
    assert "rtmp://example.org:1935/auth" in text
    command = shlex.split(next(line for line in text.splitlines() if line.startswith("  ffmpeg")))
    assert command[-1] == f"rtmp://example.org:1935/live/{field(text, 'Stream key')}"


@pytest.mark.parametrize("protocol", [each.name for each in PROTOCOLS])
def test_ingress_prints_the_way_of_each_protocol_that_there_is(protocol: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = run(capsys, "ingress", protocol, "--call", "livestream:demo", "--user", "host", "--host", "example.org")
    assert protocol in field(text, "Server")
    assert field(text, "Watch") == "http://example.org:8080/watch/livestream:demo"


def test_ingress_whip_prints_what_encoders_ask_for(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ingress", "whip", "--call", "livestream:demo", "--user", "host", "--host", "2001:db8::1"]
    text = run(capsys, *words)
    assert field(text, "Server") == "http://[2001:db8::1]:8080/whip/livestream:demo"
    assert f"  http://[2001:db8::1]:8080/host/livestream:demo#token={field(text, 'Bearer token')}\n" in text
    command = shlex.split(text.splitlines()[-1])
    assert command[-3:] == ["-authorization", field(text, "Bearer token"), field(text, "Server")]
    steps = run(capsys, *words, "--obs")
    assert "Service: WHIP" in steps
    assert field(text, "Server") in steps


def test_ingress_speaks_of_obs_tls_ipv6_and_closed_calls(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    secure = [f"--set=rtmp.certificate={tmp_path}/c.pem", f"--set=rtmp.key={tmp_path}/k.pem", "--set", "rtmp.tls_port=443"]
    text = run(
        capsys, "ingress", "rtmp", "--call", "livestream:closed", "--user", "host", "--host", "2001:db8::1", "--obs", *secure
    )
    assert "rtmps://[2001:db8::1]:443/live" in text
    for words in ("Settings > Stream", "Keyframe Interval", "bframes=0", "zerolatency"):
        assert words in text
    address, token = field(text, "Watch").split("#token=")
    assert address == "http://[2001:db8::1]:8080/watch/livestream:closed"
    assert claims(token).call_cids == ["livestream:closed"]


def test_the_address_is_found_out(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ingress", "rtmp", "--call", "livestream:demo", "--user", "host"]
    assert field(run(capsys, *words, "--set", "rtmp.host=10.1.2.3"), "Server") == "rtmp://10.1.2.3:1935/live"
    assert field(run(capsys, *words, "--set", "webrtc.external_addresses=192.0.2.7"), "Server") == "rtmp://192.0.2.7:1935/live"
    assert re.fullmatch(r"rtmp://[0-9.]+:1935/live", field(run(capsys, *words, "--set", "rtmp.host=0.0.0.0"), "Server"))


def test_token(capsys: pytest.CaptureFixture[str]) -> None:
    key = run(capsys, "token", "--call", "livestream:demo", "--user", "host", "--ttl", "30m").strip()
    assert claims(key).call_cids == ["livestream:demo"]
    watching = run(capsys, "token", "--call", "livestream:demo", "--user", "ann", "--watch").strip()
    assert claims(watching).user_id == "ann"


def test_print_config_shows_what_is_in_effect(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text("[rtmp]\nport = 1940\n")  # found by its name
    text = run(capsys, "print-config", "--set", "http.port=81")
    assert "port = 1940" in text
    assert "port = 81" in text
    assert 'secret = "***"' in text
    assert run(capsys, "print-config", "--defaults") == render(Config())
    assert SECRET not in text


def test_check_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "check-config") == "The configuration is good.\n"
    assert main(["check-config", "--set", "rtmp.prot=1", "--set", "http.prot=2"]) == 2
    assert capsys.readouterr().err.count("unknown key; did you mean") == 2
    assert main(["check-config", "--set", "rtmp.certificate=/none", "--set", "rtmp.key=/none"]) == 2
    assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["ingress", "--call", "a:b", "--user", "x"], "PROTOCOL"),
        (["ingress", "gone", "--call", "a:b", "--user", "x"], "write " + " or ".join(each.name for each in PROTOCOLS)),
        (["token", "--call", "demo", "--user", "x"], "write type:id, e.g. livestream:demo"),
        (["token", "--call", "a:b", "--user", "x y"], "is no user"),
        (["token", "--call", "a:b", "--user", "x", "--ttl", "5y"], "write 30m, 24h or 7d"),
        (["token", "--call", "a:b", "--user", "x", "--ttl", "0"], "write 30m, 24h or 7d"),
        (["token", "--call", "a:b", "--user", "x", "--ttl", "99999d"], "at most 3650d"),
    ],
)
def test_wrong_words_are_explained(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_the_commands_that_only_print_load_no_media_libraries() -> None:
    code = "import sys; from gateway.__main__ import main; main(['print-config']); "
    code += "sys.exit(any(name in sys.modules for name in ('av', 'aiortc')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=30, check=False).returncode == 0


FREE = [f"--set={name}=0" for name in ("http.port", "rtmp.port", "rtmp.tls_port", "webrtc.port", "srt.port")]


def start(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", "run", *FREE, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_prints_what_to_paste_once_it_listens_and_stops_when_told(number: signal.Signals, tmp_path: Path) -> None:
    with start("--show", "livestream:demo", folder=tmp_path) as process:
        assert process.stdout is not None
        text = "".join(iter(process.stdout.readline, "  A test picture:\n"))
        port = int(field(text, "Server").split(":")[2].split("/")[0])
        with socket.create_connection(("127.0.0.1", port), 5):
            pass
        assert claims(field(text, "Stream key")).user_id == "host"
        process.send_signal(number)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 0, errors
    assert "shutting down" in errors
    assert field(text, "Stream key") not in errors


def test_run_says_which_port_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        with start("--set", "http.host=127.0.0.1", "--set", f"http.port={number}", folder=tmp_path) as process:
            _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert f"{number}" in errors
    assert "Traceback" not in errors


def test_run_refuses_a_secret_that_others_can_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GATEWAY_AUTH__SECRET")
    (tmp_path / "var").mkdir()
    secret = tmp_path / "var" / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o644)
    with start(folder=tmp_path) as process:
        output, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "chmod 600 var/secret" in errors
    assert SECRET not in output + errors


def test_ingress_srt_prints_what_encoders_ask_for(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "ingress",
        "srt",
        "--call",
        "livestream:demo",
        "--user",
        "host",
        "--host",
        "2001:db8::1",
        "--set=srt.latency_ms=200",
    ]
    text = run(capsys, *words)
    assert field(text, "Server") == "srt://[2001:db8::1]:9000"
    name, passphrase = field(text, "Stream id"), field(text, "Passphrase")
    assert Tokens(Secret(SECRET.encode())).password(name) == passphrase
    for tool, latency in (("ffmpeg", 200_000), ("srt-live-transmit", 200)):  # each has its own unit
        command = shlex.split(next(line for line in text.splitlines() if line.startswith(f"  {tool} ")))
        query = f"streamid={name}&passphrase={passphrase}&pbkeylen=16&latency={latency}"
        assert command[-1] == f"srt://[2001:db8::1]:9000?{query}"
    command = shlex.split(next(line for line in text.splitlines() if line.startswith("  gst-launch")))
    assert {f"streamid={name}", f"passphrase={passphrase}", "latency=200"} <= set(command)
    assert "srt://[2001:db8::1]:9000?latency=200000" in run(capsys, *words, "--obs")


def test_run_ends_with_one_line_where_srt_is_insisted_on_and_libsrt_is_missing(tmp_path: Path) -> None:
    with start("--set", "srt.enabled=true", "--set", "srt.library=/nowhere/libsrt.so", folder=tmp_path) as process:
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert [line for line in errors.splitlines() if "srt.enabled" in line and "install" in line]
    assert "Traceback" not in errors


def test_an_applications_key_and_the_tokens_it_signs(capsys: pytest.CaptureFixture[str]) -> None:
    made = run(capsys, "apikey", "create", "--name", "The app")
    key, secret = field(made, "API key"), field(made, "Secret")
    listed = run(capsys, "apikey", "list")
    assert key in listed
    assert "valid" in listed
    assert "The app" in listed
    assert secret not in listed
    token = run(capsys, "token", "create", "--user", "john", "--call", "livestream:x", "--ttl", "1h")
    said = jwt.decode(token.strip(), secret, ["HS256"])
    assert (said["user_id"], said["call_cids"]) == ("john", ["livestream:x"])
    server = jwt.decode(run(capsys, "token", "create", "--server", "--api-key", key).strip(), secret, ["HS256"])
    assert "user_id" not in server
    newer = field(run(capsys, "apikey", "rotate", key, "--overlap", "1h"), "Secret")
    assert jwt.decode(run(capsys, "token", "create", "--user", "john").strip(), newer, ["HS256"])
    assert "the former secret until" in run(capsys, "apikey", "list")
    assert key in run(capsys, "apikey", "revoke", key)
    assert "revoked" in run(capsys, "apikey", "list")
    for arguments in (("token", "create", "--user", "john"), ("apikey", "revoke", "none"), ("apikey", "rotate", key)):
        assert main(arguments) == 1
        assert capsys.readouterr().err
    for unclear in (("token", "create"), ("token", "create", "--user", "x", "--server"), ("token", "--user", "x")):
        assert main(unclear) == 2
        assert capsys.readouterr().err


def test_a_short_key_is_stored_after_what_it_rests_on(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A gateway that reads along knows no key whose user is nobody."""
    run(capsys, "call", "create", "livestream:x", "--user", "john")
    run(capsys, "ingress", "rtmp", "--call", "livestream:x", "--user", "cam", "--short")
    (database,) = tmp_path.rglob("*.db")

    async def kinds() -> list[ChangeKind]:
        async with Store.open(f"sqlite+aiosqlite:///{database}") as store:
            return [change.kind for change in await store.changes.since(0) or ()]

    *_, before, last = asyncio.run(kinds())
    assert (before, last) == (ChangeKind.CALL, ChangeKind.STREAM_KEY)


def test_a_short_key_has_its_rank_and_its_say_over_other_encoders(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run(capsys, "call", "create", "livestream:x", "--user", "john")
    of_john = ("ingress", "srt", "--call", "livestream:x", "--user", "john")
    text = run(capsys, *of_john, "--short", "--rank", "2", "--on-conflict", "refuse")
    (database,) = tmp_path.rglob("*.db")

    async def stored() -> StreamKey | None:
        async with Store.open(f"sqlite+aiosqlite:///{database}") as store:
            return await store.stream_keys.get(field(text, "Stream id"))

    key = asyncio.run(stored())
    assert key is not None
    assert (key.rank, key.on_conflict) == (2, "refuse")
    assert main((*of_john, "--rank", "2")) == 2
    assert "add --short" in capsys.readouterr().err
    for rank in ("0", "101", "first"):
        with pytest.raises(SystemExit):
            main((*of_john, "--short", "--rank", rank))
        assert "is no rank: write a number from 1, the best, to 100" in capsys.readouterr().err


def test_calls_and_short_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert "in backstage" in run(capsys, "call", "create", "livestream:x", "--user", "john", "--host", "ann")
    assert "was there already" in run(capsys, "call", "create", "livestream:x")
    assert "live since" in run(capsys, "call", "live", "livestream:x")
    assert "in backstage" in run(capsys, "call", "stop", "livestream:x")
    text = run(capsys, "ingress", "rtmp", "--call", "livestream:x", "--user", "cam", "--short")
    name, password = field(text, "User"), field(text, "Password")
    assert field(text, "Stream key") == f"{name}-{password}"
    text = run(capsys, "ingress", "srt", "--call", "livestream:x", "--user", "cam", "--short")
    assert stream_keys.is_name(field(text, "Stream id"))
    assert "by john" in run(capsys, "call", "list")
    assert "ended" in run(capsys, "call", "end", "livestream:x")
    assert not run(capsys, "call", "list")
    assert "ended" in run(capsys, "call", "list", "--all")
    assert "up to date" in run(capsys, "store", "migrate")
    for arguments in (("call", "live", "livestream:x"), ("call", "stop", "livestream:none"), ("call", "create", "nothing:x")):
        assert main(arguments) == 1
        assert capsys.readouterr().err
    assert main(["call", "list", "--set", "database.url=postgresql+asyncpg://gateway:hunter2@127.0.0.1:1/x"]) == 2
    problem = capsys.readouterr().err
    assert "database.url" in problem
    assert "hunter2" not in problem
