"""Addresses and keys as people type them, given to real encoders: they get in, or read what to change."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from protocols.rtmp.address import NO_KEY
from tests.peers.srt_peers import caller
from tests.support.encoders import X264_LIVE, ffmpeg, programme
from tests.support.gateway_process import GatewayProcess, running_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

VIDEO = (*programme(320, 240, audio=False), *X264_LIVE)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[GatewayProcess]:
    async with running_gateway("calls.linger_s=0") as running:
        yield running


@pytest.mark.parametrize(
    ("user", "path"),
    [
        ("app", "{key}"),
        ("slashes", "live//{key}"),
        ("more-slashes", "//live/{key}/"),
        ("path", "live/live/{key}"),
        ("quotes", 'live/"{key}"'),
        ("line-end", "live/{key}\n"),
        ("call", "live?call=livestream:demo/{key}"),
        ("address", "live/rtmp://host/live/{key}"),
    ],
)
async def test_ffmpeg_gets_in_over_rtmp(gateway: GatewayProcess, user: str, path: str) -> None:
    key = gateway.key(user=user).replace(".", "%2E", 1)
    async with ffmpeg(*VIDEO, "-f", "flv", f"rtmp://127.0.0.1:{gateway.ports['rtmp']}/{path.format(key=key)}"):
        assert (await gateway.stream(user))["protocol"] == "rtmp"


async def test_ffmpeg_without_a_key_prints_what_to_paste(gateway: GatewayProcess) -> None:
    async with ffmpeg(*VIDEO, "-f", "flv", f"rtmp://127.0.0.1:{gateway.ports['rtmp']}/live") as process:
        assert process.stderr is not None
        assert f"Server error: {NO_KEY}" in (await process.stderr.read()).decode()


@pytest.mark.parametrize(
    "stream_id",
    [
        "/{}",
        "live/{}",
        "publish/{}",
        "publish:{}",
        "#!::m=publish,r=live/{}",
        "#!::m=publish,u={},bmd_name=Hall 2, left",
        '"{}"',
        "{}\n",
    ],
)
async def test_a_caller_gets_in_over_srt(gateway: GatewayProcess, stream_id: str) -> None:
    name = gateway.tokens.user_name("host", "livestream:demo", 3600)
    async with caller(gateway.ports["srt"], stream_id.format(name), passphrase=gateway.tokens.password(name)) as (_, said):
        assert said == {"connected": True}
