"""The gateway and the Chromium that the tests of a module share."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.browser.chromium import FAKE_DEVICES, Chromium, running_chromium
from tests.support.gateway_process import GatewayProcess
from tests.support.shared import own, shared_gateway

__all__ = ["own"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[GatewayProcess]:
    async with shared_gateway("calls.linger_s=1") as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Chromium]:
    async with running_chromium() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def studio() -> AsyncIterator[Chromium]:
    """One that has a camera and a microphone."""
    async with running_chromium(*FAKE_DEVICES) as running:
        yield running
