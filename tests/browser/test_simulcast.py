"""A browser publishes several sizes at the host page; each watcher gets the one that its tile needs and its way carries, all untouched."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Page, Route, ViewportSize

from tests.browser.chromium import Chromium, until
from tests.browser.test_host import go_live, hosting
from tests.support.relay import Relay, relaying
from tests.support.shared import OwnCall
from tests.support.slow import slow

pytestmark = pytest.mark.asyncio(loop_scope="module")

LARGE, SMALL = (
    ViewportSize(width=1320, height=860),
    ViewportSize(width=260, height=400),
)  # tiles of about 1300 and of 240 pixels
LAYERS = {"h": 1280, "m": 640, "l": 320}
PATIENCE_S = 60  # Chromium encodes three layers on what the other processes leave it, and begins with the small ones


@asynccontextmanager
async def publishing(studio: Chromium, own: OwnCall, codec: str) -> AsyncIterator[None]:
    """A host with three layers, all of which have come."""
    async with hosting(studio, own) as (page, observed):
        await page.get_by_label("Codec").select_option(codec)
        await page.get_by_label("Send several sizes").set_checked(True)
        await go_live(page)
        stream = await own.stream(tracks=4, timeout=PATIENCE_S)
        assert {(track["codec"], track["width"], track["mode"]) for track in stream["tracks"]} >= {
            (codec, width, "passthrough") for width in LAYERS.values()
        }
        sent = await page.evaluate(
            "async () => [...(await publisher.peer.getStats()).values()].filter((each) => each.rid).map((each) => each.rid)"
        )
        assert sorted(sent) == sorted(LAYERS)
        yield
        assert not observed.complaints


async def shows(page: Page, *layers: str) -> None:
    """Waits until the picture that is decoded is of one of these layers, and the page says so."""
    widths = [LAYERS[layer] for layer in layers]
    await until(page, f"{widths}.includes(document.querySelector('video')?.videoWidth)", PATIENCE_S)


@pytest.mark.parametrize("codec", [slow("vp8"), "vp9", slow("av1")])  # and H.264 below
async def test_each_watcher_gets_the_layer_that_fills_its_tile(own: OwnCall, studio: Chromium, codec: str) -> None:
    async with (
        publishing(studio, own, codec),
        studio.open_page(own.page(), viewport=LARGE) as (large, _),
        studio.open_page(own.page(), viewport=SMALL) as (small, complaints),
    ):
        await shows(large, "h")
        await shows(small, "l")
        await small.get_by_role("button", name="Statistics").click()
        await until(small, r"/layer l: 320 × 180/.test(document.querySelector('pre').textContent)")
        await small.set_viewport_size({"width": 600, "height": 700})  # a larger window
        await shows(small, "m")
        await large.set_viewport_size(SMALL)
        await shows(large, "l")
        assert not complaints.complaints


async def through(page: Page, relay: Relay) -> None:
    """Load the page anew, with its media by way of the relay."""

    async def answer(route: Route) -> None:
        response = await route.fetch()
        body = await response.text()
        await route.fulfill(response=response, body=relay.through(body) if response.status == 201 else body)

    await page.route("**/whep/*", answer)
    await page.reload()


@pytest.mark.slow
async def test_a_watcher_whose_way_is_choked_goes_down_and_comes_up_again(own: OwnCall, studio: Chromium) -> None:
    async with (
        publishing(studio, own, "h264"),
        relaying(own.gateway.ports["webrtc"], loss=0, round_trip_s=0.02) as relay,
        studio.open_page(own.page(), viewport=LARGE) as (page, _),
    ):
        await through(page, relay)
        await shows(page, "h")
        relay.rate = 400_000
        await shows(page, "m", "l")
        relay.rate = 0
        await shows(page, "h")
