"""Viewers who are served by processes of their own: picture and sound, what is decided for them in the main process, and what becomes of
them, and of nobody else, when their process dies.
"""

import asyncio
import json
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from itertools import pairwise
from time import monotonic_ns

import aiohttp
import psutil

from protocols.webrtc.transport.dtls import Certificate
from tests.bench.viewers import Viewer as Light
from tests.support.application import running_application
from tests.support.encoders import X264_LIVE, ffmpeg, programme
from tests.support.gateway_process import GatewayProcess, running_gateway
from tests.support.viewer import Viewer, watching
from tests.support.waiting import eventually

CALL = "livestream:demo"
CROWD = 40
BACK_NS = 2_000_000_000
FRAME = 3060  # of the RTP clock: RTMP counts in ms, and a frame of 30 a second takes 33 or 34 of them
JOINING = 60  # frames: those of the group that is there have other steps
ENCODER = (*programme(320, 180), *X264_LIVE, "-g", "30", "-c:a", "aac", "-f", "flv")


def fanout_processes(gateway: GatewayProcess) -> dict[int, int]:
    """By the UDP port that each has, the process."""
    found: dict[int, int] = {}
    for each in sorted(psutil.Process(gateway.pid).children(), key=lambda each: each.pid):
        if "gateway.outputs.fanout.process" in each.cmdline():
            found |= {connection.laddr.port: each.pid for connection in each.net_connections("udp")}
    return found


def port_of(viewer: Viewer) -> int:
    """To which port of the gateway it connected."""
    found = re.search(r"a=candidate:\S+ 1 udp \d+ \S+ (\d+)", viewer.connection.remoteDescription.sdp)
    assert found is not None
    return int(found[1])


@asynccontextmanager
async def watched(gateway: GatewayProcess, viewers: int, processes: int = 2) -> AsyncIterator[list[Viewer]]:
    """By so many, all of whom see and hear the stream, once all processes are there."""
    await until_up(gateway, processes)
    async with AsyncExitStack() as stack:
        watching_now = [await stack.enter_async_context(watching(gateway.url(f"/whep/{CALL}"))) for _ in range(viewers)]
        for viewer in watching_now:
            await viewer.until(frames=30, audio=30)
        yield watching_now


async def until_up(gateway: GatewayProcess, processes: int) -> None:
    """They start with the first call."""

    async def up() -> bool:
        return len(fanout_processes(gateway)) == processes

    await eventually(up)


async def test_viewers_are_spread_over_the_processes_and_counted() -> None:
    async with running_gateway("webrtc.processes=2") as gateway, ffmpeg(*ENCODER, gateway.rtmp()):
        await gateway.stream(tracks=2)
        async with watched(gateway, 4) as viewers:
            ports = fanout_processes(gateway)
            assert len(ports) == 2
            assert Counter(map(port_of, viewers)) == dict.fromkeys(ports, 2)
            assert all(viewer.in_order for viewer in viewers)
            assert (await gateway.stream())["viewers"] == 4

            async def counted() -> bool:
                text = await gateway.text("/metrics")
                assert gateway.value(text, "ingress_viewers") == 4
                frames = gateway.value(text, "ingress_viewer_frames_total")
                handshakes = gateway.value(text, "ingress_webrtc_handshakes_total")
                cpu = gateway.value(text, 'ingress_cpu_seconds_total{treatment="fanout"}')
                delay = gateway.value(
                    text, 'ingress_latency_seconds{kind="video",mode="passthrough",protocol="rtmp",quantile="0.5"}'
                )
                return frames >= 120 and handshakes == 4 and cpu > 0 and 0 < delay < 1

            await eventually(counted)


@asynccontextmanager
async def drained(viewers: list[Light]) -> AsyncIterator[None]:
    """What comes for these is read, until left; then they are gone."""

    async def drain() -> None:
        while True:
            for viewer in viewers:
                viewer.drain()
            await asyncio.sleep(0.01)

    task = asyncio.create_task(drain())
    try:
        yield
    finally:
        task.cancel()
        for viewer in viewers:
            viewer.close()


async def test_a_process_that_is_killed_takes_its_viewers_for_two_seconds_at_most_and_nobody_else() -> None:
    certificate = Certificate.generate()
    async with (
        running_gateway("webrtc.processes=2") as gateway,
        ffmpeg(*ENCODER, gateway.rtmp()),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
    ):
        viewers: list[Light] = []

        async def joined() -> Light:
            viewer = Light(certificate, measuring=True)
            await viewer.join(http, gateway.url(f"/whep/{CALL}"))
            viewers.append(viewer)
            await viewer.joined.wait()
            return viewer

        async def returning(viewer: Light, listening: asyncio.Event) -> Light:
            """As the page does it, by what the gateway says."""
            async with http.get(f"{viewer.resource}/events") as events:
                assert await events.content.readline()
                listening.set()
                assert b"event: lost" in await events.content.read()
            return await joined()

        await until_up(gateway, 2)
        async with drained(viewers), asyncio.timeout(60), asyncio.TaskGroup() as group:
            first = [await joined() for _ in range(CROWD)]
            ports = fanout_processes(gateway)
            assert Counter(viewer.port for viewer in first) == dict.fromkeys(ports, CROWD // 2)
            doomed = first[0].port
            lost = [viewer for viewer in first if viewer.port == doomed]
            heard = [asyncio.Event() for _ in lost]
            back = [group.create_task(returning(*each)) for each in zip(lost, heard, strict=True)]
            for each in heard:
                await each.wait()
            psutil.Process(ports[doomed]).kill()
            killed = monotonic_ns()
            arrived = [(await each).seen.first_picture for each in back]
            assert max(arrived) - killed < BACK_NS

            kept = [viewer for viewer in first if viewer.port != doomed]
            await frames_came(gateway, JOINING + 60)
            for viewer in kept:
                steps = [late - early for (early, _), (late, _) in pairwise(viewer.seen.video)]
                assert not viewer.seen.missing
                assert max(steps[JOINING:]) <= FRAME
            await eventually(lambda: replaced(gateway, ports[doomed]))
            await gateway.logged("a fan-out process ends, and is replaced")
            text = await gateway.text("/metrics")
            assert gateway.value(text, "ingress_viewers") == CROWD
            assert gateway.value(text, "ingress_webrtc_processes_ended_total") == 1


async def replaced(gateway: GatewayProcess, pid: int) -> bool:
    pids = fanout_processes(gateway).values()
    return len(pids) == 2 and pid not in pids


async def test_what_is_decided_in_the_main_process_holds_for_who_is_served_by_others() -> None:
    async with running_application("webrtc.processes=2", "calls.linger_s=1") as application:
        gateway, path = application.gateway, "/call/livestream/show"
        members = [{"user_id": "john", "role": "host"}]
        await application.ok("POST", path, {"data": {"created_by_id": "john", "members": members}})
        await application.ok("POST", f"{path}/go_live", user="john")

        def watched_by(user: str) -> AbstractAsyncContextManager[Viewer]:
            return watching(gateway.url("/whep/livestream:show"), application.token(user))

        async def viewers(count: int) -> bool:
            return bool((await application.ok("GET", path))["call"]["session"]["viewers"] == count)

        async with ffmpeg(*ENCODER, gateway.rtmp("livestream:show", "john")):
            await until_up(gateway, 2)
            async with watched_by("ann") as ann, watched_by("bob") as bob, watched_by("eve") as eve:
                for viewer in (ann, bob, eve):
                    await viewer.until(frames=30, audio=30)
                assert len({port_of(viewer) for viewer in (ann, bob, eve)}) == 2
                await eventually(lambda: viewers(3))

                await application.ok("POST", f"{path}/mute_users", {"user_ids": ["john"], "audio": True, "video": True})
                await eventually(lambda: muted_at(bob))
                seen = [(len(viewer.numbers), viewer.audio_frames) for viewer in (ann, bob)]
                await frames_came(gateway, 60)
                assert [(len(viewer.numbers), viewer.audio_frames) for viewer in (ann, bob)] == seen
                await application.ok("POST", f"{path}/unmute_users", {"user_ids": ["john"], "audio": True, "video": True})
                await asyncio.gather(*(viewer.until(frames=len(viewer.numbers) + 30) for viewer in (ann, bob)))

                await application.ok("POST", f"{path}/kick", {"user_id": "eve", "block": True}, user="john")
                async with asyncio.timeout(45):  # a goodbye may be lost: then by the end of its consent
                    await eve.closed.wait()
                await eventually(lambda: viewers(2))
                assert not ann.closed.is_set()

                await application.ok("POST", f"{path}/stop_live", user="john")
                async with asyncio.timeout(30):
                    await asyncio.gather(ann.closed.wait(), bob.closed.wait())
                await eventually(lambda: viewers(0))


async def muted_at(viewer: Viewer) -> bool:
    """Whether its page is told so."""
    async with aiohttp.ClientSession() as http, http.get(f"{viewer.resource}/events") as events:
        line = await events.content.readline()
    (slot,) = json.loads(line.removeprefix(b"data:"))["slots"]
    return bool(slot["muted_audio"] and slot["muted_video"])


async def frames_came(gateway: GatewayProcess, more: int) -> None:
    """From the encoder, so many since."""
    series = 'ingress_frames_total{kind="video",protocol="rtmp"}'
    begun = await gateway.metric(series)

    async def came() -> bool:
        return await gateway.metric(series) >= begun + more

    await eventually(came)


async def test_a_restart_of_ice_and_a_wish_for_a_layer_are_asked_of_the_process_that_has_the_viewer() -> None:
    async with running_gateway("webrtc.processes=1") as gateway, ffmpeg(*ENCODER, gateway.rtmp()):
        await gateway.stream(tracks=2)
        async with watched(gateway, 1, processes=1) as (viewer,), aiohttp.ClientSession() as http:
            wanted = {"width": 320, "height": 180}
            async with http.post(f"{viewer.resource}/layer", json=wanted) as answer:
                assert answer.status == 200
            async with http.post(f"{viewer.resource}/layer", json=wanted | {"mediaId": "9"}) as answer:
                assert answer.status == 422
            async with http.post(f"{viewer.resource}/layer", json={"rid": "h"}) as answer:
                assert answer.status == 409
            fragment = "a=ice-ufrag:anew\r\na=ice-pwd:0123456789012345678901\r\n"
            headers = {"Content-Type": "application/trickle-ice-sdpfrag", "If-Match": "*"}
            async with http.patch(viewer.resource, data=fragment, headers=headers) as answer:
                assert answer.status == 200
                text, etag = await answer.text(), answer.headers["ETag"]
            assert f"a=ice-ufrag:{etag.strip(chr(34))}" in text
            async with http.patch(viewer.resource, data=fragment, headers=headers | {"If-Match": etag}) as answer:
                assert answer.status == 204, "the same again is no restart"


async def test_a_drained_gateway_goes_on_for_its_viewers_and_then_says_goodbye_to_them() -> None:
    async with running_gateway("webrtc.processes=2", "shutdown.drain_s=60", "calls.linger_s=1") as gateway:
        async with ffmpeg(*ENCODER, gateway.rtmp()) as encoder, watched(gateway, 2) as viewers:
            gateway.process.send_signal(signal.SIGTERM)
            await gateway.logged("draining")
            for viewer in viewers:
                await viewer.until(frames=len(viewer.numbers) + 30)
            pids = fanout_processes(gateway).values()
            encoder.terminate()
            async with asyncio.timeout(20):
                await asyncio.gather(*(viewer.closed.wait() for viewer in viewers))
        assert not any(psutil.pid_exists(pid) for pid in pids)
