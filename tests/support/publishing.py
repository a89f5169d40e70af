"""An encoder of each protocol behind one face: ffmpeg with what was pasted into it. And what one hears that is refused."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from protocols.errors import Reason
from tests.peers.srt_peers import caller
from tests.support.encoders import X264_LIVE, ffmpeg, programme
from tests.support.gateway_process import GatewayProcess
from tests.support.waiting import eventually

PROTOCOLS = ("rtmp", "srt", "whip")
AAC = ("-c:a", "aac", "-b:a", "128k")
OPUS = ("-c:a", "libopus", "-ar", "48000", "-ac", "2", "-b:a", "96k")
SOUND = {"rtmp": AAC, "srt": AAC, "whip": OPUS}
"""What encoders of a protocol send as a rule."""
OFFER = (Path(__file__).parents[1] / "data" / "sdp" / "obs-32.2.2-single.sdp").read_bytes()


@dataclass(frozen=True)
class Pasted:
    """What a person copies into an encoder: an address for RTMP and SRT, an address and a bearer token for WHIP."""

    rtmp: str
    srt: str
    whip: tuple[str, str]

    @classmethod
    def of_key(cls, answer: dict[str, Any]) -> "Pasted":
        """From the API's answer to POST …/stream_keys."""
        whip = answer["whip"]
        rtmp = f"{answer['rtmp']['server']}/{answer['rtmp']['stream_key']}"
        return cls(rtmp, answer["srt"]["address"], (whip["server"], whip["bearer_token"]))

    @classmethod
    def of_gateway(cls, gateway: GatewayProcess, call: str, user: str = "host") -> "Pasted":
        """With a token of the gateway's own."""
        token = gateway.key(call, user)
        srt = f"srt://127.0.0.1:{gateway.ports['srt']}?streamid={token}"
        return cls(gateway.rtmp(call, user), srt, (gateway.url(f"/whip/{call}"), token))

    def target(self, protocol: str) -> Sequence[str]:
        """The end of ffmpeg's command line."""
        whip, token = self.whip
        targets = {
            "rtmp": ("-f", "flv", self.rtmp),
            "srt": ("-f", "mpegts", self.srt),
            "whip": ("-f", "whip", "-authorization", token, whip),
        }
        return targets[protocol]


@asynccontextmanager
async def publishing(
    protocol: str,
    pasted: Pasted,
    *,
    video: Sequence[str] = X264_LIVE,
    audio: Sequence[str] | None = None,
    size: tuple[int, int] = (640, 360),
    rate: int = 30,
    version: int = 0,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """ffmpeg, while it publishes the numbered picture and the tone. `video` and `audio` are codecs as in its arguments; empty: without;
    `audio` None: as usual for the protocol; `version` 0: that which can speak it."""
    sound = SOUND[protocol] if audio is None else audio
    source = programme(*size, rate, video=bool(video), audio=bool(sound))
    async with ffmpeg(
        *source, *video, *sound, *pasted.target(protocol), version=version or (9 if protocol == "whip" else 5)
    ) as process:
        yield process


async def over_rtmp(gateway: GatewayProcess, key: str, call: str) -> str:
    """What ffmpeg says in the end of its refused RTMP."""
    picture = ("-f", "lavfi", "-i", "color=size=64x64:rate=10", "-t", "20", "-c:v", "flv")
    address = f"rtmp://127.0.0.1:{gateway.ports['rtmp']}/live/{key}?call={call}"
    async with ffmpeg(*picture, "-f", "flv", address) as process:
        assert process.stderr is not None
        async with asyncio.timeout(60):
            return bytes(await process.stderr.read()).decode()


async def over_srt(gateway: GatewayProcess, key: str, call: str) -> dict[str, int]:
    """`{"reject": code}`, or `{"connected": True}`."""
    async with caller(gateway.ports["srt"], f"{key}?call={call}") as (_, said):
        return dict(said)


async def code_over_srt(gateway: GatewayProcess, key: str, call: str) -> int:
    """With which a caller is refused; who is told to come again does, until what may have been made elsewhere was looked up, and the
    machine is less busy."""

    async def code() -> int | None:
        said = (await over_srt(gateway, key, call))["reject"]
        return None if said == Reason.OVERLOADED.srt_code else said

    return await eventually(code, every_s=0.4)


async def over_whip(gateway: GatewayProcess, key: str, call: str, *, path: str = "whip") -> tuple[int, str]:
    headers = {"Content-Type": "application/sdp"}
    return await over_http("POST", gateway.url(f"/{path}/{call}"), key, data=OFFER, headers=headers)


async def over_http(method: str, url: str, token: str, **more: Any) -> tuple[int, str]:
    """Status and body."""
    headers = {"Authorization": f"Bearer {token}"} | more.pop("headers", {})
    async with aiohttp.ClientSession() as http, http.request(method, url, headers=headers, **more) as response:
        return response.status, await response.text()


async def refusal(protocol: str, gateway: GatewayProcess, key: str, call: str) -> str:
    """What who is refused gets to know: RTMP's words, SRT's code, WHIP's status and words."""
    match protocol:
        case "rtmp":
            return await over_rtmp(gateway, key, call)
        case "srt":
            return str(await code_over_srt(gateway, key, call))
        case _:
            status, words = await over_whip(gateway, key, call)
            return f"{status} {words}"
