"""Real encoders that speak SRT, and their ways in: with a token in clear, or encrypted."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.support.encoders import X264_LIVE, encoder, ffmpeg, programme
from tests.support.gateway_process import GatewayProcess

TS = (*programme(), *X264_LIVE, "-c:a", "aac", "-f", "mpegts")


class Way:
    """How an encoder gets in: with a token in clear, or with a user name and its passphrase."""

    def __init__(
        self, gateway: GatewayProcess, encrypted: bool = False, user: str = "host", call: str = "livestream:demo"
    ) -> None:
        self.port = gateway.ports["srt"]
        self.stream_id = gateway.key(call, user)
        self.passphrase = ""
        if encrypted:
            self.stream_id = gateway.tokens.user_name(user, call, 3600)
            self.passphrase = gateway.tokens.password(self.stream_id) or ""

    def url(self, host: str = "127.0.0.1", **more: Any) -> str:
        secured = {"passphrase": self.passphrase, "pbkeylen": 32} if self.passphrase else {}
        query = "&".join(f"{name}={value}" for name, value in ({"streamid": self.stream_id} | secured | more).items())
        return f"srt://{host}:{self.port}?{query}"


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@asynccontextmanager
async def by_ffmpeg(way: Way) -> AsyncIterator[None]:
    async with ffmpeg(*TS, way.url()):
        yield


@asynccontextmanager
async def by_srt_live_transmit(way: Way) -> AsyncIterator[None]:
    between = f"udp://127.0.0.1:{free_port()}"
    async with encoder("srt-live-transmit", ["-q", between, way.url(latency=120)]), ffmpeg(*TS, f"{between}?pkt_size=1316"):
        yield


@asynccontextmanager
async def by_gstreamer(way: Way) -> AsyncIterator[None]:
    """It muxes what ffmpeg encodes, so that the picture carries its number."""
    port = free_port()
    secured = [f"passphrase={way.passphrase}", "pbkeylen=16"] if way.passphrase else []
    arguments = ["-q", "mpegtsmux", "name=m", "alignment=7", "!", "srtsink", f"uri=srt://127.0.0.1:{way.port}", "mode=caller"]
    arguments += [f"streamid={way.stream_id}", "latency=120", *secured]
    arguments += ["udpsrc", f"port={port}", "caps=video/mpegts,systemstream=true", "!", "tsdemux", "name=d"]
    arguments += ["d.", "!", "queue", "!", "h264parse", "config-interval=-1", "!", "m."]
    arguments += ["d.", "!", "queue", "!", "aacparse", "!", "m."]
    async with encoder("gst-launch-1.0", arguments), ffmpeg(*TS, f"udp://127.0.0.1:{port}?pkt_size=1316"):
        yield
