"""The self-test finds what would stand in the way, by trying it, and says how to mend it."""

import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.config import Config
from gateway.config.sources import load
from gateway.node import selftest
from gateway.node.selftest import CheckResult, Mark, Preconditions
from gateway.wiring.listeners import PROTOCOLS
from protocols.webrtc.native import runs as native

FREE = ("http.port=0", "rtmp.port=0", "webrtc.port=0", "srt.port=0")


def config(tmp_path: Path, *sets: str) -> Config:
    return load(None, [*FREE, f"state.directory={tmp_path}/state", *sets])


def protocols(of: Config) -> list[Preconditions]:
    return [each.preconditions(of) for each in PROTOCOLS]


async def examine(of: Config) -> list[CheckResult]:
    return await selftest.examine(of, protocols(of))


def findings(of: Config) -> list[CheckResult]:
    return list(selftest.findings(of, protocols(of)))


def about(found: Sequence[CheckResult], what: str) -> CheckResult:
    (only,) = (finding for finding in found if what in finding.what or what in finding.text)
    return only


async def test_nothing_stands_in_the_way_where_all_is_well(tmp_path: Path) -> None:
    found = await examine(config(tmp_path, "webrtc.external_addresses=203.0.113.7", "webrtc.host=127.0.0.1"))
    assert not [str(finding) for finding in found if finding.mark is Mark.BAD]
    assert about(found, "x264").text == "x264 works"
    assert about(found, "libsrt").mark is Mark.GOOD
    assert "Forward UDP" in about(found, "203.0.113.7").fix
    assert about(found, "firewall").mark is Mark.NOTE


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (socket.SOCK_STREAM, "http"),
        (socket.SOCK_STREAM, "rtmp"),
        (socket.SOCK_DGRAM, "webrtc"),
        (socket.SOCK_DGRAM, "srt"),
    ],
)
def test_a_port_that_somebody_has(tmp_path: Path, kind: socket.SocketKind, key: str) -> None:
    with socket.socket(socket.AF_INET6, kind) as other:
        other.bind(("::", 0))
        if kind is socket.SOCK_STREAM:
            other.listen()
        port = other.getsockname()[1]
        bad = about(findings(config(tmp_path, f"{key}.port={port}")), f"port {port}")
    assert bad.mark is Mark.BAD
    assert f"ss -lntup 'sport = :{port}'" in bad.fix
    assert f"{key}.port" in bad.fix


@pytest.mark.parametrize(
    ("settings", "what", "mark", "fix"),
    [
        (["http.host=203.0.113.1"], "port 0/tcp: http.port", Mark.BAD, "no address of this machine"),
        (["srt.library=/nowhere.so"], "SRT", Mark.WARNING, "libsrt"),
        (["srt.library=/nowhere.so", "srt.enabled=true"], "SRT", Mark.BAD, "libsrt"),
        (["srt.enabled=false"], "SRT", Mark.NOTE, ""),
        (["http.certificate=/nowhere.pem", "http.key=/nowhere.pem"], "http.certificate", Mark.BAD, "may read"),
        (["rtmp.certificate=/nowhere.pem", "rtmp.key=/nowhere.pem"], "rtmp.certificate", Mark.BAD, "may read"),
        (["http.certificate=pyproject.toml", "http.key=pyproject.toml"], "http.certificate", Mark.BAD, "PEM chain"),
        (["state.directory=pyproject.toml/state"], "state", Mark.BAD, "state.directory"),
    ],
)
def test_what_is_wrong_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: list[str], what: str, mark: Mark, fix: str
) -> None:
    monkeypatch.chdir(Path(__file__).parents[4])
    (wrong,) = (each for each in findings(config(tmp_path, *settings)) if f"{each.what}: {each.text}".startswith(what))
    assert wrong.mark is mark, wrong
    assert fix in wrong.fix
    assert str(wrong).splitlines()[0].startswith(f"{mark:>4}  ")


async def test_an_encoder_that_was_asked_for_and_does_not_work(tmp_path: Path) -> None:
    found = await examine(config(tmp_path, "transcode.encoder=h264_nvenc"))
    (nvenc,) = (finding for finding in found if "NVENC" in finding.text)
    assert nvenc.mark is Mark.WARNING
    assert "x264 is used instead" in nvenc.fix
    assert list(tmp_path.glob("*")) == []  # noqa: ASYNC240


def test_it_says_which_sends_to_viewers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = about(findings(config(tmp_path)), "sender")
    try:
        native.module()
    except native.CannotSend:
        assert here.mark is Mark.NOTE
    else:
        assert (here.mark, here.text) == (Mark.GOOD, "packets are sent by the native part")
    monkeypatch.setitem(sys.modules, native.BUILT, None)  # as where there was no compiler
    absent = about(findings(config(tmp_path)), "sender")
    assert absent.mark is Mark.NOTE
    assert "in Python" in absent.text
    assert "compiler" in absent.fix
