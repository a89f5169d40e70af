"""What a fan-out process has within reach: nothing that it does not need."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from gateway.outputs.fanout.messages import FanoutMessage
from tests.support.memory import SeatOf
from tests.support.waiting import eventually
from tests.unit.gateway.outputs.fanout.test_pool import Heard, joined, served, streaming
from transcode.messages import pack

LOADED = "import json, sys, gateway.outputs.fanout.process; print(json.dumps(sorted(sys.modules)))"
NOT_THERE = ("av", "aiohttp", "pydantic", "sqlalchemy", "prometheus_client", "jwt")
WINGS_THERE = {"gateway", "gateway.outputs"}


def test_it_loads_nothing_that_decides_or_decodes() -> None:
    printed = subprocess.run([sys.executable, "-c", LOADED], check=True, capture_output=True, text=True).stdout
    loaded = json.loads(printed)
    assert not {each.partition(".")[0] for each in loaded} & set(NOT_THERE)
    wings = {".".join(each.split(".")[:2]) for each in loaded if each.startswith("gateway")}
    assert wings == WINGS_THERE


def seen(pid: int) -> tuple[bytes, str, set[str]]:
    """Of a process, its environment, its limits, and what it has open."""
    there = Path(f"/proc/{pid}")
    opened = {os.readlink(each) for each in (there / "fd").iterdir()}
    return (there / "environ").read_bytes(), (there / "limits").read_text(), opened


async def test_it_has_no_secret_in_its_environment_and_may_write_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_AUTH__SECRET", "a secret of the gateway's own")
    async with served(1) as gateway:
        (process,) = gateway.processes.processes
        environment, limits, opened = seen(process.pid)
        assert b"PATH=" in environment
        assert b"secret" not in environment
        for what in ("Max file size", "Max core file size", "Max processes"):
            (line,) = [line for line in limits.splitlines() if line.startswith(what)]
            assert line.removeprefix(what).split()[:2] == ["0", "0"]
        assert all(each.startswith(("socket:", "pipe:", "anon_inode:", "/dev/null")) for each in opened), opened


async def test_it_ends_with_the_gateway() -> None:
    async with served(1) as gateway:
        (process,) = gateway.processes.processes
        pid = process.pid
        process.pipe.close()  # as when the gateway is killed: nobody asks it to end

        async def gone() -> bool:
            return not psutil.pid_exists(pid)

        await eventually(gone, within_s=10, every_s=0.01)


async def test_a_message_that_it_cannot_handle_is_logged_and_disturbs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async with served(1) as gateway:
        (process,) = gateway.processes.processes
        participant = await gateway.call.join(SeatOf("host"), lambda: None)
        process.send(pack(FanoutMessage.SHOW, body=b"nonsense") + pack(FanoutMessage.HIDE, body=b"{}"))
        async with streaming(participant, Heard()), joined(gateway):
            assert not process.ended.is_set()

        async def logged() -> bool:
            return "Exception in callback FanoutServer._handle" in caplog.text

        await eventually(logged, within_s=10, every_s=0.01)
