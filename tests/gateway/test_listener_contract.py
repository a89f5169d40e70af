"""A listener that the gateway has never heard of gets all that the gateway's own have: nothing in gateway/ is changed for it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import av
import numpy as np
import pytest

from gateway.access.credentials import Secret, Tokens
from gateway.app import gateway
from gateway.config.sources import load
from gateway.node.selftest import Mark, findings
from gateway.wiring.http import http_connections
from gateway.wiring.listeners import PROTOCOLS
from protocols.media import Codec, EncodedPacket, Track
from tests.support.delivery import DROPS, assert_shown, total
from tests.support.encoders import BITS, STRIP
from tests.support.gateway_process import fresh_metrics
from tests.support.line_listener import HEADER, line_protocol
from tests.support.viewer import watching
from tests.unit.transcode.media import SECOND, tone

CALL = "livestream:demo"
SIZE = WIDTH, HEIGHT = 320, 180
RATE, SECONDS = 30, 20
START = SECOND  # of the encoder's clock: sound begins a little before, as AAC does
SECRET = "a secret of these tests, of which nobody else has heard"


def numbered() -> list[EncodedPacket]:
    """H.264 without B-frames, a key frame each second; each picture carries its number as `tests.support.encoders` writes it."""
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = *SIZE, "yuv420p"
    encoder.time_base, encoder.framerate, encoder.gop_size = Fraction(1, RATE), Fraction(RATE), RATE
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "bf": "0"}
    packets = []
    for number in range(RATE * SECONDS):
        picture = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
        bits = [number >> bit & 1 for bit in range(BITS)]
        picture[:STRIP] = np.repeat(np.where(bits, 235, 16), WIDTH // BITS)
        frame = av.VideoFrame.from_ndarray(picture, "yuv420p")
        frame.pts = number
        for coded in encoder.encode(frame):
            assert coded.pts is not None
            pts = START + coded.pts * SECOND // RATE
            packets.append(EncodedPacket(1, pts, pts, coded.is_keyframe, bytes(coded), pts, pts))
    return packets


@asynccontextmanager
async def publishing(address: str, key: str, packets: Sequence[EncodedPacket]) -> AsyncIterator[str]:
    """An encoder that connects to `address`, shows the key and sends `packets` in real time; gives what it is told."""
    to = urlsplit(address)
    reader, writer = await asyncio.open_connection(to.hostname, to.port)
    writer.write(f"{key} {to.path[1:]}\n".encode())
    said = (await reader.readline()).decode().strip()

    async def send() -> None:
        begun = asyncio.get_running_loop().time()
        with suppress(ConnectionError):
            for packet in packets:
                await asyncio.sleep(
                    begun + (packet.pts - START) / SECOND - asyncio.get_running_loop().time()
                )  # the camera's clock
                writer.write(HEADER.pack(packet.track, packet.pts, packet.keyframe, len(packet.data)) + packet.data)
                await writer.drain()

    sending = asyncio.create_task(send())
    try:
        yield said
    finally:
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
        writer.close()


async def answer(url: str, token: str = "", body: object = None) -> Any:
    """To GET, or where there is a body to POST."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    method = "GET" if body is None else "POST"
    async with aiohttp.ClientSession() as http, http.request(method, url, headers=headers, json=body) as response:
        assert response.ok, await response.text()
        return await (response.json() if response.content_type == "application/json" else response.text())


async def test_an_invented_protocol_crosses_the_whole_gateway(tmp_path: Path) -> None:
    sound, heard = tone(seconds=SECONDS, start=START)
    packets = sorted([*numbered(), *heard], key=lambda packet: packet.pts)
    protocol = line_protocol(Track(1, Codec.H264, width=WIDTH, height=HEIGHT, frame_rate=RATE, reorder=0), sound)
    ports = [f"{section}.port=0" for section in ("http", "rtmp", "srt", "webrtc")]
    settings = [*ports, "http.host=127.0.0.1", f"state.directory={tmp_path}", f"auth.secret={SECRET}"]
    tokens = Tokens(Secret(SECRET.encode()))
    async with gateway(load(None, settings), [*PROTOCOLS, protocol]) as running:
        here = f"http://127.0.0.1:{running.ports['http']}"
        key = tokens.issue("host", [CALL], 3600)
        state = await answer(f"{here}/api/v2/video/call/{CALL.replace(':', '/')}", key)
        address = state["call"]["ingress"]["test"]["address"]
        assert address == f"test://127.0.0.1:{running.ports['test']}/{CALL}"
        keys = await answer(f"{here}/api/v2/video/call/{CALL.replace(':', '/')}/stream_keys", key, {})
        assert keys["test"] == {"server": address, "stream_key": keys["key"]}

        async with publishing(address, "no such key", packets) as said:
            assert "stream key" in said, said
        async with publishing(f"test://127.0.0.1:{running.ports['test']}", "", packets) as said:
            assert said == ""

        async with watching(f"{here}/whep/{CALL}") as viewer, publishing(address, key, packets) as said:
            assert said == "go on"
            await viewer.until(frames=60, audio=50)
            (stream,) = (await answer(f"{here}/api/streams"))["streams"]
            exposition = await fresh_metrics(f"{here}/metrics")
            lost = total(exposition, DROPS) + viewer.lost()
            metrics = exposition.splitlines()

    assert_shown(viewer.numbers, viewer.numbers[0], viewer.numbers[0] + 59, lost)
    assert viewer.sizes == [SIZE]
    assert viewer.frequency == pytest.approx(1000, rel=0.03)
    assert (stream["protocol"], stream["software"], stream["user"], stream["state"]) == ("test", "line", "host", "live")
    modes = {track["codec"]: (track["mode"], track["reason"]) for track in stream["tracks"]}
    assert modes == {"h264": ("passthrough", "same_codec"), "aac": ("transcode", "codec")}
    for series in (
        'ingress_sessions{protocol="test",state="live"} 1.0',
        'ingress_sessions_started_total{protocol="test"} 1.0',
        'ingress_refused_total{protocol="test",reason="unauthorized"} 1.0',
        'ingress_refused_total{protocol="test",reason="overloaded"} 0.0',
        'ingress_connections_failed_total{protocol="test",reason="no_line"} 1.0',
        "ingress_test_lines_total 2.0",
        *(f"ingress_{name}_available 1.0" for name in ("test", "rtmp", "whip")),
    ):
        assert series in metrics, [line for line in metrics if "test" in line]


async def test_the_self_test_tries_its_port_and_says_what_it_says(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        config = load(None, ["http.port=0", "rtmp.port=0", "srt.port=0", "webrtc.port=0", f"state.directory={tmp_path}/state"])
        protocols = [*PROTOCOLS, line_protocol(port=taken, file=f"{tmp_path}/none.pem")]
        found = list(findings(config, [each.preconditions(config) for each in protocols]))
    (port,) = (each for each in found if f"port {taken}" in each.what)
    assert port.mark is Mark.BAD
    assert "test.port" in port.fix
    assert "the protocol of the tests is here" in [each.text for each in found]
    (firewall,) = (each for each in found if each.what == "firewall")
    assert f"{taken}/tcp" in firewall.text
    (file,) = (each for each in found if each.what == "test.file")
    assert (file.mark, "no such file" in file.text) == (Mark.BAD, True)


def test_the_descriptors_of_its_connections_are_kept_from_http() -> None:
    config = load(None, ["http.max_connections=100000"])
    without = http_connections(config, PROTOCOLS, 8192)
    with_it = http_connections(config, [*PROTOCOLS, line_protocol(connections=500)], 8192)
    assert without.limits.places - with_it.limits.places == 500
