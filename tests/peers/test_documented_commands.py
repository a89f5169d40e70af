"""The commands that streamers are told to type, in the pages and by `gateway ingress`, typed: each brings sound and picture into a call,
and no picture is transcoded."""

import asyncio
import os
import re
import shlex
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.wiring.listeners import PROTOCOLS
from tests.support.encoders import FFMPEG, FFMPEG_9, encoder, ffmpeg
from tests.support.gateway_process import ROOT
from tests.support.shared import OwnCall
from tests.support.srt_encoders import TS

pytestmark = pytest.mark.asyncio(loop_scope="module")
PRINTING = [each.name for each in PROTOCOLS if each.way is not None]
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def documented() -> list[str]:
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/streamers.md")]
    lines = [line for text in texts for block in _BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    return list(dict.fromkeys(line for line in lines if line.startswith(("ffmpeg ", "gst-launch-1.0 "))))


def filled_in(command: str, own: OwnCall, user: str, film: Path) -> str:
    """The command with this user's secrets and the gateway's ports."""
    gateway = own.gateway
    name = gateway.tokens.user_name(own.user(user), own.cid, 3600)
    values = {
        "SERVER:1935": f"127.0.0.1:{gateway.ports['rtmp']}",
        "SERVER:8080": f"127.0.0.1:{gateway.ports['http']}",
        "SERVER:9000": f"127.0.0.1:{gateway.ports['srt']}",
        "livestream:demo": own.cid,
        "STREAM_KEY": own.key(user),
        "STREAM_ID": name,
        "PASSPHRASE": gateway.tokens.password(name) or "",
        "film.mp4": str(film),
    }
    for placeholder, value in values.items():
        command = command.replace(placeholder, value)
    return command


async def printed(own: OwnCall, user: str, protocol: str) -> list[str]:
    """Every line that `gateway ingress` prints for this gateway and that begins with a program: as it stands there."""
    gateway = own.gateway
    ports = {name: gateway.ports[name] for name in ("http", "rtmp", "srt")}
    settings = [f"state.directory={gateway.state}", *(f"{name}.port={port}" for name, port in ports.items())]
    command = ("ingress", protocol, "--call", own.cid, "--user", own.user(user), "--host", "127.0.0.1")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", *command, *(f"--set={each}" for each in settings)),
        cwd=ROOT,
        env=os.environ | {"GATEWAY_AUTH__SECRET": gateway.tokens.secret.value.decode()},
        stdout=asyncio.subprocess.PIPE,
    )
    text, _ = await process.communicate()
    assert process.returncode == 0
    lines = [line.strip() for line in text.decode().splitlines()]
    return [line for line in lines if line and shutil.which(line.split()[0])]


@asynccontextmanager
async def typed(command: str) -> AsyncIterator[None]:
    program, *arguments = shlex.split(command)
    if program == "ffmpeg":
        program = FFMPEG_9 if "whip" in arguments else FFMPEG
        arguments = ["-hide_banner", "-loglevel", "error", "-nostdin", *arguments]
    # After a goodbye ffmpeg's WHIP may hang and ignore signals.
    async with encoder("timeout", ["--kill-after=3", "60", program, *arguments]):
        if program != "srt-live-transmit":
            yield
            return
        source = next(each for each in arguments if each.startswith("udp://"))
        async with ffmpeg(*TS, f"{source}?pkt_size=1316"):  # the transport stream that is there already
            yield


def assert_passes(stream: dict[str, Any], command: str) -> None:
    modes = {track["kind"]: track["mode"] for track in stream["tracks"]}
    assert modes["video"] == "passthrough", (command, stream["tracks"])
    assert modes["audio"] == ("passthrough" if stream["protocol"] == "whip" else "transcode"), command


async def test_every_command_for_streamers_works_as_it_stands(own: OwnCall, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    picture = ("-f", "lavfi", "-i", "testsrc2=size=320x240:rate=30:duration=30", "-f", "lavfi", "-i", "sine=duration=30")
    async with encoder(
        FFMPEG, ("-nostdin", *picture, "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac", str(film))
    ) as made:
        await made.communicate()
    commands = documented()
    assert len(commands) >= 6
    for number, command in enumerate(commands):
        async with typed(filled_in(command, own, f"user{number}", film)):
            stream = await own.stream(f"user{number}", tracks=2, timeout=30)
        assert_passes(stream, command)


@pytest.mark.parametrize("protocol", PRINTING)
async def test_every_command_that_is_printed_works_as_it_stands(own: OwnCall, protocol: str) -> None:
    programs = set[str]()
    for number in range(len(await printed(own, "nobody", protocol))):
        command = (await printed(own, f"user{number}", protocol))[number]
        async with typed(command):
            stream = await own.stream(f"user{number}", tracks=2, timeout=30)
        assert_passes(stream, command)
        assert stream["protocol"] == protocol
        programs.add(command.split()[0])
    assert programs == ({"ffmpeg", "gst-launch-1.0", "srt-live-transmit"} if protocol == "srt" else {"ffmpeg"})
