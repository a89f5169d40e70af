"""Calls that ended are kept for as long as the configuration says, and no longer."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.config import Config
from gateway.model.lifecycle import created, ended
from gateway.wiring.store import opened
from tests.support.gateway_process import running_gateway


async def test_calls_that_ended_longer_ago_than_they_are_kept_are_forgotten_at_the_start(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    async with opened(Config.model_validate({"state": {"directory": str(tmp_path)}})) as store:
        await store.call_types.ensure_built_in(now, development=False)
        kind = (await store.call_types.all())["livestream"]
        for name, days in (("old", 3), ("new", 1)):
            at = now - timedelta(days=days)
            await store.users.ensure(["ann"], at)
            await store.calls.get_or_create(ended(created(kind, name, "ann", at), at))
    async with running_gateway("quotas.keep_ended_days=2", f"state.directory={tmp_path}") as gateway:
        line = await gateway.logged("calls that ended long ago are deleted")
    assert line["calls"] == 1
    async with opened(Config.model_validate({"state": {"directory": str(tmp_path)}})) as store:
        assert sorted(each.id for each in (await store.calls.query()).items) == [
            "demo",
            "new",
        ]  # the public one, which every start makes
