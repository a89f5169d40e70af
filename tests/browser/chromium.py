"""Headless Chromium that looks at our pages: what it decodes, hears and shows, and everything it complains of."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy
from PIL import Image
from playwright.async_api import Browser, Page, async_playwright

from tests.support.waiting import eventually

EXECUTABLE = "/usr/bin/chromium"
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests run as root
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--autoplay-policy=no-user-gesture-required",
)
FAKE_DEVICES = (
    "--use-fake-device-for-media-stream",  # a moving clock that beeps
    "--use-fake-ui-for-media-stream",  # whoever asks may use them
    "--auto-select-desktop-capture-source=Entire screen",
)

_INBOUND = """async (kind) => {
    if (!globalThis.viewer?.peer) return [];
    const reports = [...(await viewer.peer.getStats()).values()];
    return reports.filter((report) => report.type === "inbound-rtp" && report.kind === kind);
}"""
_PAINTED = """([selector, frames]) => new Promise((resolve) => {
    const video = document.querySelector(selector);
    const step = () => frames-- > 0 ? video.requestVideoFrameCallback(step) : resolve(true);
    step();
})"""


@dataclass(slots=True)
class Observed:
    """What the browser complained of, and which hosts it asked, while a page was open."""

    complaints: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Chromium:
    """One that runs; its pages know nothing of each other."""

    browser: Browser

    @asynccontextmanager
    async def open_page(self, address: str, **context: Any) -> AsyncIterator[tuple[Page, Observed]]:
        """A page at `address`, as of a browser never used before; `context` as for playwright's `new_context` (viewport, ...)."""
        made = await self.browser.new_context(**context)
        try:
            page = await made.new_page()
            observed = Observed()
            page.on("console", lambda message: observed.complaints.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: observed.complaints.append(str(error)))
            page.on("request", lambda request: observed.hosts.add(urlsplit(request.url).netloc))
            await page.goto(address)
            yield page, observed
        finally:
            await made.close()


@asynccontextmanager
async def running_chromium(*flags: str) -> AsyncIterator[Chromium]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=EXECUTABLE, args=[*FLAGS, *flags])
        try:
            yield Chromium(browser)
        finally:
            await browser.close()


@asynccontextmanager
async def open_page(address: str, *flags: str, **context: Any) -> AsyncIterator[tuple[Page, Observed]]:
    """As `Chromium.open_page`, in one of its own, started with more `flags`."""
    async with running_chromium(*flags) as chromium, chromium.open_page(address, **context) as opened:
        yield opened


async def until(page: Page, expression: str, timeout_s: float = 60) -> None:
    """Waits until the JavaScript `expression` is true in the page, looked at with each frame it paints.

    Raises `TimeoutError`, with what the page shows."""
    # Not wait_for_function: it compiles the expression anew each time, which our own Content Security Policy forbids.
    look = f"() => new Promise((resolve) => {{ const look = () => ({expression}) ? resolve() : requestAnimationFrame(look); look(); }})"
    try:
        async with asyncio.timeout(timeout_s):
            await page.evaluate(look)
    except TimeoutError:
        async with asyncio.timeout(timeout_s):
            shown = await page.evaluate("document.body.innerText")
        raise TimeoutError(f"not so within {timeout_s} s: {expression}. The page shows: {shown}") from None


async def state(page: Page, wanted: str, timeout_s: float = 60) -> None:
    """Waits until the page says that it is `wanted`: idle, connecting, waiting, live, reconnecting or error."""
    await until(page, f"document.getElementById('state').dataset.state === '{wanted}'", timeout_s)


async def inbound(page: Page, kind: str) -> list[dict[str, Any]]:
    """The `inbound-rtp` statistics of the watch page's connection (W3C webrtc-stats)."""
    reports: list[dict[str, Any]] = await page.evaluate(_INBOUND, kind)
    return reports


async def decoded_frames(page: Page) -> int:
    return sum(report.get("framesDecoded", 0) for report in await inbound(page, "video"))


async def heard(page: Page) -> None:
    """Waits until something else than silence has been played out (`totalAudioEnergy`)."""

    async def energy() -> float:
        return float(sum(report.get("totalAudioEnergy", 0.0) for report in await inbound(page, "audio")))

    await eventually(energy)


async def moving_picture(page: Page, frames: int = 10, timeout_s: float = 60, tile: str = "video") -> bool:
    """Whether the first video that matches `tile` shows moving pictures soon: two screenshots `frames` apart differ, neither is flat.

    One pair may be alike by chance, because what a fake camera shows repeats each second; one that stands still is always like itself.
    """
    video = page.locator(tile).first
    try:
        async with asyncio.timeout(timeout_s):
            await page.evaluate(_PAINTED, [tile, 1])
            after = _pixels(await video.screenshot())
            while True:
                before = after
                await page.evaluate(_PAINTED, [tile, frames])
                after = _pixels(await video.screenshot())
                if before.shape == after.shape and _differ(before, after):
                    return True
    except TimeoutError:
        return False


def _differ(before: Any, after: Any) -> bool:
    return bool(min(before.std(), after.std()) > 10 and numpy.mean(numpy.abs(before - after) > 16) > 0.005)


def _pixels(png: bytes) -> Any:
    return numpy.asarray(Image.open(io.BytesIO(png)).convert("L"), dtype=numpy.int16)
