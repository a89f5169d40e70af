"""What happens in a real gateway, as clients and the operator's server are told it."""

import asyncio
from pathlib import Path
from typing import Any

from tests.support.delivery import assert_shown, dropped
from tests.support.encoders import X264_LIVE, ffmpeg, programme
from tests.support.gateway_process import GatewayProcess, running_gateway
from tests.support.listener import listening
from tests.support.receiver import Receiver, receiving
from tests.support.viewer import watching

CALL = "livestream:demo"
CONNECT = "/api/v2/video/connect"
SECRET = "a secret of the operator, forty characters"
ONE_ENCODER = ("calls.linger_s=0", "calls.on_conflict=refuse")
OF_A_STREAM = [
    "call.session_participant_joined",
    "ingress.started",
    "ingress.stopped",
    "call.session_participant_left",
]


def hook(receiver: Receiver) -> list[str]:
    return [
        f"webhooks.url={receiver.url}",
        f"webhooks.secret={SECRET}",
        "webhooks.allow_private=true",
        "webhooks.timeout_s=0.5",
    ]


def video(seconds: int | None = None) -> list[str]:
    length = ["-t", str(seconds)] if seconds else []
    return [*programme(), *X264_LIVE, "-an", *length, "-f", "flv"]


def of(told: list[dict[str, Any]], *types: str) -> list[dict[str, Any]]:
    return [event for event in told if event["type"] in types]


async def reached(gateway: GatewayProcess, series: str, n: int) -> None:
    async with asyncio.timeout(60):
        while True:
            if await gateway.metric(series) >= n:
                return
            await asyncio.sleep(0.05)


async def test_a_stream_its_viewers_and_what_they_say_are_told_to_clients_and_to_the_webhook() -> None:
    async with receiving() as receiver, running_gateway(*hook(receiver), *ONE_ENCODER) as gateway:
        host, guest = gateway.key(), gateway.tokens.issue("vera", [CALL], 600, "viewer")
        async with (
            listening(gateway.url(CONNECT), CALL, host) as john,
            listening(gateway.url(CONNECT), CALL, guest) as vera,
            listening(gateway.url(CONNECT), CALL) as anybody,
            watching(gateway.url(f"/whep/{CALL}")) as viewer,
        ):
            async with ffmpeg(*video(), gateway.rtmp()):
                await viewer.until(frames=30)
                started = await john.until("ingress.started")
                assert (await anybody.until("call.viewers_changed"))["payload"] == {"viewers": 1}
                assert (await vera.ask("reaction", reaction={"type": "like"}))["type"] == "sent"
                assert (await anybody.ask("custom", custom={"text": "me too"}))["status"] == 401
                async with ffmpeg(*video(), gateway.rtmp()) as second:
                    await second.wait()
                refused = await john.until("ingress.error")
            stopped = await john.until("ingress.stopped")
            left = await anybody.until("call.session_participant_left")
            await john.until("call.session_participant_left")
            assert "another encoder is live with this key" in refused["payload"]["reason"]
            assert started["payload"]["protocol"] == "rtmp"
            assert started["payload"]["user_id"] == "host"
            assert stopped["payload"]["stream"] == started["payload"]["stream"]
            assert stopped["payload"]["reason"] == left["payload"]["reason"] == "the encoder ended the stream"
            reaction = (await john.until("call.reaction_new"))["payload"]
            assert (reaction["reaction"]["type"], reaction["user"]["id"]) == ("like", "vera")
            assert not of(anybody.told, "ingress.started", "ingress.error"), "viewers are not told of the hosts' equipment"
            assert [event["type"] for event in of(john.told, *OF_A_STREAM)] == OF_A_STREAM
            assert [event["seq"] for event in john.told] == sorted(event["seq"] for event in john.told)

            told = await receiver.told_of(len(john.told))
            assert [event["id"] for event in told] == [event["id"] for event in john.told]
            assert await gateway.metric('ingress_events_total{type="ingress.started"}') == 1
            assert await gateway.metric("ingress_event_sockets") == 3
            await reached(gateway, "ingress_webhook_delivered_total", len(john.told))
        log = str(gateway.log)
    assert SECRET not in log
    assert receiver.url not in log


async def test_a_webhook_that_hangs_holds_up_nothing_and_gets_everything_after_it_and_the_gateway_came_back(
    tmp_path: Path,
) -> None:
    state = f"state.directory={tmp_path}"
    async with receiving() as receiver:
        receiver.working.clear()
        async with (
            running_gateway(*hook(receiver), state, expect_exit=None) as gateway,
            watching(gateway.url(f"/whep/{CALL}")) as viewer,
            listening(gateway.url(CONNECT), CALL, gateway.key()) as john,
        ):
            async with ffmpeg(*video(), gateway.rtmp()):
                await receiver.asked_for(2)  # and has not answered the first
                first = len(viewer.numbers)
                await viewer.until(frames=first + 60)
                for n in range(5):
                    assert (await john.ask("custom", custom={"n": n}))["type"] == "sent"
                    assert (await gateway.json("/api/streams"))["streams"]
                assert_shown(viewer.numbers, viewer.numbers[first], viewer.numbers[first] + 55, await dropped(gateway, viewer))
                last = of(john.told, "custom")[-1]
                await reached(gateway, "ingress_webhook_waiting", len(john.told))
                assert await gateway.metric('ingress_webhook_failed_total{reason="timeout"}') >= 1
                assert not receiver.told
                gateway.process.kill()
                await gateway.process.wait()
        receiver.working.set()
        async with running_gateway(*hook(receiver), state) as gateway:
            async with listening(gateway.url(CONNECT), CALL, gateway.key()) as again:
                assert (await again.ask("custom", custom={"n": 5}))["type"] == "sent"
                newest = (await again.until("custom"))["id"]
                async with asyncio.timeout(60), receiver.news:
                    await receiver.news.wait_for(lambda: newest in [event["id"] for event in receiver.told])
    ids = list(dict.fromkeys(event["id"] for event in receiver.told))
    before = [event["id"] for event in john.told]
    assert [each for each in ids if each in before] == before, "in order, at least once"
    assert last["id"] in ids
    seqs = [event["seq"] for event in receiver.told]
    assert sorted(set(seqs)) == list(dict.fromkeys(seqs))
