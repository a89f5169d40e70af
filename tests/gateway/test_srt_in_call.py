"""Real SRT encoders publish into a call, a decoding viewer watches; who is refused sees the code; sources are fetched."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from gateway.access.credentials import Secret, Tokens
from tests.peers.srt_peers import caller
from tests.support.delivery import assert_delivered, assert_shown, dropped
from tests.support.encoders import FFMPEG, encoder, ffmpeg
from tests.support.gateway_process import GatewayProcess, running_gateway
from tests.support.network import NEAR, bad_link
from tests.support.shared import OwnCall, shared_gateway
from tests.support.srt_encoders import TS, Way, by_ffmpeg, by_gstreamer, by_srt_live_transmit, free_port
from tests.support.viewer import Viewer, watching

pytestmark = pytest.mark.asyncio(loop_scope="module")

WHEP = "/whep/livestream:demo"
FRAMES = 90


class Port(NamedTuple):
    """One that stands for a stream ID."""

    number: int
    name: str
    secret: str
    """The gateway's."""
    call: str = "livestream:port"


@pytest.fixture(scope="module")
def port() -> Port:
    secret = secrets.token_hex(32)
    return Port(free_port(), Tokens(Secret(secret.encode())).user_name("cam", "livestream:port", 3600), secret)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(port: Port) -> AsyncIterator[GatewayProcess]:
    ports = json.dumps({str(port.number): port.name})
    async with shared_gateway("calls.on_conflict=refuse", "calls.linger_s=1", f"srt.ports={ports}", secret=port.secret) as it:
        yield it


def assert_whole(viewer: Viewer, lost: float) -> None:
    """From the first picture that was shown the next ones, and the tone."""
    first = viewer.numbers[0]
    assert_shown(viewer.numbers, first, first + FRAMES - 1, lost)
    assert viewer.frequency == pytest.approx(1000, rel=0.03)


@pytest.mark.parametrize("publish", [by_ffmpeg, by_srt_live_transmit, by_gstreamer])
async def test_an_encoder_is_decoded_whole_in_clear_and_encrypted(own: OwnCall, publish: Any) -> None:
    async def check(own: OwnCall, *, encrypted: bool) -> None:
        async with own.watching() as viewer, publish(Way(own.gateway, encrypted, own.user(), own.cid)):
            await viewer.until(frames=FRAMES, audio=80)
            stream = await own.stream(tracks=2)
        assert_whole(viewer, await own.dropped(viewer))
        assert stream["protocol"] == "srt"
        assert {track["kind"]: track["mode"] for track in stream["tracks"]} == {"video": "passthrough", "audio": "transcode"}

    async with asyncio.TaskGroup() as both:
        both.create_task(check(own, encrypted=False))
        both.create_task(check(own.another(), encrypted=True))


async def test_who_is_refused_sees_the_code_and_nothing_of_it_is_secret(own: OwnCall) -> None:
    gateway, host, lines = own.gateway, own.user(), len(own.gateway.log)
    way, clear, two = (
        Way(gateway, encrypted, user, own.cid) for encrypted, user in ((True, host), (False, host), (True, own.user("two")))
    )
    async with own.watching() as viewer, ffmpeg(*TS, way.url()):
        await viewer.until(frames=10)
        for stream_id, passphrase, code in (
            (way.stream_id, way.passphrase, 1409),  # busy
            (clear.stream_id, "", 1409),
            ("cam1", "", 1404),
            (clear.stream_id[:-8], "", 1401),
            (f"{clear.stream_id}?call=livestream:other", "", 1403),
            (gateway.tokens.user_name(host, own.cid, -60), way.passphrase, 1401),
            (two.stream_id, "a wrong passphrase", 10),  # SRT_REJ_BADSECRET
            (two.stream_id, "", 11),  # SRT_REJ_UNSECURE
        ):
            said = {"reject": 1402}
            async with asyncio.timeout(60):
                while said == {"reject": 1402}:  # come again, says a machine that is busy
                    async with caller(way.port, stream_id, passphrase=passphrase) as (_, said):
                        pass
            assert said == {"reject": code}, stream_id[:12]
        have = len(viewer.numbers)
        await viewer.until(frames=have + 30)  # undisturbed
    refused = {
        reason: await own.rise(f'ingress_refused_total{{protocol="srt",reason="{reason}"}}')
        for reason in ("conflict", "not_found", "unauthorized", "forbidden")
    }
    assert refused == {"conflict": 2, "not_found": 1, "unauthorized": 2, "forbidden": 1}
    assert viewer.in_order
    log = str(gateway.log[lines:])
    assert "refused: another encoder is live with this key" in log
    assert way.passphrase not in log
    assert "eyJ" not in log


async def test_a_source_is_fetched_and_fetched_again_and_on_a_private_address_only_where_allowed() -> None:
    port = free_port()
    wanted = f"srt://127.0.0.1:{port}?passphrase=correct-horse-battery"
    source = {"url": wanted, "call": "livestream:demo", "user": "cam", "allow_private": True}
    private = {"url": "srt://127.0.0.1:9", "call": "livestream:other", "user": "inside"}
    url = f"srt://127.0.0.1:{port}?mode=listener&passphrase=correct-horse-battery"
    sources = f"srt.sources={json.dumps({'cam': source, 'inside': private})}"
    async with (
        running_gateway(sources, "slate.enabled=false") as gateway,
        watching(gateway.url(WHEP)) as viewer,
    ):
        assert (await gateway.logged("not on the public internet"))["message"] == "ended"
        async with ffmpeg(*TS, url):
            await viewer.until(frames=FRAMES, audio=80)
            first = await gateway.stream("cam", tracks=2)
            assert_whole(viewer, await dropped(gateway, viewer))
        async with ffmpeg(*TS, url):
            await gateway.logged("media come again")
            again = await gateway.stream("cam", tracks=2)
            await viewer.until(frames=len(viewer.numbers) + 30)
        assert again["id"] == first["id"]
    assert "correct-horse" not in str(gateway.log)


async def test_an_encoder_without_a_stream_id_has_a_port_of_its_own(gateway: GatewayProcess, port: Port) -> None:
    url = f"srt://127.0.0.1:{port.number}?passphrase={gateway.tokens.password(port.name)}"
    async with ffmpeg(*TS, url):
        stream = await gateway.stream("cam", tracks=2, token=gateway.key(port.call))
    assert stream["call"] == port.call


@pytest.mark.slow
async def test_a_lossy_network_with_enough_latency_loses_hardly_a_frame() -> None:
    """5 % of the packets lost both ways and 50 ms round trip: at least 99.5 % of the frames are seen with 250 ms latency."""
    frames = 210
    async with (
        bad_link(loss=0.05, round_trip_s=0.05) as link,
        running_gateway("srt.latency_ms=250") as gateway,
        watching(gateway.url(WHEP)) as viewer,
        encoder(link.far[0], [*link.far[1:], FFMPEG, "-loglevel", "error", *TS, Way(gateway).url(host=NEAR)]),
    ):
        await viewer.until(frames=frames)
        stream = await gateway.stream(tracks=2)
    # What is concealed shows the number before. Nothing is excused: what SRT gives up is what is measured here.
    first, last = viewer.numbers[0], max(viewer.numbers)
    assert_delivered(last + 1 - first, len(set(viewer.numbers)), 0, share=0.995)
    assert link.lost > 20
    assert stream["link"]["packets_lost"] > 10
    assert stream["link"]["packets_retransmitted"] > 10
    assert stream["link"]["latency_ms"] == 250
    assert 45 < stream["round_trip_ms"] < 90
    assert not any("SRT latency" in warning for warning in stream["warnings"])


async def test_figures_of_the_link_are_shown_and_too_little_latency_is_said() -> None:
    async with bad_link(loss=0.02, round_trip_s=0.05) as link, running_gateway("srt.latency_ms=60") as gateway:
        async with encoder(link.far[0], [*link.far[1:], FFMPEG, "-loglevel", "error", *TS, Way(gateway).url(host=NEAR)]):
            stream = await gateway.stream(tracks=2, wanted=lambda seen: seen["link"]["packets_lost"] > 2 and seen["warnings"])
            metrics = {
                name: await gateway.metric(name)
                for name in (
                    'ingress_network_latency_seconds{protocol="srt"}',
                    "ingress_srt_packets_received_total",
                    "ingress_srt_packets_lost_total",
                    "ingress_srt_packets_retransmitted_total",
                    'ingress_round_trip_seconds{protocol="srt",statistic="median"}',
                    "ingress_srt_latency_seconds",
                    "ingress_srt_available",
                )
            }
    assert stream["link"]["latency_ms"] == 60
    assert stream["round_trip_ms"] == pytest.approx(60, abs=25)
    assert any(warning.startswith("SRT latency 60 ms is less than 3 round trips") for warning in stream["warnings"])
    assert metrics['ingress_network_latency_seconds{protocol="srt"}'] == pytest.approx(0.09, abs=0.015)
    assert all(value > 0 for value in metrics.values()), metrics
    assert "ingress_srt_latency_seconds" in metrics


async def test_without_libsrt_the_gateway_runs_and_says_how_to_install_it() -> None:
    async with running_gateway("srt.library=/nowhere/libsrt.so.1.5") as gateway:
        assert gateway.ports["srt"] == 0
        assert await gateway.metric("ingress_srt_available") == 0
    (line,) = (line["message"] for line in gateway.log if "SRT" in line["message"])
    assert "install" in line
