"""Gateways of a test run are forked from one process that has the gateway's modules loaded: to load them is a second of CPU each time.

`python -m tests.support.gateway_forks FD` serves the listening socket FD: a connection brings one JSON object (`arguments`, `environment`),
with standard output and standard error as SCM_RIGHTS, and gets two lines: the gateway's pid at once, its exit code in the end.
"""

import asyncio
import contextlib
import ctypes
import functools
import gc
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MAX_REQUEST = 1 << 17
LONGEST_LINE = 1 << 20
_PR_SET_PDEATHSIG = 1
ANEW = "TESTS_START_GATEWAYS_ANEW"
"""Set where each gateway is to be what users start: benches measure its memory and CPU."""
_FROM_THE_BEGINNING = {ANEW, "COVERAGE_PROCESS_CONFIG"}  # coverage measures processes from theirs, too


class ForkedGateway:
    """One of them, as `asyncio.subprocess.Process`; `stdout` and `stderr` are all that it prints."""

    def __init__(self, pid: int, stdout: asyncio.StreamReader, stderr: asyncio.StreamReader, end: Awaitable[int]) -> None:
        """`end` gives its exit code."""
        self.pid = pid
        self.stdout = stdout
        self.stderr = stderr
        self.returncode: int | None = None
        self._end = asyncio.create_task(self._ended(end))

    async def wait(self) -> int:
        return await asyncio.shield(self._end)

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def _ended(self, end: Awaitable[int]) -> int:
        self.returncode = await end
        return self.returncode


async def start(*arguments: str, environment: Mapping[str, str]) -> ForkedGateway:
    """The command `gateway` with these arguments, and what is set in this process's environment and in `environment`."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(_server(os.readlink("/proc/thread-self/ns/net")))
    printed, prints = zip(os.pipe(), os.pipe(), strict=True)
    request = {"arguments": arguments, "environment": {**os.environ, **environment}}
    socket.send_fds(connection, [json.dumps(request).encode()], prints)
    for each in prints:
        os.close(each)
    answers, writer = await asyncio.open_unix_connection(sock=connection)
    pid = int(await answers.readline())
    stdout, stderr = [await _read(each) for each in printed]

    async def end() -> int:
        with contextlib.closing(writer):
            return int(await answers.readline())

    return ForkedGateway(pid, stdout, stderr, end())


async def _read(pipe: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(LONGEST_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb", 0))
    return reader


@functools.cache
def _server(network: str) -> str:
    """The address of the one in this network namespace, where its gateways are too. It ends with this process."""
    address = f"\0gateway-forks-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.gateway_forks", str(listener.fileno())],
            pass_fds=[listener.fileno()],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
    return address


def serve(listener: socket.socket) -> int:
    """Returns in each gateway, with its exit code. There is no thread here, so that a fork is safe."""
    from gateway import __main__ as command_line
    from gateway import app  # noqa: F401 - loaded by `gateway run`

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    while True:
        connection, _ = listener.accept()
        request, prints, _, _ = socket.recv_fds(connection, MAX_REQUEST, 2)
        if os.fork() == 0:
            listener.close()
            _become_gateway(connection, prints)
            wanted: dict[str, Any] = json.loads(request)
            if _FROM_THE_BEGINNING & wanted["environment"].keys():
                command = [sys.executable, "-m", "gateway", *wanted["arguments"]]
                os.execve(sys.executable, command, wanted["environment"])
            os.environ.clear()
            os.environ.update(wanted["environment"])
            return command_line.main(wanted["arguments"])
        connection.close()
        for each in prints:
            os.close(each)


def _become_gateway(connection: socket.socket, prints: Sequence[int]) -> None:
    """Returns in a child, whose exit the process that was forked tells."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid:
        for each in prints:
            os.close(each)
        connection.sendall(b"%d\n" % pid)
        connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        os._exit(0)
    connection.close()
    for number, each in enumerate(prints, start=1):
        os.dup2(each, number)
        os.close(each)


if __name__ == "__main__":
    sys.exit(serve(socket.socket(fileno=int(sys.argv[1]))))
