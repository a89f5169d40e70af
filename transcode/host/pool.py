"""All workers of this gateway and the fork server that they come from.

Keeps true: nothing here blocks the event loop; a fork server that has died is started anew when the next worker is asked for; leaving
`Workers` leaves no process behind; no process of it knows a secret, by its environment either; all of them together hold no more memory
than they may.
"""

import array
import asyncio
import contextlib
import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from types import TracebackType
from typing import Any, Self

from protocols.errors import Reason, Rejected
from transcode.host.accounting import held
from transcode.host.child import OnExit
from transcode.host.handle import ProcessHandle
from transcode.host.process import Worker
from transcode.limits import MAX_REQUEST, WorkerLimits

_BOOT = 30.0  # s for a fork server to load libav: generous, since a machine may be busy
_SOCKET_BUFFER = 1 << 20  # bytes: a key frame at once
_PASSED_ON = (
    *("PATH", "LANG", "LC_", "TZ", "LD_", "MALLOC_", "PYTHON", "VIRTUAL_ENV"),
    *("LIBVA_", "CUDA_", "NVIDIA_", "MESA_", "DRI_", "ONEVPL_"),  # of drivers
    "COVERAGE_",  # of a run of tests that measures
)
"""How the names of the variables begin that processes of ours get: no secret stands in one of them."""
_LONGEST_LINE = 500  # characters of what a worker's libraries say
_MOST_LINES, _SAID_EVERY_S = 20, 1.0
_WEIGH_EVERY_S = 1.0

log = logging.getLogger(__name__)


class ForkServer:
    """The gateway's end of a `transcode.worker.fork_server` process."""

    def __init__(self, limits: WorkerLimits) -> None:
        self._limits = asdict(limits)
        self._control: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self.encoders: frozenset[str] = frozenset()  # that libav has; known once it is ready, as are
        self.walls: frozenset[str] = frozenset()  # of `transcode.limits.WALLS`, those that stand around workers here
        self._ready = asyncio.Event()
        self._children: dict[int, ForkedChild] = {}
        self._next = 0

    @property
    def alive(self) -> bool:
        return self._control is not None

    async def start(self) -> None:
        """Start the process and wait until it has libav; raises `OSError` where it cannot."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._ready.clear()
        reading, writing = os.pipe()
        self._said, _ = await asyncio.get_running_loop().connect_read_pipe(Said, os.fdopen(reading, "rb", buffering=0))
        with theirs, os.fdopen(writing, "wb", buffering=0) as saying:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "transcode.worker.fork_server",
                str(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=saying,
                env=passed_on(),
            )
        self._control = ours
        asyncio.get_running_loop().add_reader(ours, self._readable)
        try:
            async with asyncio.timeout(_BOOT):
                await self._ready.wait()
        except TimeoutError as error:
            await self.aclose()
            raise OSError("the fork server did not start") from error
        if not self.alive:
            raise OSError("the fork server ended at its start")

    def launch(self, on_exit: OnExit, devices: Sequence[str], niceness: int) -> "ForkedChild":
        if self._control is None:
            raise OSError("the fork server has gone")
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
            self._next += 1
            limits = self._limits | {"niceness": niceness}
            try:
                self._control.sendmsg(
                    [json.dumps({"launch": self._next, "limits": limits, "devices": devices}).encode()],
                    [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))],
                )
            except OSError:
                ours.close()
                raise
        child = self._children[self._next] = ForkedChild(self, self._next, ours, on_exit)
        return child

    def watches(self, identity: int) -> bool:
        return identity in self._children

    def kill(self, identity: int) -> None:
        if self._control is not None:
            with contextlib.suppress(OSError):  # it has ended: its own end is noticed by the read side
                self._control.send(json.dumps({"kill": identity}).encode())

    async def aclose(self) -> None:
        """End the process, and with it every worker that is left."""
        self.hang_up()
        process, self._process = self._process, None
        if process is not None:
            try:
                async with asyncio.timeout(2):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
            self._said.close()

    def _readable(self) -> None:
        while self._control is not None:
            try:
                data = self._control.recv(MAX_REQUEST)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.hang_up()
                return
            self._handle(json.loads(data))

    def _handle(self, reply: dict[str, Any]) -> None:
        match reply:
            case {"ready": True, "encoders": list(names), "walls": list(walls)}:
                self.encoders, self.walls = frozenset(names), frozenset(walls)
                self._ready.set()
            case {"launched": int(identity), "pid": int(pid)} if identity in self._children:
                self._children[identity].pid = pid
            case {"exited": int(identity), "status": int(status), "done": int(done)} if identity in self._children:
                self._children.pop(identity).on_exit(status, done)

    def hang_up(self) -> None:
        """Let go of a process that has ended."""
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()
            self._control = None
        self._ready.set()
        self._children.clear()  # their exits will be told by the ends of their sockets alone


def passed_on() -> dict[str, str]:
    """The environment of a process of ours."""
    return {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}


class Said(asyncio.Protocol):
    """Logs what a process and its libraries write to standard error: escaped, cut, not too often, since a stream may have a say in it."""

    def __init__(self, who: str = "a worker") -> None:
        self._who = who
        self._silent_until = 0.0

    def data_received(self, data: bytes) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._silent_until:
            self._silent_until = now + _SAID_EVERY_S
            for line in filter(str.strip, data.decode(errors="replace").splitlines()[:_MOST_LINES]):
                log.warning("%s says: %s", self._who, line[:_LONGEST_LINE].encode("unicode_escape").decode())


class ForkedChild:
    """One forked worker process; fulfils `child.Child`."""

    def __init__(self, server: ForkServer, identity: int, sock: socket.socket, on_exit: OnExit) -> None:
        self.sock = sock
        self.pid = 0
        self.on_exit = on_exit
        self._server = server
        self._identity = identity

    @property
    def watched(self) -> bool:
        return self._server.watches(self._identity)

    def kill(self) -> None:
        self._server.kill(self._identity)


class Workers:
    """The fork server's life: `async with Workers(limits) as workers`."""

    def __init__(self, limits: WorkerLimits | None = None) -> None:
        self._limits = limits or WorkerLimits()
        self._server = ForkServer(self._limits)
        self._starting = asyncio.Lock()
        self._finding = asyncio.Lock()  # a process for sound: so that of those who come together not each starts one
        self._workers: set[Worker] = set()
        self._processes: list[ProcessHandle] = []  # the oldest first: it is filled first
        self._devices: Sequence[str] = ()

    @property
    def encoders(self) -> frozenset[str]:
        """The names of those in `transcode.encoder_table` that the workers' libav was built with."""
        return self._server.encoders

    @property
    def walls(self) -> frozenset[str]:
        """Of `transcode.limits.WALLS`, those that stand around workers here."""
        return self._server.walls

    @property
    def count(self) -> int:
        """Processes of workers at present."""
        return sum(not process.closed for process in self._processes)

    async def __aenter__(self) -> Self:
        await self._server.start()
        self._weigh()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._weighing.cancel()
        async with asyncio.TaskGroup() as group:
            for worker in self._workers:
                group.create_task(worker.aclose())
        await self._server.aclose()

    def equip(self, devices: Sequence[str]) -> None:
        """Workers that are made from now on may use these devices: patterns of paths, of `encoder_table`."""
        self._devices = devices

    async def start(self, name: str, devices: Sequence[str] | None = None) -> Worker:
        """A worker for one session, called `name` in what people read, in a process of its own with `devices` if they are not those of all.
        Raises `Rejected` where there are too many, they hold too much memory, or none can be made."""
        devices = self._devices if devices is None else devices
        return self._worker(name, await self._made(partial(self._launch, devices, self._limits.niceness)))

    async def sound(self, name: str) -> Worker:
        """A worker for the sound of one session, in a process that serves several. Raises `Rejected` as `start`."""
        async with self._finding:
            found = (each for each in self._processes if each.shared and not each.closed and len(each.sessions) < each.most)
            made = partial(self._launch, (), self._limits.sound_niceness, self._limits.sharing)
            return self._worker(name, next(found, None) or await self._made(made))

    def _worker(self, name: str, process: ProcessHandle) -> Worker:
        self._workers = {worker for worker in self._workers if not worker.closed}
        worker = Worker(name, process, self._apart)
        self._workers.add(worker)
        return worker

    async def _made(self, launch: Callable[[], ProcessHandle]) -> ProcessHandle:
        """What this gives; raises `Rejected` where there can be none."""
        self._check_room()
        try:
            await self._revive()
            try:
                return launch()
            except ConnectionError:  # it has just died, and told so only by this
                self._server.hang_up()
                await self._revive()
                return launch()
        except OSError as error:
            raise Rejected(Reason.INTERNAL, "The transcoder of this gateway cannot be started.") from error

    def _apart(self) -> ProcessHandle:
        """A process of their own for who has crashed one that is shared; raises `Rejected` and `OSError`."""
        self._check_room()
        return self._launch((), self._limits.sound_niceness)

    def _check_room(self) -> None:
        self._processes = [process for process in self._processes if not process.closed]
        if len(self._processes) >= self._limits.workers:
            raise Rejected(Reason.OVERLOADED, "This gateway transcodes as many streams as it can; try again later.")
        if sum(held(process.pid) for process in self._processes) > self._limits.memory_together:
            raise Rejected(Reason.OVERLOADED, "This gateway's transcoders hold as much memory as they may; try again later.")

    def _launch(self, devices: Sequence[str], niceness: int, most: int = 1) -> ProcessHandle:
        """A process for up to `most` sessions."""
        process = ProcessHandle(partial(self._server.launch, devices=devices, niceness=niceness), self._limits, most)
        self._processes.append(process)
        return process

    def _weigh(self) -> None:
        """End the largest process where all together hold more than they may: now and then, until `_weighing` is cancelled."""
        self._weighing = asyncio.get_running_loop().call_later(_WEIGH_EVERY_S, self._weigh)
        sizes = {process: held(process.pid) for process in self._processes if not process.closed}
        if sum(sizes.values()) > self._limits.memory_together:
            largest = max(sizes, key=sizes.__getitem__)
            names = ", ".join(session.name for session in largest.sessions)
            log.warning("the worker of %s is ended: with its %d MiB all hold more than they may", names, sizes[largest] >> 20)
            largest.end("the workers hold more memory than they may together")

    async def _revive(self) -> None:
        """See that there is a fork server; raises `OSError` where there can be none."""
        async with self._starting:
            if not self._server.alive:
                await self._server.aclose()
                await self._server.start()
