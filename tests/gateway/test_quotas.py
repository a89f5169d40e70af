"""Calls, and requests for lists, in a loop are told to wait, with the configuration that a gateway has by itself."""

from typing import Any

from gateway.config import Config
from tests.support.application import Application, running_application

ENOUGH = 300


async def until_refused(application: Application, method: str, path: str, body: Any = None) -> tuple[int, str]:
    """How many requests of Ann were answered before one was not, and the refusal."""
    for number in range(ENOUGH):
        status, answer = await application.ask(method, path.format(number), body, user="ann")
        if status == 429:
            return number, answer["message"]
        assert status in (200, 201), answer
    raise AssertionError(f"{ENOUGH} requests, and none was refused")


async def test_who_makes_calls_or_asks_for_lists_in_a_loop_is_told_to_wait() -> None:
    quotas = Config().quotas
    async with running_application() as application:
        made, refusal = await until_refused(application, "POST", "/call/livestream/one-{}", {})
        assert (made, "calls" in refusal) == (quotas.calls_per_hour, True)
        asked, refusal = await until_refused(application, "POST", "/calls", {"limit": 1})
        assert asked >= quotas.lists_per_minute / 6
        assert "too many requests for lists: wait" in refusal
        assert (await application.ask("POST", "/calls", {"limit": 1}, user="bob"))[0] == 200
