"""ffmpeg publishes over SRT on loopback; what other encoders send is decoded in `test_srt_in_call`."""

import asyncio
from typing import Any

import pytest

from protocols.errors import Reason, Rejected
from protocols.media import Codec, Kind
from protocols.srt.admission import Access
from protocols.srt.limits import SrtLimits
from protocols.srt.listener import SrtListener
from protocols.srt.streamid import StreamId
from tests.peers.srt_peers import STEP_S, Collected, collecting
from tests.support.encoders import X264_LIVE, ffmpeg, programme

PASSPHRASE = "correct-horse-battery"
OPEN = SrtLimits(calls_per_second=1000, call_burst=1000, answer_s=1.0)  # not how busy the machine is
LIVE = (*programme(320, 240), *X264_LIVE, "-g", "30", "-c:a", "aac", "-f", "mpegts")


async def authorise(stream: StreamId, host: str) -> Access:
    if stream.key.startswith("nobody"):
        raise Rejected(Reason.NOT_FOUND, "no such stream")
    return Access(PASSPHRASE, user=stream.user or None) if "encrypted" in stream.key else Access()


def listener(host: str = "127.0.0.1", **settings: Any) -> SrtListener:
    return SrtListener(host, 0, authorise=authorise, limits=OPEN, **settings)


def frames(collected: Collected) -> int:
    video = {track.id for tracks in collected.tracks for track in tracks if track.kind is Kind.VIDEO}
    return sum(packet.track in video for packet in collected.packets)


async def check_live(collected: Collected, codecs: set[Codec]) -> None:
    await collected.until(lambda: frames(collected) >= 30)
    assert collected.error is None
    assert {track.codec for track in collected.tracks[-1]} == codecs
    first = next(packet for packet in collected.packets if packet.track == collected.tracks[0][0].id)
    assert first.keyframe
    stats = collected.publisher.stats
    assert (stats.packets_dropped, stats.continuity_errors, stats.broken_units, stats.units_dropped) == (0, 0, 0, 0)


@pytest.mark.parametrize(("version", "secured"), [(5, "&passphrase=correct-horse-battery&pbkeylen=32"), (9, "")])
async def test_ffmpeg(version: int, secured: str) -> None:
    key = "encrypted" if secured else "open"
    async with collecting(listener()) as collector:
        url = f"srt://127.0.0.1:{collector.listener.port}?streamid=#!::r=live/cam1,m=publish,u={key}{secured}"
        async with ffmpeg(*LIVE, url, version=version):
            collected = await collector.publisher(key)
            await check_live(collected, {Codec.H264, Codec.AAC})
            assert collected.publisher.params == {"call": "live/cam1"}
            assert collected.publisher.credential.user == (key if secured else None)
        await collected.ended()
        assert collected.error is None  # the encoder said goodbye


async def test_ffmpeg_hevc_and_opus() -> None:
    async with collecting(listener()) as collector:
        codecs = (
            "-c:v",
            "libx265",
            "-preset",
            "ultrafast",
            "-x265-params",
            "log-level=none:keyint=30:bframes=0",
            "-c:a",
            "libopus",
        )
        url = f"srt://127.0.0.1:{collector.listener.port}?streamid=key"
        async with ffmpeg(*programme(320, 240), *codecs, "-f", "mpegts", url, version=9):
            await check_live(await collector.publisher("key"), {Codec.HEVC, Codec.OPUS})


async def test_ffmpeg_over_ipv6() -> None:
    async with collecting(listener("::")) as collector:
        port = collector.listener.port
        async with ffmpeg(*LIVE, f"srt://[::1]:{port}?streamid=six"), ffmpeg(*LIVE, f"srt://127.0.0.1:{port}?streamid=four"):
            six, four = await collector.publisher("six"), await collector.publisher("four")
            await check_live(six, {Codec.H264, Codec.AAC})
            await check_live(four, {Codec.H264, Codec.AAC})
        assert six.publisher.remote.startswith("[::1]:")
        assert four.publisher.remote.startswith("127.0.0.1:")


async def test_a_port_of_its_own_for_an_encoder_without_stream_id() -> None:
    async with collecting(listener(ports={0: "encrypted mapped"})) as collector:
        port = collector.listener.mapped_ports["encrypted mapped"]
        async with ffmpeg(*LIVE, f"srt://127.0.0.1:{port}?passphrase=correct-horse-battery"):
            await check_live(await collector.publisher("encrypted mapped"), {Codec.H264, Codec.AAC})


async def test_twenty_at_once() -> None:
    async with collecting(listener()) as collector:
        port = collector.listener.port
        # One picture, encoded once, sent twenty times: the machine is for the receiver
        outputs = "|".join(f"[f=mpegts]srt\\\\://127.0.0.1\\\\:{port}?streamid=key{n}" for n in range(20))
        tee = (
            *programme(320, 240),
            *X264_LIVE,
            "-g",
            "30",
            "-c:a",
            "aac",
            "-map",
            "0:v",
            "-map",
            "2:a",
            "-flags",
            "+global_header",
        )
        outputs = outputs.replace("\\\\:", ":")
        async with ffmpeg(*tee, "-bsf:v", "dump_extra", "-f", "tee", outputs):
            all_of_them = [await collector.publisher(f"key{n}") for n in range(20)]
            for collected in all_of_them:
                await check_live(collected, {Codec.H264, Codec.AAC})
        assert collector.listener.stats.accepted == 20


async def test_closing_the_listener_ends_every_stream() -> None:
    async with asyncio.timeout(STEP_S), collecting(listener()) as collector:
        url = f"srt://127.0.0.1:{collector.listener.port}?streamid=key"
        async with ffmpeg(*LIVE, url) as process:
            collected = await collector.publisher("key")
            await collected.until(lambda: len(collected.packets) > 10)
            await collector.listener.__aexit__(None, None, None)
            await collected.ended()
            assert await process.wait() != 0


async def test_closing_one_ends_its_encoder_and_no_other() -> None:
    async with collecting(listener()) as collector:
        port = collector.listener.port
        async with (
            ffmpeg(*LIVE, f"srt://127.0.0.1:{port}?streamid=one") as ending,
            ffmpeg(*LIVE, f"srt://127.0.0.1:{port}?streamid=two"),
        ):
            one, two = await collector.publisher("one"), await collector.publisher("two")
            await one.until(lambda: len(one.packets) > 10)
            await one.publisher.reject(Rejected(Reason.FORBIDDEN, "not now"))
            await one.ended()
            async with asyncio.timeout(STEP_S):
                assert await ending.wait() != 0
            have = len(two.packets)
            await two.until(lambda: len(two.packets) > have + 60)
            assert not two.over.is_set()
