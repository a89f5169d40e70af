"""Chromium as the viewer, with nothing but its own WebRTC and fetch, from another origin."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from playwright.async_api import Page

from protocols.media import Codec, Kind
from tests.browser.chromium import Chromium, Observed
from tests.peers.test_whep_viewers import publishing
from tests.peers.whep_stage import Participant, Stage, pictures, stage, tone
from tests.support.encoders import BITS
from tests.support.relay import relaying

pytestmark = pytest.mark.asyncio(loop_scope="module")

_WATCH = """async ([url, pairs, relay]) => {
    const pc = globalThis.pc = new RTCPeerConnection({bundlePolicy: "max-bundle"});
    for (let i = 0; i < pairs; i++) for (const kind of ["video", "audio"]) pc.addTransceiver(kind, {direction: "recvonly"});
    pc.ontrack = ({track, streams}) => {
        const player = document.createElement("video");
        player.autoplay = true;
        player.srcObject = streams[0];
        document.body.append(player);
    };
    await pc.setLocalDescription();
    const response = await fetch(url, {method: "POST", body: pc.localDescription.sdp, headers: {"Content-Type": "application/sdp"}});
    globalThis.resource = new URL(response.headers.get("Location"), url).href;
    globalThis.etag = response.headers.get("ETag");
    globalThis.answer = (await response.text()).replaceAll(/ (\\d+) typ host/g, ` ${relay ?? "$1"} typ host`);
    await pc.setRemoteDescription({type: "answer", sdp: answer});
    return [response.status, etag, response.headers.get("Link")];
}"""

_RESTART = """async () => {
    const line = (sdp, name) => sdp.match(new RegExp(`a=${name}:.*`))[0];
    await pc.setLocalDescription(await pc.createOffer({iceRestart: true}));
    const offer = pc.localDescription.sdp;
    const body = [line(offer, "ice-ufrag"), line(offer, "ice-pwd"), "m=video 9 UDP/TLS/RTP/SAVPF 0", "a=mid:0", ""].join("\\r\\n");
    const response = await fetch(resource, {method: "PATCH", body,
        headers: {"Content-Type": "application/trickle-ice-sdpfrag", "If-Match": "*"}});
    const fragment = await response.text();
    let sdp = answer;
    for (const name of ["ice-ufrag", "ice-pwd"]) sdp = sdp.replaceAll(new RegExp(`a=${name}:.*`, "g"), line(fragment, name));
    await pc.setRemoteDescription({type: "answer", sdp});
    return [response.status, response.headers.get("ETag") !== etag];
}"""

_NUMBERS = """async ([bits, count, slot]) => {
    const video = document.querySelectorAll("video")[2 * slot];  // there is one of the sound, too
    const context = Object.assign(document.createElement("canvas"), {width: bits, height: 1}).getContext("2d", {willReadFrequently: true});
    const numbers = [];
    while (numbers.length < count) {
        await new Promise((shown) => video.requestVideoFrameCallback(shown));
        context.drawImage(video, 0, 0, video.videoWidth, 16, 0, 0, bits, 1);
        const {data} = context.getImageData(0, 0, bits, 1);
        numbers.push(Array.from({length: bits}, (_, bit) => (data[4 * bit] > 127 ? 1 << bit : 0)).reduce((sum, value) => sum + value, 0));
    }
    return numbers;
}"""
_MIME_TYPES = """async () => {
    const reports = [...(await pc.getStats()).values()];
    const videos = reports.filter((report) => report.type === "inbound-rtp" && report.kind === "video" && report.framesDecoded > 0);
    return videos.map(({codecId}) => reports.find((report) => report.id === codecId)?.mimeType);
}"""
_STATS = """async () => [...(await pc.getStats()).values()].filter((report) => report.type === "inbound-rtp")"""


UNDER_WAY = 5  # pictures, or in the jitter buffer
MOST_DROPPED = 0.25


async def inbound(page: Page, kind: str) -> list[dict[str, Any]]:
    return [report for report in await page.evaluate(_STATS) if report["kind"] == kind]


async def until_decoded(page: Page, frames: int) -> int:
    """Wait, from one painted frame to the next, until that many have been decoded in every video."""
    async with asyncio.timeout(60):
        while True:
            reports = await inbound(page, "video")
            decoded = min((report["framesDecoded"] for report in reports), default=0)
            if decoded >= frames:
                return int(decoded)
            await page.evaluate("() => new Promise(requestAnimationFrame)")


async def until_caught_up(page: Page) -> None:
    """Wait until all that was received is decoded but what is under way: a picture that cannot be decoded would be missing for ever. What a
    busy machine had no time to decode is counted by the browser, and is little."""
    async with asyncio.timeout(60):
        while any(
            video["framesReceived"] - video["framesDecoded"] - video["framesDropped"] > UNDER_WAY
            for video in await inbound(page, "video")
        ):
            await page.evaluate("() => new Promise(requestAnimationFrame)")
    assert all(video["framesDropped"] <= MOST_DROPPED * video["framesReceived"] for video in await inbound(page, "video"))


@asynccontextmanager
async def blank() -> AsyncIterator[str]:
    """An empty page of another origin than the gateway's."""

    async def page(request: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><link rel=icon href=data:,>", content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    async with TestServer(app) as server:
        yield str(server.make_url("/"))


@asynccontextmanager
async def viewing(chromium: Chromium) -> AsyncIterator[tuple[Page, Observed]]:
    async with blank() as address, chromium.open_page(address) as opened:
        yield opened


@asynccontextmanager
async def live() -> AsyncIterator[tuple[Stage, Participant]]:
    async with stage() as served:
        host = Participant("host", pictures(900), tone(1500))
        async with publishing(served, host):
            yield served, host


async def test_chromium_decodes_pictures_and_hears_the_tone(chromium: Chromium) -> None:
    async with live() as (served, _), viewing(chromium) as (page, observed):
        status, etag, link = await page.evaluate(_WATCH, [served.url, 1])
        assert status == 201
        assert etag.startswith('"')
        assert "server-sent-events" in link
        first = await until_decoded(page, 30)
        await until_decoded(page, first + 30)
        (video,) = await inbound(page, "video")
        (audio,) = await inbound(page, "audio")
        assert (video["frameWidth"], video["frameHeight"]) == (320, 176)
        assert video.get("packetsLost", 0) == 0
        await until_caught_up(page)
        assert audio["totalAudioEnergy"] > 0
        assert observed.complaints == []
        viewer = next(iter(served.viewers))
        await page.evaluate("fetch(resource, {method: 'DELETE'})")
        async with asyncio.timeout(5):
            await viewer.peer.closed.wait()


async def until_codecs(page: Page, *codecs: Codec) -> None:
    """Wait until Chromium says that it decodes videos of these codecs, and no others."""
    async with asyncio.timeout(60):
        while sorted(await page.evaluate(_MIME_TYPES)) != sorted(f"video/{codec.upper()}" for codec in codecs):
            await page.evaluate("() => new Promise(requestAnimationFrame)")


async def shown(page: Page, count: int, slot: int = 0) -> list[int]:
    """The numbers burnt into the next pictures; a busy browser may paint one of them twice."""
    async with asyncio.timeout(60):
        numbers: list[int] = await page.evaluate(_NUMBERS, [BITS, count, slot])
        return numbers


async def test_chromium_decodes_every_picture_of_each_codec(chromium: Chromium) -> None:
    codecs = (Codec.VP8, Codec.VP9, Codec.AV1)
    hosts = [Participant(codec, pictures(900, codec=codec), tone(1500), codec) for codec in codecs]
    async with stage() as served, viewing(chromium) as (page, observed), AsyncExitStack() as published:
        for host in hosts:
            await published.enter_async_context(publishing(served, host))
        await page.evaluate(_WATCH, [served.url, len(hosts)])
        await until_codecs(page, *codecs)
        for slot in range(len(hosts)):
            numbers = await shown(page, 20, slot)
            assert numbers == sorted(numbers)
            assert len(set(numbers)) > 10
        for video in await inbound(page, "video"):
            assert (video["frameWidth"], video["frameHeight"]) == (320, 176)
            assert video.get("packetsLost", 0) == video.get("pliCount", 0) == 0
        await until_caught_up(page)
        assert observed.complaints == []


async def test_lost_packets_of_vp8_are_sent_again_and_no_picture_is_missed(chromium: Chromium) -> None:
    async with stage() as served, viewing(chromium) as (page, observed):
        host = Participant("host", pictures(900, codec=Codec.VP8), tone(1500), Codec.VP8)
        async with publishing(served, host), relaying(served.mux.port, loss=0, round_trip_s=0.02) as relay:
            await page.evaluate(_WATCH, [served.url, 1, relay.port])
            await until_decoded(page, 10)
            relay.loss = 0.1
            async with asyncio.timeout(60):
                while True:
                    (video,) = await inbound(page, "video")
                    if video.get("retransmittedPacketsReceived", 0) >= 5:
                        break
                    await page.evaluate("() => new Promise(requestAnimationFrame)")
            relay.loss = 0
            await until_decoded(page, video["framesDecoded"] + 30)
            (video,) = await inbound(page, "video")
            (sender,) = [
                sender for viewer in served.viewers for sender in viewer.senders if sender.parameters.kind is Kind.VIDEO
            ]
            async with asyncio.timeout(60):
                while sender.frames - (await inbound(page, "video"))[0]["framesReceived"] > UNDER_WAY:
                    await page.evaluate("() => new Promise(requestAnimationFrame)")
            await until_caught_up(page)
            assert sender.stream.retransmitted >= 5
            assert observed.complaints == []


async def test_the_picture_goes_on_from_codec_to_codec(chromium: Chromium) -> None:
    codecs = (Codec.H264, Codec.VP8, Codec.AV1, Codec.VP9, Codec.H264)
    made = {codec: pictures(900, group=15, codec=codec) for codec in set(codecs)}
    async with stage() as served, viewing(chromium) as (page, observed):
        host = Participant("host", made[codecs[0]], tone(1500), codecs[0])
        async with publishing(served, host):
            await page.evaluate(_WATCH, [served.url, 1])
            numbers = []
            for codec in codecs:
                if codec is not host.codec:
                    host.change(codec, made[codec])
                    served.enter(host)
                await until_codecs(page, codec)
                numbers += await shown(page, 20)
            assert numbers == sorted(numbers)
            assert len(set(numbers)) > 10 * len(codecs)
            assert await page.evaluate("pc.getReceivers()[0].track.readyState") == "live"
            assert observed.complaints == []


async def test_chromium_keeps_the_picture_over_an_ice_restart(chromium: Chromium) -> None:
    async with live() as (served, _), viewing(chromium) as (page, observed):
        await page.evaluate(_WATCH, [served.url, 1])
        await until_decoded(page, 10)
        viewer = next(iter(served.viewers))
        before = viewer.peer.address
        assert await page.evaluate(_RESTART) == [200, True]
        # A restart gives Chromium new ports. Whether it checks them with our old or our new credentials is a race of its own: both hold.
        async with asyncio.timeout(10):
            while viewer.peer.address == before:
                await page.evaluate("() => new Promise(requestAnimationFrame)")
        first = await until_decoded(page, 20)
        await until_decoded(page, first + 60)
        assert await page.evaluate("pc.connectionState") == "connected"
        assert observed.complaints == []


class Nat:
    """A relay before the gateway's UDP port that changes its own port like a NAT that has forgotten its binding."""

    def __init__(self, port: int) -> None:
        self._gateway = ("127.0.0.1", port)
        self._inside = self._open(self._outward)
        self._outside = self._open(self._inward)
        self._viewer: tuple[str, int] | None = None
        self.port: int = self._inside.getsockname()[1]

    def _open(self, pass_on: Callable[[bytes, tuple[str, int]], None]) -> socket.socket:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", 0))
        udp.setblocking(False)

        def readable() -> None:
            with contextlib.suppress(BlockingIOError):
                pass_on(*udp.recvfrom(2048))

        asyncio.get_running_loop().add_reader(udp, readable)
        return udp

    def _outward(self, datagram: bytes, viewer: tuple[str, int]) -> None:
        self._viewer = viewer
        self._outside.sendto(datagram, self._gateway)

    def _inward(self, datagram: bytes, _: tuple[str, int]) -> None:
        if self._viewer is not None:
            self._inside.sendto(datagram, self._viewer)

    def rebind(self) -> None:
        old, self._outside = self._outside, self._open(self._inward)
        self._close(old)

    def close(self) -> None:
        self._close(self._inside)
        self._close(self._outside)

    def _close(self, udp: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(udp)
        udp.close()


async def test_chromium_is_followed_when_its_nat_forgets_it(chromium: Chromium) -> None:
    async with live() as (served, _), viewing(chromium) as (page, observed):
        nat = Nat(served.mux.port)
        await page.evaluate(_WATCH, [served.url, 1, nat.port])
        await until_decoded(page, 10)
        (viewer,) = served.viewers
        before = viewer.peer.address
        nat.rebind()
        decoded = await until_decoded(page, 1)
        await until_decoded(page, decoded + 60)
        assert viewer.peer.address != before
        assert await page.evaluate("pc.connectionState") == "connected"
        assert observed.complaints == []
        nat.close()


async def test_chromium_with_sixteen_pairs_of_which_two_show_somebody(chromium: Chromium) -> None:
    async with live() as (served, _), viewing(chromium) as (page, observed):
        async with publishing(served, Participant("second", pictures(600), tone(1000))):
            await page.evaluate(_WATCH, [served.url, 16])
            async with asyncio.timeout(60):
                while len([report for report in await inbound(page, "video") if report.get("framesDecoded", 0) > 30]) < 2:
                    await page.evaluate("() => new Promise(requestAnimationFrame)")
        assert observed.complaints == []
