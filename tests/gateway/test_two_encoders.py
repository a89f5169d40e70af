"""Two encoders with one key, that both come back whenever they are cut off: one stays, the other one is told why."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support.encoders import X264_LIVE, ffmpeg, programme
from tests.support.flv import tags
from tests.support.gateway_process import GatewayProcess, running_gateway
from tests.support.publishing import PROTOCOLS, Pasted, publishing, refusal
from tests.support.rtmp_client import Refused, rtmp_client
from tests.support.slow import slow
from tests.support.waiting import eventually

CALL = "livestream:demo"
WORDS = "another encoder is live with this key"
ADVICE = "Two encoders send with the same key"
HALF_OPEN_S = 3.0


class Encoder:
    """ffmpeg that begins anew whenever it ends, as encoders do, with what it has printed."""

    def __init__(self, *arguments: str) -> None:
        self.arguments = (*programme(320, 240), *X264_LIVE, "-c:a", "aac", *arguments)
        self.printed = ""

    async def run(self) -> None:
        while True:
            async with ffmpeg(*self.arguments) as process:
                assert process.stderr is not None
                self.printed += (await process.stderr.read()).decode()


@asynccontextmanager
async def for_ever(*encoders: Encoder) -> AsyncIterator[None]:
    running = [asyncio.create_task(each.run()) for each in encoders]
    try:
        yield
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def arguments(protocol: str, gateway: GatewayProcess) -> tuple[str, ...]:
    return tuple(Pasted.of_gateway(gateway, CALL).target(protocol))


@pytest.mark.parametrize("protocol", ["rtmp", slow("srt")])
async def test_of_two_that_replace_each_other_one_stays_after_two_changes(protocol: str) -> None:
    refused = f'ingress_refused_total{{protocol="{protocol}",reason="conflict"}}'
    async with running_gateway() as gateway:
        first, second = (Encoder(*arguments(protocol, gateway)) for _ in range(2))
        async with for_ever(first):
            before = await gateway.stream(tracks=2)
            async with for_ever(second):
                changed = await gateway.stream(tracks=2, wanted=lambda seen: seen["reconnects"] == 2, timeout=40)
                wanted = await gateway.metric(refused) + 5

                async def tried() -> bool:
                    return await gateway.metric(refused) >= wanted

                await eventually(tried, within_s=60)
                after = await gateway.stream(tracks=2)
    assert (before["id"], after["id"], after["reconnects"]) == (changed["id"], changed["id"], 2)
    assert any(warning.startswith(ADVICE) for warning in after["warnings"])
    if protocol == "rtmp":
        assert f"Server error: {WORDS}" in first.printed + second.printed


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_who_was_replaced_hears_it_in_the_words_of_its_protocol(protocol: str) -> None:
    async with running_gateway() as gateway:
        pasted = Pasted.of_gateway(gateway, CALL)
        async with publishing("rtmp", pasted):
            await gateway.stream(tracks=2)
            async with publishing("srt", pasted):
                stream = await gateway.stream(tracks=2, wanted=lambda seen: seen["protocol"] == "srt")
                said = await refusal(protocol, gateway, gateway.key(), CALL)
                now = await gateway.stream(tracks=2)
    assert {"rtmp": WORDS, "srt": "1409", "whip": "409 "}[protocol] in said
    assert (now["id"], now["protocol"], now["reconnects"]) == (stream["id"], "srt", 1)
    assert any(warning.startswith(ADVICE) for warning in now["warnings"])


async def test_where_nobody_is_replaced_an_encoder_gets_past_its_own_half_open_connection() -> None:
    """The first connection stays open and gives nothing more, as after a change of network."""
    async with running_gateway("calls.on_conflict=refuse") as gateway:
        key, port, loop = gateway.key(), gateway.ports["rtmp"], asyncio.get_running_loop()
        media = [tag for tag in tags("rtmp-empty-nal") if tag.time < 1000]
        words: set[str] = set()
        async with rtmp_client(port, key) as lost:
            await lost.send(media)
            silent_since = loop.time()

            async def let_in() -> Any:
                try:
                    async with rtmp_client(port, key) as back:
                        silence = loop.time() - silent_since
                        await back.send(media)
                        return silence
                except Refused as refused:
                    words.add("BadName" if "NetStream.Publish.BadName" in str(refused) else str(refused))
                    return None

            silence = await eventually(let_in)
            assert not words - {"BadName"}
            assert 1.5 < silence < HALF_OPEN_S
