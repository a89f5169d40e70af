"""Two nodes with one database: what the one had when it was lost goes on at the other."""

import signal
from datetime import UTC, datetime
from pathlib import Path

from gateway.store.seats import orphaned
from gateway.store.store import Store
from tests.gateway.test_restart import SECRET, SIZE, call, free_ports, settings
from tests.support.gateway_process import running_gateway
from tests.support.publishing import Pasted, publishing
from tests.support.waiting import eventually


async def test_an_encoder_that_is_sent_to_another_node_goes_on_as_the_same_participant(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/shared.db"
    lost = (*settings(tmp_path / "one", free_ports()), f"database.url={url}")
    other = (*settings(tmp_path / "two", free_ports()), f"database.url={url}")
    async with running_gateway(*other, secret=SECRET) as two, Store.open(url) as store:
        async with running_gateway(*lost, secret=SECRET, expect_exit=-signal.SIGKILL) as one:
            async with publishing("rtmp", Pasted.of_gateway(one, call("rtmp")), size=SIZE):
                before = await one.stream(tracks=2)
                one.process.kill()
                await one.process.wait()

        async def given_up() -> bool:
            seat = await store.seats.find(call("rtmp"), "host")
            return seat is not None and orphaned(seat, "two", datetime.now(UTC))

        await eventually(given_up)
        async with publishing("rtmp", Pasted.of_gateway(two, call("rtmp")), size=SIZE):
            after = await two.stream(tracks=2)
            assert (after["id"], after["reconnects"]) == (before["id"], 1)
