"""The pages in a real browser, against a gateway that does as told."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page

from tests.browser.chromium import Chromium, Observed, decoded_frames, heard, moving_picture, state, until
from tests.browser.fake import FakeGateway, fake_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

PHONE = {"width": 360, "height": 740}


@pytest_asyncio.fixture(loop_scope="module")
async def gateway() -> AsyncIterator[FakeGateway]:
    async with fake_gateway() as fake:
        yield fake


def stream(**changes: Any) -> dict[str, Any]:
    track = {
        "kind": "video",
        "codec": "h264",
        "width": 1280,
        "height": 720,
        "frame_rate": 29.97,
        "sample_rate": 0,
        "channels": 0,
    }
    treated = {
        "mode": "transcode",
        "reason": "b_frames",
        "why": "It has B-frames.",
        "advice": "Set B-frames to 0 in the encoder.",
    }
    return {
        "id": "s1",
        "call": "livestream:demo",
        "user": "host",
        "protocol": "rtmp",
        "software": "obs <b>32</b>",
        "started_at": "2026-11-25T10:00:00+00:00",
        "state": "live",
        "bitrate_bps": 2_500_000,
        "tracks": [{**track, **treated, "delay_ms_p50": 4.2, "delay_ms_p95": 9.0}],
        "viewers": 3,
        "warnings": ["Key frames come only every 10 s."],
        "rank": 1,
        "role": "primary",
        "standbys": [],
    } | changes


async def fits(page: Page) -> bool:
    """Nothing sticks out to the right."""
    return bool(await page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def clean(observed: Observed, gateway: FakeGateway) -> bool:
    return not observed.complaints and observed.hosts == {gateway.address.removeprefix("http://")}


async def test_list_says_how_each_stream_is_treated_and_what_to_change(chromium: Chromium, gateway: FakeGateway) -> None:
    gateway.streams = [stream()]
    async with chromium.open_page(gateway.address) as (page, observed):
        card = page.get_by_role("article", name="livestream:demo – host")
        await card.wait_for()
        text = await card.inner_text()
        for expected in (
            "RTMP, obs <b>32</b>",
            "2.50 Mbit/s",
            "H.264, 1280 × 720, 30 fps",
            "transcoded: It has B-frames.",
            "4.2 ms (95 %: 9.0 ms)",
        ):
            assert expected in text
        assert await card.get_by_role("listitem").all_inner_texts() == [
            "Set B-frames to 0 in the encoder.",
            "Key frames come only every 10 s.",
        ]
        assert await card.get_by_role("link", name="Watch livestream:demo").get_attribute("href") == "/watch/livestream%3Ademo"
        assert await page.get_by_role("status").inner_text() == "1 stream"
        assert clean(observed, gateway)


async def test_list_follows_streams_that_come_and_go(chromium: Chromium, gateway: FakeGateway) -> None:
    async with chromium.open_page(gateway.address) as (page, observed):
        await page.get_by_text("Nothing is live yet").wait_for()
        assert await page.get_by_role("link", name="Watch livestream:demo").is_visible()  # the public call
        gateway.streams = [stream(), stream(id="s2", user="guest")]
        await page.get_by_role("article", name="livestream:demo – guest").wait_for()
        link = page.get_by_role("article").first.get_by_role("link")
        await link.focus()
        gateway.streams = [stream(viewers=7)]
        await page.get_by_role("article", name="livestream:demo – guest").wait_for(state="detached")
        await until(page, "document.querySelector('article').innerText.includes('7')")
        assert await link.evaluate("link => link === document.activeElement")  # an update takes nobody's focus
        assert clean(observed, gateway)


async def test_watch_plays_moving_pictures_with_sound_and_figures(chromium: Chromium, gateway: FakeGateway) -> None:
    gateway.participants = [("p1", "Host")]
    async with chromium.open_page(f"{gateway.address}/watch/livestream:demo") as (page, observed):
        await state(page, "live")
        await until(page, "document.querySelector('video').videoWidth === 320")
        await page.get_by_role("button", name="Turn sound on").click()
        assert await moving_picture(page)
        frames = await decoded_frames(page)
        await page.get_by_role("button", name="Statistics").click()
        flow = r"\w+ \d+ kbit\/s, loss 0\.0 %, buffer \d+ ms"
        figures = rf"/320 × 180, \d+ fps\nvideo {flow}\nrtt [\d.]+ ms, dropped \d+, freezes \d+\naudio {flow}/"
        await until(page, f"{figures}.test(document.querySelector('pre').textContent)")
        assert await decoded_frames(page) > frames
        await heard(page)
        assert not await page.evaluate("document.querySelector('video').muted")
        assert await page.get_by_role("button", name="Host in full screen").is_visible()
        assert await page.title() == "livestream:demo – watch"
        assert clean(observed, gateway)


async def test_watch_tells_how_large_its_pictures_are_in_pixels_of_the_screen(chromium: Chromium, gateway: FakeGateway) -> None:
    gateway.participants = [("p1", "Host")]
    address = f"{gateway.address}/watch/livestream:demo"
    async with chromium.open_page(address, viewport=PHONE, device_scale_factor=2) as (page, observed):
        await state(page, "live")
        await gateway.until_size(lambda size: size["mediaId"] == "0" and 600 < size["width"] <= 720)
        await page.set_viewport_size({"width": 200, "height": 740})
        await gateway.until_size(lambda size: size["width"] < 400)
        assert abs(gateway.sizes[-1]["width"] * 9 / 16 - gateway.sizes[-1]["height"]) < 2
        told = len(gateway.sizes)
        await page.evaluate("viewer.again()")  # a connection that is new knows nothing
        await gateway.until_size(lambda size: len(gateway.sizes) > told)
        assert gateway.sizes[-1] == gateway.sizes[told - 1]
        assert clean(observed, gateway)


async def test_watch_says_of_a_picture_that_the_browser_cannot_show_which_codec_it_has(
    chromium: Chromium, gateway: FakeGateway
) -> None:
    gateway.participants, gateway.unplayable = [("p1", "Host")], {"p1": "av1"}
    async with chromium.open_page(f"{gateway.address}/watch/livestream:demo") as (page, observed):
        await state(page, "live")
        await page.get_by_text("This browser cannot show AV1.").wait_for()
        gateway.unplayable = {}
        await gateway.show(("p1", "Host"))
        await until(page, "document.querySelector('.no-picture').hidden")
        assert await moving_picture(page)
        assert clean(observed, gateway)


async def test_watch_says_who_is_muted_to_those_who_come_later_too(chromium: Chromium, gateway: FakeGateway) -> None:
    gateway.participants, gateway.muted = [("p1", "Host")], {"p1": {"audio", "video"}}
    async with chromium.open_page(f"{gateway.address}/watch/livestream:demo") as (page, observed):
        await page.get_by_text("Picture muted").wait_for()
        assert await page.locator(".tile .muted").inner_text() == "Muted"
        gateway.muted = {"p1": {"audio"}}
        await gateway.show(("p1", "Host"))
        await page.get_by_text("Sound muted").wait_for()
        assert await page.locator(".no-picture").is_hidden()
        gateway.muted = {}
        await gateway.show(("p1", "Host"))
        await page.locator(".tile .muted").wait_for(state="hidden")
        assert await moving_picture(page)
        assert clean(observed, gateway)


async def test_watch_has_a_tile_for_each_participant_and_asks_for_more_when_they_do_not_fit(
    chromium: Chromium, gateway: FakeGateway
) -> None:
    gateway.participants = [(f"p{n}", f"Guest {n}") for n in range(5)]
    async with chromium.open_page(f"{gateway.address}/watch/livestream:demo", viewport=PHONE) as (page, observed):
        await until(page, "document.querySelectorAll('.tile').length === 5")
        assert [pairs for pairs, _ in gateway.asked] == [4, 8]
        await gateway.show(("p1", "Guest 1"), ("p4", "Guest 4"))
        await until(page, "document.querySelectorAll('.tile').length === 2")
        assert await page.locator(".name").all_inner_texts() == ["Guest 1", "Guest 4"]
        await gateway.show()
        await state(page, "waiting")
        assert await page.get_by_text("Waiting for the stream to start").is_visible()
        assert clean(observed, gateway)


async def test_watch_comes_back_when_the_connection_breaks_off(chromium: Chromium, gateway: FakeGateway) -> None:
    gateway.participants = [("p1", "Host")]
    async with chromium.open_page(f"{gateway.address}/watch/livestream:demo") as (page, _):
        await state(page, "live")
        await gateway.peers[0].close()
        await state(page, "reconnecting")
        await state(page, "live")
        assert len(gateway.peers) == 2
        await until(page, "document.querySelector('video').videoWidth === 320")


async def test_watch_tells_a_refusal_in_the_words_of_the_gateway_and_stops(chromium: Chromium, gateway: FakeGateway) -> None:
    gateway.refusal = (401, {"title": "unauthorized", "detail": "This call needs a token to watch"})
    async with chromium.open_page(f"{gateway.address}/watch/livestream:demo") as (page, _):
        await state(page, "error")
        await page.get_by_text("This call needs a token to watch").wait_for()
        assert len(gateway.asked) == 1


async def test_watch_tries_again_when_the_gateway_is_full(chromium: Chromium, gateway: FakeGateway) -> None:
    gateway.refusal = (503, {"detail": "Too many viewers"})
    async with chromium.open_page(f"{gateway.address}/watch/livestream:demo") as (page, _):
        await state(page, "reconnecting")
        gateway.refusal = None
        gateway.participants = [("p1", "Host")]
        await state(page, "live")


async def test_watch_sends_its_token_as_bearer_and_says_goodbye(chromium: Chromium, gateway: FakeGateway) -> None:
    gateway.participants = [("p1", "Host")]
    async with chromium.open_page(f"{gateway.address}/watch/livestream:demo#token=a.b.c") as (page, _):
        await state(page, "live")
        await page.goto("about:blank")
        await gateway.deleted.wait()
    assert gateway.asked == [(4, "Bearer a.b.c")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/", "/watch/livestream:demo", "/host/livestream:demo"])
async def test_pages_have_contrast_and_fit_a_phone(chromium: Chromium, gateway: FakeGateway, scheme: str, path: str) -> None:
    gateway.streams = [stream(call="livestream:" + "x" * 64)]
    async with chromium.open_page(f"{gateway.address}{path}", viewport=PHONE, color_scheme=scheme) as (page, observed):
        await page.locator("article, [data-state=waiting], #notice.error").first.wait_for()
        assert await fits(page)
        light = await page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(246, 247, 249)"
        assert light == (scheme == "light")
        assert await page.evaluate(_LOWEST_CONTRAST) >= 4.5  # WCAG 2.2 §1.4.3
        assert clean(observed, gateway)


async def test_everything_is_reached_by_keyboard(chromium: Chromium, gateway: FakeGateway) -> None:
    gateway.participants = [("p1", "Host")]
    async with chromium.open_page(f"{gateway.address}/watch/livestream:demo") as (page, _):
        await state(page, "live")
        reached = []
        for _ in range(3):
            await page.keyboard.press("Tab")
            reached.append(
                await page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText")
            )
        assert reached == ["Turn sound on", "Statistics", "Host in full screen"]


_LOWEST_CONTRAST = """() => {
    const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
    const luminance = (color) => {
        const [r, g, b] = numbers(color).map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (element) => {
        for (let each = element; each; each = each.parentElement) {
            const color = getComputedStyle(each).backgroundColor;
            if ((numbers(color)[3] ?? 1) > 0) return color;
        }
    };
    const texts = [...document.querySelectorAll("body *")].filter((each) =>
        each.checkVisibility() && [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
    return Math.min(...texts.map((each) => {
        const [low, high] = [luminance(getComputedStyle(each).color), luminance(ground(each))].sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
    }));
}"""
