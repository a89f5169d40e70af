"""A task that fails unforeseen is told of; one that ends or is cancelled is not."""

import asyncio
import logging
from functools import partial

import pytest

from protocols.defects import log_defect

log = logging.getLogger("a.listener")


@pytest.mark.parametrize("end", ["returns", "raises", "is cancelled"])
async def test_only_an_error_is_told(end: str, caplog: pytest.LogCaptureFixture) -> None:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done.add_done_callback(partial(log_defect, log, "a peer was lost"))
    match end:
        case "returns":
            done.set_result(None)
        case "raises":
            done.set_exception(LookupError("no such thing"))
        case _:
            done.cancel()
    await asyncio.wait([done])
    assert [(record.name, record.getMessage()) for record in caplog.records] == (
        [("a.listener", "a peer was lost, by a defect of ours")] if end == "raises" else []
    )
    assert ("no such thing" in caplog.text) == (end == "raises")
    assert log_defect(log, "a peer was lost", done) == (end == "raises")
