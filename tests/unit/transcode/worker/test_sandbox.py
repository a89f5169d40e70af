"""A worker reaches nothing but its socket, whatever a stream makes of a codec, and no secret is within its reach; and media still pass."""

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from protocols.errors import Rejected
from protocols.media import Codec
from tests.unit.transcode.media import pictures
from tests.unit.transcode.worker.test_process import GENEROUS, VIDEO, Collector, fed, one_by_one
from transcode.encoder_table import SVT_AV1, VPX, X264
from transcode.host.pool import Said, Workers
from transcode.host.process import Worker
from transcode.limits import LANDLOCK, SECCOMP, WALLS, WorkerLimits

ROOT = Path(__file__).parents[4]
INSIDE = """
import ctypes, json, os, signal, socket, sys
from transcode.limits import WorkerLimits
from transcode.worker import process

libc = ctypes.CDLL(None, use_errno=True)
ours = socket.socket(fileno=int(sys.argv[1]))
secret, devices = sys.argv[2], json.loads(sys.argv[3])
left_open = os.open(secret, os.O_RDONLY)
listening = socket.create_server(("127.0.0.1", 0))
there = listening.getsockname()
process.confine(ours, WorkerLimits(), devices)

def called(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")

def thread():
    import _thread
    done = _thread.allocate_lock()
    done.acquire()
    _thread.start_new_thread(done.release, ())
    done.acquire()

attempts = {
    "read the secret": lambda: os.open(secret, os.O_RDONLY),
    "read what was open": lambda: os.read(left_open, 1),
    "write a file": lambda: os.open("/tmp/of-a-worker", os.O_CREAT | os.O_WRONLY),
    "list": lambda: os.listdir("/"),
    "use the device": lambda: os.write(os.open("/dev/null", os.O_RDWR), b"x"),
    "connect": lambda: socket.socket().connect(there),
    "listen": lambda: socket.socket(socket.AF_UNIX).bind("\\0of-a-worker"),
    "execute": lambda: os.execv("/bin/true", ["true"]),
    "fork": lambda: called(libc.fork()),
    "trace": lambda: called(libc.ptrace(16, os.getppid(), 0, 0)),
    "read memory": lambda: called(libc.process_vm_readv(os.getppid(), 0, 0, 0, 0, 0)),
    "signal": lambda: os.kill(os.getppid(), 0),
    "gain rights": lambda: called(libc.setuid(0)),
    "mount": lambda: called(libc.unshare(0x10000000)),
    "load a module": lambda: called(libc.syscall(175, 0, 0, 0)),
    "take priority": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
    "start a thread": thread,
    "allocate": lambda: bytearray(64 << 20),
}
done = []
for name, attempt in attempts.items():
    try:
        attempt()
    except (OSError, MemoryError) as error:
        continue
    done.append(name)
ours.sendall(json.dumps(done).encode())
"""


def inside(secret: Path, devices: tuple[str, ...]) -> set[str]:
    """What could be done in a process that was confined as each worker is."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        program = [sys.executable, "-c", INSIDE, str(theirs.fileno()), str(secret), json.dumps(devices)]
        result = subprocess.run(program, cwd=ROOT, pass_fds=[theirs.fileno()], timeout=60, capture_output=True, check=False)
        theirs.close()
        ours.settimeout(GENEROUS)
        assert result.returncode == 0, result.stderr.decode()
        return set(json.loads(ours.recv(4096)))


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text("of the gateway")
    return file


def test_from_inside_nothing_is_within_reach_but_threads_and_memory(secret: Path) -> None:
    assert inside(secret, ()) == {"start a thread", "allocate"}


def test_an_encoder_in_hardware_gets_its_device_besides(secret: Path) -> None:
    assert inside(secret, ("/dev/nul[l]",)) == {"use the device", "start a thread", "allocate"}


@pytest.fixture
async def workers(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Workers]:
    for name in ("GATEWAY_AUTH__SECRET", "AWS_SECRET_ACCESS_KEY", "A_TOKEN"):
        monkeypatch.setenv(name, "not for workers")
    async with Workers(WorkerLimits(workers=3, video_queue=10_000)) as pool:
        yield pool


async def running(worker: Worker) -> Path:
    """Its folder in /proc, once it has answered and is confined."""
    assert await worker.trial(X264) == ""
    return Path(f"/proc/{worker.pid}")


async def test_a_worker_stands_within_its_walls_and_knows_no_secret(workers: Workers) -> None:
    assert workers.walls == WALLS == {SECCOMP, LANDLOCK}
    process = await running(await workers.start("test"))
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")
    assert not any(int(status[each], 16) for each in ("CapInh", "CapPrm", "CapEff"))
    assert b"not for workers" not in (process / "environ").read_bytes()
    kinds = sorted(os.readlink(link).partition(":")[0] for link in (process / "fd").iterdir())
    assert kinds == ["/dev/null", "/dev/null", "pipe", "socket"]


@pytest.mark.parametrize("encoder", [X264, VPX, SVT_AV1])
async def test_each_codec_is_encoded_within_the_walls_and_takes_no_priority(workers: Workers, encoder: str) -> None:
    worker = await workers.start("test")
    track, packets = pictures(Codec.H264, seconds=1)
    sink = Collector()
    stage = fed(worker, track, sink, target=replace(VIDEO, encoder=encoder))
    await one_by_one(stage.process, packets, sink, lag=0)
    threads = os.listdir(f"/proc/{worker.pid}/task")
    assert {os.sched_getscheduler(int(thread)) for thread in threads} == {os.SCHED_OTHER}
    assert len(threads) > 1 or encoder != SVT_AV1


async def test_all_workers_together_hold_no_more_memory_than_they_may(caplog: pytest.LogCaptureFixture) -> None:
    failed = asyncio.Event()
    async with Workers(WorkerLimits(restarts=0, memory_together=1 << 20)) as workers:
        worker = await workers.start("greedy")
        worker.on_failure(lambda why: failed.set())
        track, packets = pictures(Codec.H264, seconds=1)
        stage = fed(worker, track, Collector())
        for packet in packets:
            stage.process(packet)
        async with asyncio.timeout(GENEROUS):
            await failed.wait()
        assert "more memory than they may together" in (worker.failure or "")
        assert "the worker of greedy is ended" in caplog.text


async def test_no_worker_is_started_where_those_that_are_hold_too_much() -> None:
    async with Workers(WorkerLimits(memory_together=1)) as workers:
        await running(await workers.start("first"))
        with pytest.raises(Rejected, match="as much memory as they may"):
            await workers.start("second")


async def test_what_a_library_says_is_logged_in_one_line_and_not_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    said = Said()
    with caplog.at_level(logging.WARNING):
        for text in (b"error: \x1b[31mred\x07\n\n" + b"x" * 10_000 + b"\n" + b"again\n" * 1000, b"at once\n"):
            said.data_received(text)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "a worker says: error: \\x1b[31mred\\x07"
    assert all(len(line) < 600 for line in lines)
    assert 3 < len(lines) < 40
