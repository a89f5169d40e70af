"""Clocks that are not live's, over RTMP through a running gateway: what comes is shown as it comes, picture and sound alike, and the
streamer reads what is wrong. The files: `tests/data/faults/README.md`."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.support.delivery import assert_delivered, assert_shown, dropped
from tests.support.flv import arrivals, tags
from tests.support.gateway_process import GatewayProcess
from tests.support.rtmp_client import rtmp_client
from tests.support.shared import shared_gateway
from tests.support.viewer import watching

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOLD_WITHIN_S = 6.0
ENDING = 12  # frames of sound that may be under way where the stream ends
HEARD = 0.95
TOO_LATE = "frames came too late and were dropped."


@dataclass(frozen=True)
class Fault:
    """`pictures` from 0 and `sound` in seconds of media are shown; `finding` is what the streamer reads."""

    name: str
    pictures: int
    sound: float
    finding: str


FAULTS = (
    Fault("rtmp-clock-0.8x", 160, 6.4, "The encoder is slower than real time (0.8"),
    Fault("rtmp-15-as-25", 90, 6, "The picture's time stamps run slower than real time (0.6"),
    Fault("rtmp-times-0", 100, 4, "The time stamps stand still"),
)

THERE = ("live", "stalled", "slate")  # an encoder that is through with its script sends nothing


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[GatewayProcess]:
    """What is counted are pictures of the encoders."""
    async with shared_gateway("slate.enabled=false") as running:
        yield running


async def test_what_comes_is_shown_and_the_clock_is_told(gateway: GatewayProcess) -> None:
    await asyncio.gather(*(_shown_and_told(gateway, fault) for fault in FAULTS))


async def _shown_and_told(gateway: GatewayProcess, fault: Fault) -> None:
    user, call = fault.name, f"livestream:own-{FAULTS.index(fault)}"
    sound = round(fault.sound * 50) - ENDING
    async with (
        watching(gateway.url(f"/whep/{call}")) as viewer,
        rtmp_client(gateway.ports["rtmp"], gateway.key(call, user)) as client,
        asyncio.TaskGroup() as tasks,
    ):
        told = tasks.create_task(gateway.logged(fault.finding, TOLD_WITHIN_S, user=user))
        await client.send(tags(fault.name), arrivals(fault.name))
        await viewer.until_number(fault.pictures - 2)
        await viewer.until_sounding(round(sound * HEARD - await dropped(gateway, viewer)))
        stream = await gateway.stream(user, tracks=2, states=THERE)
        assert not client.over.is_set(), "the stream stays live to its end"
        lost = await dropped(gateway, viewer)
    assert_shown(viewer.numbers, 0, fault.pictures - 2, lost)
    assert_delivered(sound, viewer.sounding, lost, share=HEARD)
    assert told.result()["lack"] == "clock"
    expected = (fault.finding, *([TOO_LATE] if lost else []))  # stamps that run slow leave a stall of this machine less room
    assert all(any(words in warning for words in expected) for warning in stream["warnings"]), stream["warnings"]
    assert any(fault.finding in warning for warning in stream["warnings"])
