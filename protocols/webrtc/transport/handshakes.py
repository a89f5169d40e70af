"""Whose turn it is to compute for a handshake, and how many handshakes one address has under way.

What is kept true: in one turn of the event loop only a few steps of handshakes are taken, in the order asked for, so that media goes
between them; who waits for the network holds up nobody but its own address.
"""

import asyncio
import time
from types import TracebackType
from weakref import WeakValueDictionary

from protocols.webrtc.transport.budget import WorkBudget


class Handshakes:
    """Of one port: `steps` in one turn of the loop, `per_client` unfinished handshakes with one client's network."""

    def __init__(self, steps: int, per_client: int) -> None:
        self._steps = asyncio.Semaphore(steps)
        self._per_client = per_client
        self._clients: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()  # of those who use them now

    async def turn(self) -> None:
        """Until it is the caller's: it computes from then on until it awaits something, and gives back nothing."""
        await self._steps.acquire()
        asyncio.get_running_loop().call_soon(self._steps.release)

    def unfinished(self, client: str) -> asyncio.Semaphore:
        """To be held while a handshake with `client` is under way."""
        return self._clients.setdefault(client, asyncio.Semaphore(self._per_client))


class HandshakeStep:
    """One step of a peer's handshake, or of what comes after it: in the turn of the loop that it was given, and charged to the peer. To be
    entered for each."""

    def __init__(self, handshakes: Handshakes, work: WorkBudget) -> None:
        self._handshakes = handshakes
        self._work = work
        self._begun = 0

    async def __aenter__(self) -> None:
        await self._handshakes.turn()
        self._begun = time.monotonic_ns()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._work.charge(self._begun, time.monotonic_ns())
