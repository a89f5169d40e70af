"""The host page: Chromium's fake camera and microphone are published from it, and other pages show and play them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from playwright.async_api import Page

from tests.browser.chromium import Chromium, Observed, decoded_frames, heard, moving_picture, open_page, state, until
from tests.support.gateway_process import running_gateway
from tests.support.publishing import over_whip
from tests.support.shared import OwnCall
from tests.support.slow import slow

pytestmark = pytest.mark.asyncio(loop_scope="module")

OWN = "#preview"
OTHER = "#tiles video"
SMALL = {  # everything is drawn by the processor, which has three encoders and a transcoder to run, too
    "width": 480,
    "height": 640,
}
SECRET = "kept over a restart, and long enough"


@asynccontextmanager
async def hosting(studio: Chromium, own: OwnCall, name: str = "host", key: str = "") -> AsyncIterator[tuple[Page, Observed]]:
    """The call's host page with its camera and microphone open, not live yet."""
    async with at_camera(studio, f"{own.page('host')}#token={key or own.key(name)}") as opened:
        yield opened


@asynccontextmanager
async def at_camera(studio: Chromium, address: str) -> AsyncIterator[tuple[Page, Observed]]:
    async with studio.open_page(address, viewport=SMALL) as (page, observed):
        await until(page, f"document.querySelector('{OWN}').videoWidth === 1280")
        yield page, observed


async def go_live(page: Page) -> None:
    await page.get_by_role("button", name="Go live").click()
    await state(page, "live")


@pytest.mark.parametrize("codec", ["", "vp8", slow("vp9"), slow("av1")])
async def test_a_browser_publishes_and_another_watches(own: OwnCall, studio: Chromium, codec: str) -> None:
    async with hosting(studio, own) as (page, observed):
        await page.get_by_label("Codec").select_option(codec)
        await page.get_by_label("Send several sizes").set_checked(False)
        await go_live(page)
        async with studio.open_page(own.page(), viewport=SMALL) as (watch, complaints):
            await state(watch, "live")
            await watch.get_by_role("button", name="Turn sound on").click()
            assert await moving_picture(watch, frames=15, timeout_s=60)  # what the fake camera shows repeats each second
            await until(watch, "document.querySelector('video').currentTime > 1")
            assert await decoded_frames(watch) > 20
            await heard(watch)
            stream = await own.stream(tracks=2)
            assert {(track["codec"], track["mode"]) for track in stream["tracks"]} == {
                ("opus", "passthrough"),
                (codec or "h264", "passthrough"),
            }
            await watch.get_by_role("button", name="Statistics").click()
            await until(watch, f"/video {(codec or 'h264').upper()} /.test(document.querySelector('pre').textContent)")
            assert not complaints.complaints
        answer = await page.evaluate("publisher.peer.remoteDescription.sdp")
        assert "a=rtcp-fb:111 nack\r\n" in answer  # lost sound is sent again
        assert not observed.complaints


async def test_the_link_to_the_watch_page_watches_and_cannot_publish(own: OwnCall, studio: Chromium) -> None:
    async with hosting(studio, own) as (page, _):
        await until(page, "document.getElementById('watch').hash.startsWith('#token=')")
        link = await page.locator("#watch").get_attribute("href")
        assert link is not None
        shown = link.partition("#token=")[2]
        assert shown != own.key()
        assert (await over_whip(own.gateway, shown, own.cid))[0] == 403
        await page.goto(own.gateway.url(link))
        await page.goto(page.url.replace("/watch/", "/host/"))  # nor by the page for hosts
        await page.get_by_role("button", name="Go live").click()
        await state(page, "error")


async def test_level_bitrate_loss_and_round_trip_are_shown_and_it_ends_as_it_is_told(own: OwnCall, studio: Chromium) -> None:
    async with hosting(studio, own) as (page, observed):
        assert await moving_picture(page, tile=OWN)
        await until(page, "document.getElementById('level').value > 0.2")  # the fake microphone beeps
        await go_live(page)
        figures = r"/Picture\n1280 × 720, \d+ fps, [1-9]\d* kbit\/s\nSound\n[1-9]\d* kbit\/s\nLoss\n\d+\.\d %\nRound trip\n\d+\.\d ms/"
        await until(page, f"{figures}.test(document.getElementById('figures').innerText)")
        await page.get_by_role("button", name="Mute").click()
        await until(page, "document.getElementById('level').value < 0.1")
        await page.get_by_role("button", name="Stop").click()
        await state(page, "idle")
        await own.gateway.logged("the encoder ended the stream")
        assert not observed.complaints


async def test_two_hosts_see_and_hear_each_other_and_not_themselves(own: OwnCall, studio: Chromium) -> None:
    async with AsyncExitStack() as stack:
        pages = {user: (await stack.enter_async_context(hosting(studio, own, user)))[0] for user in ("ann", "bob")}
        for page in pages.values():
            await go_live(page)
        for user, other in (("ann", "bob"), ("bob", "ann")):
            page = pages[user]
            await page.get_by_label(f"Video of {own.user(other)}").wait_for()
            await page.get_by_role("button", name="Turn sound on").click()
            assert await moving_picture(page, tile=OTHER)
            await until(page, f"document.querySelector('{OTHER}').currentTime > 1")
            await heard(page)
            assert await page.locator(".name").all_inner_texts() == [own.user(other)]


async def test_what_is_sent_can_be_changed_on_air(own: OwnCall, studio: Chromium) -> None:
    async with hosting(studio, own) as (page, observed):
        asked: list[str] = []

        def note(what: str, url: str) -> None:
            if "/whip/" in url:
                asked.append(what)

        page.on("request", lambda request: note(request.method, request.url))
        page.on("response", lambda response: note(f"{response.request.method} done", response.url))
        await go_live(page)
        async with studio.open_page(own.page(), viewport=SMALL) as (watch, _):
            await state(watch, "live")
            await page.get_by_role("combobox", name="Picture").select_option("Screen or window")
            await until(page, "publisher.peer.getSenders().some((sender) => sender.track?.contentHint === 'detail')")
            await page.get_by_role("combobox", name="Picture").select_option("None")
            await own.stream(wanted=lambda stream: [track["kind"] for track in stream["tracks"]] == ["audio"])
            await page.get_by_role("combobox", name="Picture").select_option(index=0)
            await own.stream(tracks=2)
            assert await moving_picture(watch)
        once = ["POST", "POST done", "DELETE", "DELETE done"]
        assert asked == [*once, *once, "POST", "POST done"], "two at once would be two encoders with one key"
        assert not observed.complaints


async def test_it_comes_back_when_the_gateway_does(studio: Chromium) -> None:
    async with AsyncExitStack() as stack:
        async with running_gateway(secret=SECRET) as gateway:
            address = gateway.url(f"/host/livestream:demo#token={gateway.key()}")
            page, _ = await stack.enter_async_context(at_camera(studio, address))
            await go_live(page)
            await gateway.stream(tracks=2)
            ports = gateway.ports
        await state(page, "reconnecting")
        again = await stack.enter_async_context(running_gateway(f"http.port={ports['http']}", secret=SECRET))
        await state(page, "live", 30)
        await again.stream(tracks=2)
        watch, _ = await stack.enter_async_context(studio.open_page(again.url("/watch/livestream:demo")))
        await state(watch, "live")
        assert await moving_picture(watch)


@pytest.mark.slow
async def test_who_is_taken_over_stays_off_until_told_otherwise(own: OwnCall, studio: Chromium) -> None:
    async with hosting(studio, own) as (first, _), hosting(studio, own) as (second, _):
        await go_live(first)
        await own.stream(tracks=2)
        await go_live(second)
        await state(first, "error")
        await first.get_by_text("from another place").wait_for()
        await own.stream(tracks=2)
        await go_live(first)
        await state(second, "error")


async def test_a_refusal_is_told_in_the_words_of_the_gateway(own: OwnCall, studio: Chromium) -> None:
    async with hosting(studio, own, key="eyJ.x.y") as (page, _):
        await page.get_by_role("button", name="Go live").click()
        await state(page, "error")
        await page.get_by_text("looks cut off or damaged").wait_for()
        assert await page.get_by_role("button", name="Go live").is_visible()


async def test_it_says_that_the_stream_is_not_shown_and_which_setting_it_is(studio: Chromium) -> None:
    async with running_gateway("slate.low_bitrate_bps=1000000000", "slate.low_bitrate_s=1") as gateway:
        async with at_camera(studio, gateway.url(f"/host/livestream:demo#token={gateway.key()}")) as (page, observed):
            await go_live(page)
            advice = page.get_by_role("list", name="What to change")
            await advice.get_by_text("too little comes of it").wait_for()
            assert "slate.low_bitrate_bps" in await advice.inner_text()
            await page.get_by_role("button", name="Stop").click()
            await advice.wait_for(state="hidden")
            assert not observed.complaints


async def test_without_devices_it_says_so(own: OwnCall) -> None:
    address = f"{own.page('host')}#token={own.key()}"
    async with open_page(address, "--use-fake-ui-for-media-stream") as (page, _):
        await page.get_by_text("There is no camera or microphone").wait_for()
        assert await page.get_by_role("button", name="Go live").is_disabled()
