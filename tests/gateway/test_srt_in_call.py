"""Real SRT encoders publish into a call, a decoding viewer watches; who is refused sees the code; sources are fetched."""

import asyncio
import secrets
from typing import Any

import pytest

from gateway.access.credentials import Secret, Tokens
from tests.peers.srt_peers import caller
from tests.support.delivery import assert_delivered, assert_shown, dropped
from tests.support.encoders import FFMPEG, encoder, ffmpeg
from tests.support.gateway_process import GatewayProcess, running_gateway
from tests.support.network import NEAR, bad_link
from tests.support.srt_encoders import TS, Way, by_ffmpeg, by_gstreamer, by_srt_live_transmit, free_port
from tests.support.viewer import Viewer, watching

WHEP = "/whep/livestream:demo"
FRAMES = 90


async def assert_whole(gateway: GatewayProcess, viewer: Viewer) -> None:
    """From the first picture that was shown the next ones, and the tone."""
    first = viewer.numbers[0]
    assert_shown(viewer.numbers, first, first + FRAMES - 1, await dropped(gateway, viewer))
    assert viewer.frequency == pytest.approx(1000, rel=0.03)


@pytest.mark.parametrize("publish", [by_ffmpeg, by_srt_live_transmit, by_gstreamer])
async def test_an_encoder_is_decoded_whole_in_clear_and_encrypted(publish: Any) -> None:
    async def check(gateway: GatewayProcess, call: str, encrypted: bool) -> None:
        async with (
            watching(gateway.url(f"/whep/{call}")) as viewer,
            publish(Way(gateway, encrypted, user=call[-3:], call=call)),
        ):
            await viewer.until(frames=FRAMES, audio=80)
            stream = await gateway.stream(call[-3:], tracks=2)
        await assert_whole(gateway, viewer)
        assert stream["protocol"] == "srt"
        assert {track["kind"]: track["mode"] for track in stream["tracks"]} == {"video": "passthrough", "audio": "transcode"}

    async with running_gateway("calls.public=livestream:one,livestream:two") as gateway, asyncio.TaskGroup() as both:
        both.create_task(check(gateway, "livestream:one", encrypted=False))
        both.create_task(check(gateway, "livestream:two", encrypted=True))


async def test_who_is_refused_sees_the_code_and_nothing_of_it_is_secret() -> None:
    async with running_gateway("calls.on_conflict=refuse") as gateway, watching(gateway.url(WHEP)) as viewer:
        way = Way(gateway, encrypted=True)
        async with ffmpeg(*TS, way.url()):
            await viewer.until(frames=10)
            for stream_id, passphrase, code in (
                (way.stream_id, way.passphrase, 1409),  # busy
                (Way(gateway).stream_id, "", 1409),
                ("cam1", "", 1404),
                (Way(gateway).stream_id[:-8], "", 1401),
                (f"{Way(gateway).stream_id}?call=livestream:other", "", 1403),
                (gateway.tokens.user_name("host", "livestream:demo", -60), way.passphrase, 1401),
                (Way(gateway, encrypted=True, user="two").stream_id, "a wrong passphrase", 10),  # SRT_REJ_BADSECRET
                (Way(gateway, encrypted=True, user="two").stream_id, "", 11),  # SRT_REJ_UNSECURE
            ):
                async with caller(way.port, stream_id, passphrase=passphrase) as (_, said):
                    assert said == {"reject": code}, stream_id[:12]
            have = len(viewer.numbers)
            await viewer.until(frames=have + 30)  # undisturbed
        refused = {
            reason: await gateway.metric(f'ingress_refused_total{{protocol="srt",reason="{reason}"}}')
            for reason in ("conflict", "not_found", "unauthorized", "forbidden")
        }
    assert refused == {"conflict": 2, "not_found": 1, "unauthorized": 2, "forbidden": 1}
    assert viewer.in_order
    log = str(gateway.log)
    assert "refused: another encoder is live with this key" in log
    assert way.passphrase not in log
    assert "eyJ" not in log


async def test_a_source_is_fetched_and_fetched_again() -> None:
    port = free_port()
    source = f'{{"cam": {{"url": "srt://127.0.0.1:{port}?passphrase=correct-horse-battery", "call": "livestream:demo", '
    source += '"user": "cam", "allow_private": true}}'
    url = f"srt://127.0.0.1:{port}?mode=listener&passphrase=correct-horse-battery"
    async with running_gateway(f"srt.sources={source}") as gateway, watching(gateway.url(WHEP)) as viewer:
        async with ffmpeg(*TS, url):
            await viewer.until(frames=FRAMES, audio=80)
            first = await gateway.stream("cam", tracks=2)
        seen = len(viewer.numbers)
        await assert_whole(gateway, viewer)
        async with ffmpeg(*TS, url):
            await viewer.until(frames=seen + 30)
            again = await gateway.stream("cam", tracks=2)
        assert again["id"] == first["id"]
    assert "correct-horse" not in str(gateway.log)


async def test_a_source_on_a_private_address_is_not_fetched_unless_allowed() -> None:
    source = '{"cam": {"url": "srt://127.0.0.1:9", "call": "livestream:demo", "user": "cam"}}'
    async with running_gateway(f"srt.sources={source}") as gateway:
        ended = await gateway.logged("not on the public internet")
    assert ended["message"] == "ended"


async def test_an_encoder_without_a_stream_id_has_a_port_of_its_own() -> None:
    port = free_port()
    secret = secrets.token_hex(32)
    name = Tokens(Secret(secret.encode())).user_name("cam", "livestream:demo", 3600)
    async with running_gateway(f'srt.ports={{"{port}": "{name}"}}', secret=secret) as gateway:
        url = f"srt://127.0.0.1:{port}?passphrase={gateway.tokens.password(name)}"
        async with ffmpeg(*TS, url):
            stream = await gateway.stream("cam", tracks=2)
    assert stream["call"] == "livestream:demo"


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
