"""What a short request for a list costs: CPU, bytes of the answer, memory that stays; and that nobody can ask for lists in a loop."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import psutil

from gateway.api.framework.paging import MAX_ANSWER
from tests.support.application import Application, running_application

CALLS, MEMBERS = 100, 100
ASKED = 20
ENOUGH = ()


def members() -> Iterator[dict[str, Any]]:
    for number in range(MEMBERS):
        yield {"user_id": f"member-{number}", "role": "host" if not number else "user"}


async def fill(application: Application, custom: Any) -> None:
    for number in range(CALLS):
        data = {"created_by_id": "member-0", "members": list(members()), "custom": custom}
        await application.ok("POST", f"/call/livestream/full-{number}", {"data": data})


async def test_a_list_costs_little_and_keeps_nothing() -> None:
    async with running_application(*ENOUGH) as application:
        await fill(application, {"title": "A show"})
        process = psutil.Process(application.gateway.pid)
        body = {"filter_conditions": {"type": "livestream"}, "limit": 100}
        before, cpu = process.memory_info().rss, sum(process.cpu_times()[:2])
        answers = await asyncio.gather(*(application.ok("POST", "/calls", body) for _ in range(ASKED)))
        cost = (sum(process.cpu_times()[:2]) - cpu) / ASKED
        grown = process.memory_info().rss - before
        length = len(json.dumps(answers[0]))
    print(f"\n{len(json.dumps(body))} bytes: {cost:.3f} s of CPU, {length} bytes, RSS {before >> 20} + {grown >> 20} MiB")
    assert length <= MAX_ANSWER * 1.1
    assert cost < 0.2
    assert grown < 16 << 20
