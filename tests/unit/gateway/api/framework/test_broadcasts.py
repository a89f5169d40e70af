"""HLS is what calls wish, whoever wrote the wish, and after a restart."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from gateway.api.framework.broadcasts import follow, resume
from gateway.model.records import Call
from gateway.store.store import Store
from tests.support.api import Broadcasts

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CALL = Call("livestream", "show", "john", NOW, NOW)
WISHED = replace(CALL, broadcasting=True)


def test_only_a_change_of_the_wish_starts_or_stops() -> None:
    hls = Broadcasts()
    assert follow(hls, None, CALL) is None
    assert follow(hls, CALL, WISHED) is True
    assert hls.running == {"livestream:show"}
    assert follow(hls, WISHED, WISHED) is None
    assert follow(hls, WISHED, None) is False
    assert follow(hls, None, WISHED) is True
    assert follow(hls, WISHED, CALL) is False
    assert hls.running == set()


async def test_a_restart_resumes_all_calls_that_wish_it(tmp_path: Path) -> None:
    async with Store.open(f"sqlite+aiosqlite:///{tmp_path}/store.db") as store:
        for n in range(101):
            await store.calls.get_or_create(replace(WISHED, id=f"show-{n}"))
        await store.calls.get_or_create(CALL)
        await store.calls.get_or_create(replace(WISHED, id="over", ended_at=NOW))
        hls = Broadcasts()
        await resume(hls, store)
    assert hls.running == {f"livestream:show-{n}" for n in range(101)}
