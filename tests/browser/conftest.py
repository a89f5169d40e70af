"""The gateway and the Chromium that the tests of a module share."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.support.gateway_process import GatewayProcess
from tests.support.shared import chromium, own, shared_gateway, studio

__all__ = ["chromium", "own", "studio"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[GatewayProcess]:
    async with shared_gateway("calls.linger_s=1") as running:
        yield running
