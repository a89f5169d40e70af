"""All workers of this gateway and the fork server that they come from.

Keeps true: nothing here blocks the event loop; a fork server that has died is started anew when the next worker is asked for; leaving
`Workers` leaves no process behind.
"""

import array
import asyncio
import contextlib
import json
import socket
import sys
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from protocols.errors import Reason, Rejected
from transcode.host.child import OnExit
from transcode.host.process import Worker
from transcode.limits import MAX_REQUEST, WorkerLimits

_BOOT = 30.0  # s for a fork server to load libav: generous, since a machine may be busy
_SOCKET_BUFFER = 1 << 20  # bytes: a key frame at once


class ForkServer:
    """The gateway's end of a `transcode.worker.fork_server` process."""

    def __init__(self, limits: WorkerLimits) -> None:
        self._limits = asdict(limits)
        self._control: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self.encoders: frozenset[str] = frozenset()  # that libav has; known once it is ready
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
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "transcode.worker.fork_server",
                str(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
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

    def launch(self, on_exit: OnExit) -> "ForkedChild":
        if self._control is None:
            raise OSError("the fork server has gone")
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
            self._next += 1
            try:
                self._control.sendmsg(
                    [json.dumps({"launch": self._next, "limits": self._limits}).encode()],
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
            case {"ready": True, "encoders": list(names)}:
                self.encoders = frozenset(names)
                self._ready.set()
            case {"launched": int(identity), "pid": int(pid)} if identity in self._children:
                self._children[identity].pid = pid
            case {"exited": int(identity), "status": int(status)} if identity in self._children:
                self._children.pop(identity).on_exit(status)

    def hang_up(self) -> None:
        """Let go of a process that has ended."""
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()
            self._control = None
        self._ready.set()
        self._children.clear()  # their exits will be told by the ends of their sockets alone


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
        self._workers: set[Worker] = set()

    @property
    def encoders(self) -> frozenset[str]:
        """The names of those in `transcode.encoder_table` that the workers' libav was built with."""
        return self._server.encoders

    @property
    def count(self) -> int:
        """Workers at present."""
        return sum(not worker.closed for worker in self._workers)

    async def __aenter__(self) -> Self:
        await self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with asyncio.TaskGroup() as group:
            for worker in self._workers:
                group.create_task(worker.aclose())
        await self._server.aclose()

    async def start(self, name: str) -> Worker:
        """A worker for one session, called `name` in what people read. Raises `Rejected` where there are too many or none can be made."""
        self._workers = {worker for worker in self._workers if not worker.closed}
        if len(self._workers) >= self._limits.workers:
            raise Rejected(Reason.OVERLOADED, "This gateway transcodes as many streams as it can; try again later.")
        try:
            await self._revive()
            try:
                worker = Worker(name, self._server.launch, self._limits)
            except ConnectionError:  # it has just died, and told so only by this
                self._server.hang_up()
                await self._revive()
                worker = Worker(name, self._server.launch, self._limits)
        except OSError as error:
            raise Rejected(Reason.INTERNAL, "The transcoder of this gateway cannot be started.") from error
        self._workers.add(worker)
        return worker

    async def _revive(self) -> None:
        """See that there is a fork server; raises `OSError` where there can be none."""
        async with self._starting:
            if not self._server.alive:
                await self._server.aclose()
                await self._server.start()
