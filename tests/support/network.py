"""A bad network at the level of IP, as netem makes one: between two network namespaces lies a link that loses and delays packets.

Inside `bad_link` the test itself, and what it starts, is in a namespace of its own at `NEAR`; what is started with `Link.far` in front is
in another one, at `FAR`. The link is a pair of tun devices, and this process carries the packets (Linux `networking/tuntap`): no kernel
module is needed for that, unlike for netem, which many kernels lack. Nothing leaves the machine. It takes root, as network namespaces do.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import os
import random
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

NEAR, FAR = "10.83.0.1", "10.83.0.2"
_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_MTU = 1500


@dataclass
class Link:
    """Loses `loss` of all packets and delays each by `delay_s`, in each direction. Seeded, so that a run can be repeated."""

    loss: float
    delay_s: float
    far: tuple[str, ...]
    """What to put before a command to run it at the other end."""
    passed: int = 0
    lost: int = 0
    _chance: random.Random = field(default_factory=lambda: random.Random(1))

    def carry(self, source: int, sink: int) -> None:
        """Every packet that waits at one end."""
        while True:
            try:
                packet = os.read(source, _MTU)
            except BlockingIOError:
                return
            if self._chance.random() < self.loss:
                self.lost += 1
            else:
                self.passed += 1
                asyncio.get_running_loop().call_later(self.delay_s, _put, sink, packet)


def _put(sink: int, packet: bytes) -> None:
    with contextlib.suppress(OSError):  # the other end's queue is full, or it is just being taken down: one more is lost
        os.write(sink, packet)


@asynccontextmanager
async def bad_link(loss: float, round_trip_s: float) -> AsyncIterator[Link]:
    """The two namespaces and the link between them; afterwards this thread is back where it was."""
    with _own_namespace():
        # The other end's namespace lives as long as this process does, which ends with its standard input.
        holder = await asyncio.create_subprocess_exec(
            "unshare", "--net", "sh", "-c", "echo; exec cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert holder.stdout is not None
        ends = [_tun("near"), _tun("far")]
        try:
            await holder.stdout.readline()  # it is apart now
            await _run("ip", "link", "set", "far", "netns", str(holder.pid))
            far = ("nsenter", "--target", str(holder.pid), "--net")
            for prefix, device, address in (((), "near", NEAR), (far, "far", FAR)):
                await _run(*prefix, "ip", "link", "set", "lo", "up")
                await _run(*prefix, "ip", "address", "add", f"{address}/30", "dev", device)
                await _run(*prefix, "ip", "link", "set", device, "up")
            link = Link(loss, round_trip_s / 2, far)
            with _carrying(link, *ends):
                yield link
        finally:
            for end in ends:
                os.close(end)
            await holder.communicate(b"")


@contextmanager
def _carrying(link: Link, near: int, far: int) -> Iterator[None]:
    """In a thread of its own: whatever else the test does, which decodes video as a rule, the way takes no longer than was said."""
    loop = asyncio.new_event_loop()
    for source, sink in ((near, far), (far, near)):
        loop.add_reader(source, link.carry, source, sink)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def _own_namespace() -> Iterator[None]:
    libc = ctypes.CDLL(None, use_errno=True)

    def done(result: int, what: str) -> None:
        if result != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{what}: {os.strerror(number)} (this test takes root)")

    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        done(libc.unshare(_CLONE_NEWNET), "unshare")
        try:
            yield
        finally:
            done(libc.setns(before, _CLONE_NEWNET), "setns")
    finally:
        os.close(before)


def _tun(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return device


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command)
    if await process.wait() != 0:
        raise RuntimeError(f"{' '.join(command)} failed")
