"""HLS from real encoders to real players, over reconnects and changes."""

import asyncio
import re
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.gateway.test_stream_changes import in_no_time, make
from tests.gateway.test_transcoding_codecs import publishing_vp8, video_of
from tests.support.application import running_application
from tests.support.encoders import BFRAMES, FFMPEG, X264_LIVE, ffmpeg, programme
from tests.support.flv import Tag
from tests.support.fmp4 import clock
from tests.support.gateway_process import GatewayProcess
from tests.support.hls_client import Rendition, following
from tests.support.rtmp_client import rtmp_client
from tests.support.shared import OwnCall, shared_gateway
from tests.support.sparse import sparse

pytestmark = pytest.mark.asyncio(loop_scope="module")

PLAY_S = 12
ACT_S = 5
FRAME_S = 1 / 30
AAC = ("-c:a", "aac", "-b:a", "96k")
SMALL = (*programme(320, 180), *X264_LIVE, *AAC)
TWO_PAUSES = "none for two and a half seconds, twice"
PAUSES = {  # which pictures of 30 a second an encoder sends
    "one a second": "not(mod(n,30))",
    "one in three seconds": "not(mod(n,90))",
    "now many, now few, as of a screen": "if(lt(mod(t,5),2),not(mod(n,2)),not(mod(n*n,17)))",
    TWO_PAUSES: "not(between(mod(t,5.5),3,5.5))",
}
PAUSES_S = 13


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[GatewayProcess]:
    async with shared_gateway(
        "hls.auto=true", "hls.segment_s=1", "calls.linger_s=3", "calls.stop_linger_s=3", "transcode.pass_again_s=1"
    ) as running:
        yield running


def playlist(own: OwnCall) -> str:
    return own.gateway.url(f"/hls/{own.cid}/open/index.m3u8")


async def run(program: str, *arguments: str, timeout: float) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        program, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(timeout):
            out, error = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, out.decode(), error.decode()


def rising(framecrc: str) -> dict[int, int]:
    """Packets by stream; fails where a decode time does not rise."""
    times: dict[int, list[int]] = {}
    for line in framecrc.splitlines():
        if line and not line.startswith("#"):
            stream, dts = line.split(",")[:2]
            times.setdefault(int(stream), []).append(int(dts))
    for each in times.values():
        assert all(earlier < later for earlier, later in pairwise(each))
    return {stream: len(each) for stream, each in times.items()}


def begins(rendition: Rendition) -> list[float]:
    """When each of its parts begins, in s of media."""
    ticks = clock(rendition.files["init0.mp4"])
    return [start / ticks for start in rendition.starts]


def begin_together(pictures: list[float], sounds: list[float]) -> bool:
    """As far as both have come, each part of the picture begins within a frame of one of the sound."""
    common = [begin for begin in pictures if sounds[0] <= begin <= sounds[-1]]
    return len(common) > len(pictures) // 2 and all(min(abs(begin - each) for each in sounds) < FRAME_S for begin in common)


async def ffmpeg_and_mpv_play(own: OwnCall, seconds: int) -> None:
    """A source with B-frames, which goes into HLS as it is."""
    source = (*programme(320, 180), *BFRAMES, *AAC)
    async with ffmpeg(*source, "-f", "flv", own.rtmp()):
        await own.stream(tracks=2)
        url = playlist(own)
        async with following(url) as (client, followed):
            copied = ("-map", "0:v:0", "-map", "0:a:0", "-c", "copy", "-t", str(seconds), "-f", "framecrc", "-")
            decoded = ("-map", "0:v:0", "-map", "0:a:0", "-t", str(seconds), "-f", "null", "-")
            players = await asyncio.gather(
                run(FFMPEG, "-v", "error", "-nostdin", "-i", url, *copied, *decoded, timeout=seconds + 60),
                run(
                    "mpv",
                    "--no-config",
                    "--vo=null",
                    "--ao=null",
                    "--msg-level=all=warn",
                    f"--length={seconds}",
                    url,
                    timeout=seconds + 60,
                ),
            )
            assert not followed.done(), followed.exception()
            video = client.renditions["video"]
            audio = client.renditions["audio"]
            assert audio.follower.discontinuities == video.follower.discontinuities
            assert begin_together(begins(video), begins(audio))
        (code, frames, errors), (mpv_code, mpv_out, mpv_errors) = players
        assert (code, errors) == (0, "")
        packets = rising(frames)
        assert packets[0] >= 30 * seconds * 0.95
        assert packets[1] >= 46 * seconds * 0.95
        assert mpv_code == 0
        assert not re.search(r"error|fail|invalid|desync", mpv_out + mpv_errors, re.I), mpv_out + mpv_errors
        assert (await own.stream())["tracks"][0]["mode"] == "transcode", "the call has it transcoded, HLS does not"
        assert await own.rise("ingress_hls_gaps_total") == 0
        assert await own.rise("ingress_hls_segments_total") > 2 * seconds / 2


async def reconnects_and_a_change_of_size_keep_every_rule(own: OwnCall, folder: Path, seconds: int) -> None:
    """`seconds` of each of three encoders, of which the last changes its size."""
    for name, size in (("one", (320, 180)), ("two", (480, 270))):
        source = in_no_time(programme(*size))
        await make(*source, *X264_LIVE, *AAC, "-t", str(seconds), "-f", "mpegts", str(folder / name))
    (folder / "both.ts").write_bytes((folder / "one").read_bytes() + (folder / "two").read_bytes())
    encoders = (
        (*SMALL, "-t", str(seconds)),
        (*SMALL, "-t", str(seconds)),
        ("-re", "-i", str(folder / "both.ts"), "-c", "copy"),
    )

    async def publish() -> None:
        for arguments in encoders:
            async with ffmpeg(*arguments, "-f", "flv", own.rtmp()) as process:
                await process.wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(publish())
        await own.stream(tracks=2)
        async with following(playlist(own)) as (client, followed):
            video, audio = client.renditions["video"], client.renditions["audio"]
            player = run(
                FFMPEG, "-v", "error", "-nostdin", "-i", playlist(own), "-c", "copy", "-f", "framecrc", "-", timeout=600
            )
            (code, frames, errors), _ = await asyncio.gather(player, followed)
    assert video.playlist.ended
    assert audio.playlist.ended
    # two reconnects and a size: three, as many for the sound, and more only where a busy machine let the encoder stand still
    assert video.follower.discontinuities == audio.follower.discontinuities >= 3
    assert len([name for name in video.files if name.startswith("init")]) == video.follower.discontinuities + 1
    assert video.starts == sorted(video.starts), "media time runs on"
    assert audio.starts == sorted(audio.starts)
    assert video.deltas > 0
    assert code == 0, errors
    rising(frames)
    assert await own.rise("ingress_hls_discontinuities_total") == 2 * video.follower.discontinuities


async def pauses(own: OwnCall, source: list[Tag], together: asyncio.Barrier) -> None:
    """All encoders stay until what was counted has been looked at: what comes after them is no matter of theirs."""
    async with rtmp_client(own.gateway.ports["rtmp"], own.key()) as client, asyncio.TaskGroup() as group:
        group.create_task(client.send(source))
        await own.stream(tracks=2)
        async with following(playlist(own)) as (seen, followed):
            video, audio = seen.renditions["video"], seen.renditions["audio"]
            listed = group.create_task(audio.until(PAUSES_S - 1.5))
            await asyncio.wait((listed, followed), return_when=asyncio.FIRST_COMPLETED)
            assert not followed.done(), followed.exception()
        await together.wait()
        await together.wait()
    for rendition in (video, audio):
        assert rendition.follower.discontinuities == 0
        assert not [part for segment in rendition.follower.seen.values() for part in segment.parts if part.gap]
        assert rendition.media.joins >= len(rendition.starts) - 1, "each part begins where the one before it ends"
    assert video.seconds > audio.seconds - 2, "the picture goes on with the sound"
    assert video.media.anchor == pytest.approx(audio.media.anchor, abs=0.005), "both say the same of when it was"


async def test_a_picture_lasts_until_the_next_while_sound_goes_on(own: OwnCall, tmp_path: Path) -> None:
    sources = [await sparse(tmp_path, which, PAUSES_S) for which in PAUSES.values()]
    sources.append(await sparse(tmp_path, PAUSES[TWO_PAUSES], PAUSES_S, BFRAMES))
    together = asyncio.Barrier(len(sources) + 1)
    async with asyncio.TaskGroup() as group:
        for source in sources:
            group.create_task(pauses(own.another(), source, together))
        await together.wait()
        assert await own.rise("ingress_hls_gaps_total") == 0
        assert await own.rise("ingress_hls_discontinuities_total") == 0
        await together.wait()


async def test_ffmpeg_and_mpv_play_it_without_a_word(own: OwnCall) -> None:
    await ffmpeg_and_mpv_play(own, PLAY_S)


@pytest.mark.slow
async def test_two_reconnects_and_a_change_of_size_keep_every_rule_to_the_end(own: OwnCall, tmp_path: Path) -> None:
    await reconnects_and_a_change_of_size_keep_every_rule(own, tmp_path, ACT_S)


@pytest.mark.slow
async def test_vp8_that_passes_is_h264_in_hls_and_stays_it_when_it_is_transcoded_for_viewers_and_passes_again(
    own: OwnCall,
) -> None:
    async with publishing_vp8(own):
        assert video_of(await own.stream()) == ("vp8", "passthrough", "same_codec")
        async with following(playlist(own)) as (client, followed):
            video = client.renditions["video"]
            player = ("-i", playlist(own), "-map", "0:v:0", "-c", "copy", "-t", str(PLAY_S), "-f", "framecrc", "-")
            playing = asyncio.create_task(run(FFMPEG, "-v", "error", "-nostdin", *player, timeout=PLAY_S + 60))
            await video.until_segment(3)
            async with own.watching(video=["H264"]) as viewer:
                await viewer.until(frames=30)
                assert video_of(await own.stream())[1] == "transcode"
                await video.until_segment(video.playlist.last_part[0] + 2)
            await own.stream(wanted=lambda stream: video_of(stream)[1] == "passthrough")
            await video.until_segment(video.playlist.last_part[0] + 3)
            code, frames, errors = await playing
            assert (code, errors) == (0, "")
            assert rising(frames)[0] >= 30 * PLAY_S * 0.85
            assert video.starts == sorted(video.starts)
            assert video.follower.discontinuities <= 2
            assert list(client.renditions) == ["video"]
            assert "RESOLUTION=320x192" in client.multivariant
            assert not followed.done(), followed.exception()
        assert await own.rise("ingress_hls_gaps_total") == 0
        assert 0 < await own.gateway.metric('ingress_capacity_cost_cores{kind="hls"}') < 0.2


async def test_a_private_call_has_an_address_that_cannot_be_guessed(gateway: GatewayProcess) -> None:
    cid = "livestream:secret"
    async with aiohttp.ClientSession() as http:
        key = gateway.key(cid, "host")
        async with ffmpeg(*SMALL, "-f", "flv", gateway.rtmp(cid, "host")):
            await gateway.stream(token=key)
            async with http.get(gateway.url(f"/hls/{cid}")) as response:
                assert response.status in (401, 403)
            async with http.get(gateway.url(f"/hls/{cid}/open/index.m3u8")) as response:
                assert response.status in (401, 403)
            async with http.get(gateway.url(f"/hls/{cid}"), headers={"Authorization": f"Bearer {key}"}) as response:
                assert response.status == 200, await response.text()
                assert response.headers["Cache-Control"] == "no-store"
                url = (await response.json())["playlist_url"]
            assert key not in url
            assert "host" not in url.partition("/hls/")[2]
            async with http.get(url) as response:
                assert response.status == 200
                assert response.headers["Access-Control-Allow-Origin"] == "*"
                media = re.search(r"^[^#].*", await response.text(), re.M)
                assert media is not None
            async with http.get(url.replace("index.m3u8", media[0]), headers={"Accept-Encoding": "gzip"}) as response:
                assert response.status == 200
                assert response.headers["Content-Encoding"] == "gzip"
            permit = url.split("/")[-2]
            expiry, mark, signature = permit.split(".")
            later = f"{int(expiry, 16) + 3600:x}.{mark}.{signature}"
            for forged in (later, f"{expiry}.{mark}.{signature[:-1]}", f"{expiry}.{signature}", "x", "."):
                async with http.get(url.replace(permit, forged)) as response:
                    assert response.status in (403, 404), forged
            for query, status in (
                ("_HLS_part=1", 400),
                ("_HLS_msn=x", 400),
                ("_HLS_msn=99999", 400),
                ("_HLS_msn=00", 400),
                ("_HLS_msn=0&_HLS_part=00", 400),
                ("_HLS_msn=0&_HLS_part=0", 200),
            ):
                async with http.get(f"{url.replace('index.m3u8', media[0])}?{query}") as response:
                    assert response.status == status, query
            spelled_otherwise = ("init00.mp4", "00.m4s", "0.00.m4s", "00.0.m4s")
            for file in ("9999.m4s", "0.99.m4s", "init7.mp4", "..", "x.m4s", *spelled_otherwise):
                async with http.get(url.replace("index.m3u8", media[0].replace("index.m3u8", file))) as response:
                    assert response.status == 404, file


async def test_the_api_starts_it_with_the_show_and_ends_it_with_the_show() -> None:
    call = "/call/livestream/show"
    async with running_application() as application, aiohttp.ClientSession() as http:
        gateway = application.gateway
        anybody = {"anonymous": ["read-call", "join-call", "list-streams"]}  # as who wants an audience without tokens has it
        await application.ok("PUT", "/calltypes/livestream", {"grants": anybody})
        made = await application.ok(
            "POST", call, {"data": {"created_by_id": "john", "members": [{"role": "host", "user_id": "john"}]}}, user="john"
        )
        assert made["call"]["egress"]["hls"]["playlist_url"] == ""
        rtmp = f"{made['call']['ingress']['rtmp']['address']}/{application.token('john')}"
        async with ffmpeg(*SMALL, "-f", "flv", rtmp):
            await gateway.logged("'message': 'live'")
            live = await application.ok("POST", f"{call}/go_live", {"start_hls": True}, user="john")
            url = live["playlist_url"]
            assert url == live["call"]["egress"]["hls"]["playlist_url"]
            assert url.startswith(gateway.url("/hls/livestream"))
            async with following(url) as (client, followed):
                await client.renditions["video"].until_segment(2)
                await application.ok("POST", f"{call}/stop_live", user="john")
                async with asyncio.timeout(60):
                    await followed
            assert all(rendition.playlist.ended for rendition in client.renditions.values())
            async with http.get(url) as response:
                assert response.status == 403
            again = await application.ok("POST", f"{call}/go_live", {"start_hls": True}, user="john")
            async with http.get(again["playlist_url"]) as response:
                assert response.status == 200
