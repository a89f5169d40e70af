"""The commands that streamers are told to type, typed: each brings sound and picture into a call, and no picture is transcoded."""

import re
import shlex
from pathlib import Path

from tests.support.encoders import FFMPEG, FFMPEG_9, encoder
from tests.support.gateway_process import ROOT, GatewayProcess, running_gateway

CALL = "livestream:demo"
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def documented() -> list[str]:
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/streamers.md")]
    lines = [line for text in texts for block in _BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    return list(dict.fromkeys(line for line in lines if line.startswith(("ffmpeg ", "gst-launch-1.0 "))))


def filled_in(command: str, user: str, gateway: GatewayProcess, film: Path) -> list[str]:
    """The command with this user's secrets and the gateway's ports."""
    name = gateway.tokens.user_name(user, CALL, 3600)
    values = {
        "SERVER:1935": f"127.0.0.1:{gateway.ports['rtmp']}",
        "SERVER:8080": f"127.0.0.1:{gateway.ports['http']}",
        "SERVER:9000": f"127.0.0.1:{gateway.ports['srt']}",
        "STREAM_KEY": gateway.key(CALL, user),
        "STREAM_ID": name,
        "PASSPHRASE": gateway.tokens.password(name) or "",
        "film.mp4": str(film),
    }
    for placeholder, value in values.items():
        command = command.replace(placeholder, value)
    program, *arguments = shlex.split(command)
    if program == "ffmpeg":
        program = FFMPEG_9 if "whip" in arguments else FFMPEG
        arguments = ["-hide_banner", "-loglevel", "error", "-nostdin", *arguments]
    # After a goodbye ffmpeg's WHIP may hang and ignore signals.
    return ["timeout", "--kill-after=3", "60", program, *arguments]


async def test_every_command_for_streamers_works_as_it_stands(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    picture = ("-f", "lavfi", "-i", "testsrc2=size=320x240:rate=30:duration=30", "-f", "lavfi", "-i", "sine=duration=30")
    async with encoder(
        FFMPEG, ("-nostdin", *picture, "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac", str(film))
    ) as made:
        await made.communicate()
    commands = documented()
    assert len(commands) >= 6
    async with running_gateway() as gateway:
        for number, command in enumerate(commands):
            user = f"user{number}"
            program, *arguments = filled_in(command, user, gateway, film)
            async with encoder(program, arguments):
                stream = await gateway.stream(user, tracks=2, timeout=30)
            modes = {track["kind"]: track["mode"] for track in stream["tracks"]}
            assert modes["video"] == "passthrough", (command, stream["tracks"])
            assert modes["audio"] == ("passthrough" if stream["protocol"] == "whip" else "transcode"), command
