"""A mobile streamer's scene switcher reads how the stream arrives, from the encoder's wire to the document."""

import json
from typing import Any
from xml.etree import ElementTree

import aiohttp
import pytest

from tests.support.application import Application, running_application
from tests.support.publishing import Pasted, publishing
from tests.support.slow import slow
from tests.support.waiting import eventually

CALL = "/call/livestream/show"
CID = "livestream:show"


async def read(application: Application, path: str, key: str) -> str:
    """As reqwest does it: the password in the address is sent as Basic authentication."""
    async with aiohttp.ClientSession() as http:
        async with http.get(application.gateway.url(path).replace("://", f"://switcher:{key}@")) as response:
            assert response.status == 200
            return await response.text()


@pytest.mark.parametrize("protocol", ["rtmp", slow("srt"), slow("whip")])
async def test_bitrate_and_round_trip_are_read_with_the_stream_key_until_the_encoder_is_away(protocol: str) -> None:
    async with running_application("calls.linger_s=30") as application:
        await application.ok(
            "POST", CALL, {"data": {"created_by_id": "john", "members": [{"user_id": "john", "role": "host"}]}}
        )
        answer = await application.ok("POST", f"{CALL}/stream_keys", {}, user="john")
        key = answer["key"]

        async def published() -> Any:
            publishers = json.loads(await read(application, "/stats", key))["publishers"]
            return publishers.get(f"{CID}/john")

        async def arrives() -> Any:
            """Once rates are measured over some seconds."""
            found = await published()
            return found if found and found["uptime"] >= 4 else None

        async def gone() -> bool:
            return await published() is None

        async with publishing(protocol, Pasted.of_key(answer)) as encoder:
            found = await eventually(arrives)
            assert 100 < found["bitrate"] < 10_000, "kbit/s"
            assert 0 <= found["rtt"] < 1000
            assert found["rtt"] > 0 or protocol == "whip", "over which ffmpeg answers nothing that it could be measured by"
            document = ElementTree.fromstring((await read(application, "/stat", key)).encode())
            (stream,) = document.findall("server/application/live/stream")
            assert (document.findtext("server/application/name"), stream.findtext("name")) == (CID, "john")
            picture = [stream.findtext(f"meta/video/{each}") for each in ("width", "height", "codec")]
            assert picture == ["640", "360", "H264"]
            in_kbit = int(stream.findtext("bw_video", "")) / 1000
            assert in_kbit == pytest.approx(found["bitrate"], rel=0.5)
            encoder.kill()
            await eventually(gone)
