"""An encoder that falls silent, dies, is stopped and comes back, as everybody else sees it."""

import signal
from typing import Any

import pytest

from tests.support.gateway_process import running_gateway
from tests.support.listener import Client, listening
from tests.support.publishing import PROTOCOLS, Pasted, publishing
from tests.support.slow import slow

CALL = "livestream:demo"
CONNECT = "/api/v2/video/connect"
INTERRUPTED = ("ingress.stalled", "ingress.slate", "ingress.resumed")


def told(client: Client) -> list[tuple[str, Any]]:
    """What happened to the encoder's media, with the cause."""
    return [(event["type"], event["payload"]["cause"]) for event in client.told if event["type"] in INTERRUPTED]


@pytest.mark.parametrize("protocol", ["rtmp", slow("srt"), slow("whip")])
async def test_a_pause_and_a_death_are_told_to_who_watches_and_counted(protocol: str) -> None:
    async with running_gateway() as gateway, listening(gateway.url(CONNECT), CALL) as viewer:
        pasted = Pasted.of_gateway(gateway, CALL)
        async with publishing(protocol, pasted) as encoder:
            session = (await gateway.stream(tracks=2))["id"]
            encoder.send_signal(signal.SIGSTOP)
            await viewer.until("ingress.slate")
            assert told(viewer) == [("ingress.stalled", "silent"), ("ingress.slate", "silent")]
            (shown,) = (await gateway.json("/api/streams"))["streams"]
            assert (shown["id"], shown["state"]) == (session, "slate")
            encoder.send_signal(signal.SIGCONT)
            resumed = (await viewer.until("ingress.resumed"))["payload"]
            assert resumed["gap_seconds"] > 1.4
            assert set(resumed) == {"user_id", "cause", "gap_seconds"}, "viewers are told nothing of the hosts' equipment"
            viewer.told.clear()
            encoder.kill()
            await viewer.until("ingress.slate")
        async with publishing(protocol, pasted):
            await viewer.until("ingress.resumed")
            again = await gateway.stream(tracks=2)
            assert (again["id"], again["reconnects"]) == (session, 1)
            counted = {cause: await gateway.metric(_interruptions(protocol, cause)) for cause in ("silent", "closed")}
            assert counted["silent"] >= 1
            assert sum(counted.values()) >= 2
            assert await gateway.metric("ingress_interruption_seconds_count") == sum(counted.values())


def _interruptions(protocol: str, cause: str) -> str:
    return f'ingress_interruptions_total{{cause="{cause}",protocol="{protocol}"}}'


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_after_an_encoder_that_was_stopped_nobody_waits(protocol: str) -> None:
    async with running_gateway() as gateway, listening(gateway.url(CONNECT), CALL) as viewer:
        async with publishing(protocol, Pasted.of_gateway(gateway, CALL), version=9):
            await gateway.stream(tracks=2)
        left = await viewer.until("call.session_participant_left", timeout=10)
        assert left["payload"]["reason"] == "the encoder ended the stream"
        assert ("ingress.slate", "closed") not in told(viewer)
