"""Caller mode: a source is pulled from an ffmpeg that listens, and pulled again when it comes back."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from protocols.back_off import BackOff
from protocols.errors import Reason, Rejected
from protocols.media import Codec, TracksChanged
from protocols.publisher import Credential
from protocols.srt.caller import SrtSource
from protocols.srt.libsrt import load
from protocols.srt.receiver import SrtReceiver
from protocols.srt.source_url import parse_source
from tests.peers.srt_peers import STEP_S
from tests.support.encoders import X264_LIVE, ffmpeg, programme

LIVE = (*programme(320, 240), *X264_LIVE, "-g", "30", "-c:a", "aac", "-f", "mpegts")
QUICK = BackOff(0.2, 0.5)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@asynccontextmanager
async def source(url: str, **settings: Any) -> AsyncIterator[SrtSource]:
    async with SrtReceiver(load()) as receiver:
        made = SrtSource(receiver, parse_source(url), credential=Credential("pulled"), **{"back_off": QUICK, **settings})
        try:
            yield made
        finally:
            await made.aclose()


class Noted(BackOff):
    """Short waits, each of which is noticed."""

    failed: asyncio.Event

    def __init__(self) -> None:
        super().__init__(0.2, 0.2)
        object.__setattr__(self, "failed", asyncio.Event())

    def wait_s(self, failures: int) -> float:
        self.failed.set()
        return 0.2

    async def error(self, made: SrtSource, word: str) -> str:
        """Why an attempt failed, the first with this word; then the source is closed, which ends its iteration."""
        taking = asyncio.create_task(pull(made, 1))
        async with asyncio.timeout(STEP_S):
            await self.failed.wait()
            while word not in made.last_error:
                self.failed.clear()
                await self.failed.wait()
        said = made.last_error
        await made.aclose()
        assert await taking == set()
        return said


async def pull(made: SrtSource, items: int) -> set[Codec]:
    """The codecs announced by the time so many items have come."""
    codecs: set[Codec] = set()
    async with asyncio.timeout(STEP_S), contextlib.aclosing(made.__aiter__()) as stream:  # type: ignore[type-var]
        async for item in stream:
            if isinstance(item, TracksChanged):
                codecs = {track.codec for track in item.tracks}
            items -= 1
            if not items:
                break
    return codecs


async def test_a_listening_encoder_is_pulled() -> None:
    port, secret = free_port(), "&passphrase=correct-horse-battery&pbkeylen=24"
    async with (
        ffmpeg(*LIVE, f"srt://127.0.0.1:{port}?mode=listener{secret}"),
        source(f"srt://127.0.0.1:{port}?streamid=cam&latency=200{secret}", allow_private=True) as made,
    ):
        assert await pull(made, 60) == {Codec.H264, Codec.AAC}
        assert made.last_error == ""
        assert made.stats.bytes_received > 10_000
        assert "correct" not in made.remote


async def test_a_source_that_comes_back_is_pulled_again() -> None:
    port = free_port()
    url = f"srt://127.0.0.1:{port}?mode=listener"
    async with asyncio.timeout(2 * STEP_S), source(f"srt://127.0.0.1:{port}", allow_private=True) as made:
        announced, back = 0, asyncio.Event()

        async def take() -> None:
            nonlocal announced
            async for item in made:
                announced += isinstance(item, TracksChanged)
                back.set()

        taking = asyncio.create_task(take())
        for expected in (1, 2):
            async with ffmpeg(*LIVE, url):
                back.clear()
                await back.wait()
            assert announced == expected
            back.clear()
        await made.aclose()
        await taking
        assert made.stats.reconnects >= 1


async def test_a_wrong_passphrase_is_said() -> None:
    port, noted = free_port(), Noted()
    async with (
        ffmpeg(*LIVE, f"srt://127.0.0.1:{port}?mode=listener&passphrase=correct-horse-battery"),
        source(f"srt://127.0.0.1:{port}?passphrase=incorrect-horse", allow_private=True, back_off=noted) as made,
    ):
        assert "wrong passphrase" in await noted.error(made, "passphrase")


async def test_nobody_there_is_tried_again_until_closed() -> None:
    noted = Noted()
    async with source(f"srt://127.0.0.1:{free_port()}", allow_private=True, back_off=noted) as made:
        assert "did not answer" in await noted.error(made, "")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "localhost", "10.0.0.1", "[::ffff:192.168.1.1]", "[64:ff9b::7f00:1]", "169.254.169.254"]
)
async def test_private_addresses_are_refused_unless_allowed(host: str) -> None:
    async with source(f"srt://{host}:9000") as made:
        with pytest.raises(Rejected) as refusal:
            await pull(made, 1)
        assert refusal.value.reason is Reason.FORBIDDEN
