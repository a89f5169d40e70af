"""One gateway and one Chromium for all tests of a module, and for each of them a call of its own in it, so that none disturbs another.

A module that uses `own` runs its tests in one event loop: `pytestmark = pytest.mark.asyncio(loop_scope="module")`. What `own` counts is
what has happened since its test began.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import pytest_asyncio

from tests.browser.chromium import FAKE_DEVICES, Chromium, running_chromium
from tests.support.delivery import dropped
from tests.support.gateway_process import GatewayProcess, running_gateway
from tests.support.publishing import Pasted
from tests.support.viewer import Viewer, watching

MOST = 60  # tests of a module
USED = count()


@dataclass(frozen=True)
class OwnCall:
    """A public call that no other test of the module uses; so are the names of its users."""

    gateway: GatewayProcess
    number: int
    exposition: str
    """The metrics as they were when the test began."""
    lost: float
    """Of them what the machine had dropped."""

    @property
    def cid(self) -> str:
        return f"livestream:own-{self.number}"

    def another(self) -> "OwnCall":
        """A second call of the same test."""
        return replace(self, number=next(USED) % MOST)

    def user(self, name: str = "host") -> str:
        return f"{name}-{self.number}"

    def key(self, name: str = "host") -> str:
        return self.gateway.key(self.cid, self.user(name))

    def pasted(self, name: str = "host") -> Pasted:
        return Pasted.of_gateway(self.gateway, self.cid, self.user(name))

    def rtmp(self, name: str = "host") -> str:
        return self.pasted(name).rtmp

    def page(self, kind: str = "watch") -> str:
        """The address of the call's watch or host page."""
        return self.gateway.url(f"/{kind}/{self.cid}")

    def watching(self, **how: Any) -> AbstractAsyncContextManager[Viewer]:
        return watching(self.gateway.url(f"/whep/{self.cid}"), **how)

    async def stream(self, name: str = "host", **how: Any) -> dict[str, Any]:
        """As `GatewayProcess.stream`."""
        return await self.gateway.stream(self.user(name), **how)

    async def rise(self, series: str) -> float:
        """By how much this metric is higher than when the test began."""
        return await self.gateway.metric(series) - GatewayProcess.value(self.exposition, series)

    async def dropped(self, *viewers: Viewer) -> float:
        """As `delivery.dropped`, since the test began."""
        return await dropped(self.gateway, *viewers) - self.lost


@asynccontextmanager
async def shared_gateway(*settings: str, secret: str = "") -> AsyncIterator[GatewayProcess]:
    """As `running_gateway`, with the calls of `own`."""
    calls = ",".join(f"livestream:own-{number}" for number in range(MOST))
    async with running_gateway(f"calls.public={calls}", *settings, secret=secret) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[GatewayProcess]:
    async with shared_gateway("calls.linger_s=5", "calls.stop_linger_s=5") as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def own(gateway: GatewayProcess) -> OwnCall:
    return OwnCall(gateway, next(USED) % MOST, await gateway.text("/metrics"), await dropped(gateway))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Chromium]:
    async with running_chromium() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def studio() -> AsyncIterator[Chromium]:
    """One that has a camera and a microphone."""
    async with running_chromium(*FAKE_DEVICES) as running:
        yield running
