"""Messages and reactions on the watch page, in a real browser against a gateway that does as told."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page

from tests.browser.chromium import Chromium, state, until
from tests.browser.fake import FakeGateway, fake_gateway
from tests.browser.test_pages import PHONE, clean, fits
from tests.support.gateway_process import running_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

ALL = ["send-event", "create-reaction"]
VERA = {"id": "vera", "name": "", "role": "user"}
JOHN = {"id": "john", "name": "John", "role": "user"}


@pytest_asyncio.fixture(loop_scope="module")
async def gateway() -> AsyncIterator[FakeGateway]:
    async with fake_gateway() as fake:
        yield fake


def watch(gateway: FakeGateway, token: str = "") -> str:
    return f"{gateway.address}/watch/livestream:demo{'#token=' + token if token else ''}"


async def messages(page: Page) -> list[str]:
    return list(await page.locator("#messages p").all_inner_texts())


async def said(page: Page, n: int) -> None:
    await until(page, f"document.querySelectorAll('#messages li').length === {n}")


async def test_viewers_write_and_react_and_what_they_say_is_text(chromium: Chromium, gateway: FakeGateway) -> None:
    gateway.capabilities = ALL
    attack = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    async with chromium.open_page(watch(gateway, "a.b.c")) as (page, observed):
        await page.get_by_label("Your message").fill("  hello ")
        await page.get_by_role("button", name="Send").click()
        assert await gateway.heard("authenticate") == {"type": "authenticate", "token": "a.b.c"}
        assert (await gateway.heard("custom"))["custom"] == {"text": "hello"}
        await until(page, "document.getElementById('text').value === ''")
        await gateway.tell("custom", user=VERA, custom={"text": "hello"})
        await gateway.tell("custom", user=JOHN, custom={"poll": 1})  # an application's own: not a message
        await gateway.tell("custom", user=JOHN | {"name": attack}, custom={"text": attack, "colour": "red"})
        await gateway.tell("custom", user={"id": ""}, custom={"text": "x" * 5000})
        await said(page, 3)
        assert await messages(page) == ["hello", attack, "x" * 500]
        assert await page.locator("#messages b").all_inner_texts() == ["vera", attack[:64], "Guest"]
        assert await page.locator("#messages li.own").count() == 1
        assert await page.locator("#messages img, #messages script").count() == 0

        await page.get_by_role("button", name="React: applause").click()
        assert (await gateway.heard("reaction"))["reaction"] == {"type": "applause"}
        for kind in ("applause", "of-an-app"):
            await gateway.tell("call.reaction_new", user=JOHN, reaction={"type": kind})
        await until(page, "document.querySelectorAll('#floating span').length === 2")
        assert await page.locator("#floating span").all_inner_texts() == ["👏", "✨"]
        await until(page, "document.querySelectorAll('#floating span').length === 0")

        gateway.answer = {"type": "error", "message": "you may send 5 a second: wait a moment"}
        await page.get_by_label("Your message").fill("once more")
        await page.keyboard.press("Enter")
        await page.get_by_text("wait a moment").wait_for()
        assert await page.get_by_label("Your message").input_value() == "once more"
        assert clean(observed, gateway)


async def test_who_may_not_write_reads_and_everything_is_asked_again_when_the_call_changes(
    chromium: Chromium, gateway: FakeGateway
) -> None:
    gateway.refusal = (403, {"detail": "the call is in backstage"})
    gateway.participants = [("p1", "Host")]
    async with chromium.open_page(watch(gateway)) as (page, _):
        await gateway.heard("subscribe")
        await state(page, "error")
        assert not await page.locator("#chat").is_visible()
        await gateway.tell("custom", user=JOHN, custom={"text": "welcome"})
        await page.get_by_text("welcome").wait_for()
        assert not await page.get_by_label("Your message").is_visible()
        assert not await page.locator("#reactions").is_visible()

        gateway.refusal, gateway.capabilities = None, ALL
        await gateway.tell("call.live_started")
        await state(page, "live")  # what was in backstage is watched as it goes live
        await page.get_by_label("Your message").wait_for()
        await gateway.tell("call.viewers_changed", viewers=12)
        await page.get_by_text("12 watching").wait_for()

        gateway.said.clear()
        await gateway.sockets[0].close(code=1001)
        await gateway.heard("subscribe")  # it has come back
        await gateway.tell("custom", user=JOHN, custom={"text": "here again"})
        await page.get_by_text("here again").wait_for()
        await gateway.sockets[0].send_json(
            {"type": "subscription.ended", "cid": "livestream:demo", "message": "you are blocked"}
        )
        await page.get_by_text("you are blocked").wait_for()
        assert not await page.get_by_label("Your message").is_visible()


@pytest.mark.parametrize("how", ["told", "allowed"])
async def test_a_call_that_goes_live_while_the_page_is_being_refused_is_watched(
    chromium: Chromium, gateway: FakeGateway, how: str
) -> None:
    gateway.refusal, gateway.answering = (403, {"detail": "the call is in backstage"}), asyncio.Event()
    gateway.participants = [("p1", "Host")]
    gateway.capabilities = ["join-call"] if how == "allowed" else []  # it goes live before the page subscribes, or after
    async with chromium.open_page(watch(gateway)) as (page, _):
        await gateway.heard("subscribe")
        await until(page, "document.getElementById('state').dataset.state === 'connecting'")
        if how == "told":
            await gateway.tell("call.live_started")
        gateway.refusal = None
        gateway.answering.set()
        await state(page, "live")
        assert len(gateway.asked) == 2


async def test_what_was_written_before_is_shown_once(chromium: Chromium, gateway: FakeGateway) -> None:
    gateway.recent = [gateway.event("custom", user=JOHN, custom={"text": text}) for text in ("one", "two")]
    async with chromium.open_page(watch(gateway)) as (page, _):
        await said(page, 2)
        await gateway.tell("custom", user=VERA, custom={"text": "three"})
        await said(page, 3)
        gateway.said.clear()
        await gateway.tell("call.live_started")  # it asks anew
        await gateway.heard("subscribe")
        await gateway.tell("custom", user=VERA, custom={"text": "four"})
        await said(page, 4)
        assert await messages(page) == ["one", "two", "three", "four"]


async def test_lists_are_bounded_and_all_fits_and_is_reached_by_keyboard(chromium: Chromium, gateway: FakeGateway) -> None:
    gateway.capabilities = ALL
    gateway.participants = [("p1", "Host")]
    async with chromium.open_page(watch(gateway, "a.b.c"), viewport=PHONE) as (page, observed):
        await state(page, "live")
        await gateway.heard("subscribe")
        for n in range(230):
            await gateway.tell("custom", user=JOHN, custom={"text": f"message {n}"})
            await gateway.tell("call.reaction_new", user=JOHN, reaction={"type": "like"})
        await page.get_by_text("message 229", exact=True).wait_for()
        assert (await messages(page))[0] == "message 30"
        assert await page.locator("#floating span").count() <= 40
        assert await page.evaluate(_AT_END)
        await page.evaluate("document.getElementById('messages').scrollTop = 0")
        await gateway.tell("custom", user=JOHN, custom={"text": "w" * 400})
        await page.get_by_text("w" * 400).wait_for(state="attached")
        assert not await page.evaluate(_AT_END), "who reads further up is left there"

        for width in (PHONE["width"], 1400):
            await page.set_viewport_size({"width": width, "height": 740})
            assert await fits(page)
        reached = []
        for _ in range(11):
            await page.keyboard.press("Tab")
            reached.append(await page.evaluate(_FOCUSED))
        reactions = [f"React: {each}" for each in ("like", "love", "laugh", "applause", "party")]
        assert reached[3:] == ["Messages", *reactions, "Your message", "Send"]
        assert clean(observed, gateway)


async def test_with_a_real_gateway_one_page_writes_and_another_reads(chromium: Chromium) -> None:
    async with running_gateway() as gateway:
        vera = gateway.tokens.issue("vera", ["livestream:demo"], 600, "viewer")
        watch = gateway.url("/watch/livestream:demo")
        async with chromium.open_page(watch) as (reader, observed):
            writer = await reader.context.new_page()
            await writer.goto(f"{watch}#token={vera}")
            await writer.get_by_label("Your message").fill("hello from Vera")
            await until(reader, "!document.getElementById('viewers').hidden")  # it listens
            await writer.get_by_role("button", name="Send").click()
            await writer.get_by_role("button", name="React: party").click()
            await reader.get_by_text("hello from Vera").wait_for()
            await until(reader, "document.querySelectorAll('#floating span').length === 1")
            assert await reader.locator("#messages b").all_inner_texts() == ["vera"]
            assert not await reader.get_by_label("Your message").is_visible(), "anybody may only watch here"
            assert observed.complaints == []


_AT_END = "(list => list.scrollHeight - list.scrollTop - list.clientHeight < 40)(document.getElementById('messages'))"
_FOCUSED = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText"
