"""Which encoder is used: on a machine without such hardware x264, and why is said."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from transcode.encoder_table import HARDWARE
from transcode.host.pool import Workers
from transcode.host.probe import Choice, choose, present, trial
from transcode.limits import WorkerLimits


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    async with Workers(WorkerLimits(workers=1)) as pool:
        yield pool


async def test_x264_proves_itself_and_no_hardware_does_here(workers: Workers) -> None:
    assert await trial(workers, "libx264") == ""
    for encoder in HARDWARE:
        assert await trial(workers, encoder.name), encoder.name
    assert workers.count == 0
    assert await trial(workers, "h264_of_nowhere") == "no such encoder"


async def test_auto_tries_what_has_a_device_here_and_nothing_else(workers: Workers) -> None:
    nvenc, *others = HARDWARE
    with_device = [
        replace(nvenc, devices=("/dev/nowhere*", "/dev/null")),
        *(replace(each, devices=("/dev/nowhere*",)) for each in others),
    ]
    assert [present(each) for each in with_device] == [True, False, False, False]
    choice = await choose(workers, "auto", with_device)
    assert choice.encoder == "libx264"
    assert list(choice.refused) == ["h264_nvenc"]


async def test_x264_is_taken_without_a_trial(workers: Workers) -> None:
    await workers.start("the only one")
    assert await choose(workers, "libx264", HARDWARE) == Choice("libx264")


async def test_hardware_is_tried_in_order_and_x264_is_what_is_left(workers: Workers) -> None:
    choice = await choose(workers, "hardware", HARDWARE)
    assert choice.encoder == "libx264"
    assert list(choice.refused) == [encoder.name for encoder in HARDWARE]
    assert all(choice.refused.values())
    assert list((await choose(workers, "h264_qsv", HARDWARE)).refused) == ["h264_qsv"]


async def test_a_trial_that_crashes_the_process_is_an_answer(workers: Workers) -> None:
    worker = await workers.start("crash")
    async with asyncio.timeout(20):
        assert await worker.trial("libx264") == ""  # its process is there
        os.kill(worker.pid, signal.SIGSTOP)
        tried = asyncio.create_task(worker.trial("libx264"))
        await asyncio.sleep(0)  # the question is asked
        os.kill(worker.pid, signal.SIGKILL)
        assert await tried == "it crashed: signal 9"
    await worker.aclose()


async def test_where_no_worker_can_be_had_it_is_x264_too(workers: Workers) -> None:
    await workers.start("the only one")
    choice = await choose(workers, "h264_nvenc", HARDWARE)
    assert choice.encoder == "libx264"
    assert "as many streams as it can" in choice.refused["h264_nvenc"]
