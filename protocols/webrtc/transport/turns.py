"""Whose turn it is to connect where many of one client come at once: as many as may be unconnected do, and the others wait until one of
these has, in the order in which they came. So a class behind one address gets in, one after the other, and nobody of it is turned away.

What is kept true: nobody waits longer than `wait_s`, nor more than may offer (`Places.ask`); whoever waits no more leaves nothing behind.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from protocols.webrtc.transport.places import Client, Place, Places, Standing, client_of, too_many_connecting


@dataclass(slots=True, eq=False, weakref_slot=True)
class _Queue:
    """Of one client. The first of it holds `first`, and waits for `room`."""

    first: asyncio.Lock = field(default_factory=asyncio.Lock)
    room: asyncio.Event = field(default_factory=asyncio.Event)


class Turns:
    def __init__(self, places: Places, wait_s: float) -> None:
        self._places = places
        self._wait_s = wait_s
        self._queues: WeakValueDictionary[Client, _Queue] = WeakValueDictionary()  # of those who wait now

    @asynccontextmanager
    async def turn(self, standing: Standing, address: str, user: str = "") -> AsyncIterator[Place]:
        """A place, as `Places.take` gives it, once it is their turn; it is given back at the end, unless it is `used`. Raises `Rejected`,
        also where it did not become their turn in time."""
        self._places.ask(standing, address, time.monotonic_ns(), user)
        place = await self._taken(standing, address, user)
        try:
            yield place
        finally:
            if not place.used:
                self.give_back(place)

    def connect(self, place: Place) -> None:
        """The peer has connected."""
        self._places.connect(place)
        self._made_room(place)

    def give_back(self, place: Place) -> None:
        """The peer has ended, or there is none. Once for each place."""
        self._places.give_back(place)
        self._made_room(place)

    async def _taken(self, standing: Standing, address: str, user: str) -> Place:
        client = client_of(standing, address, user)
        queue = self._queues.setdefault(client, _Queue()) if client is not None else _Queue()
        try:
            async with asyncio.timeout(self._wait_s), queue.first:
                while self._places.crowded(client):
                    queue.room.clear()
                    await queue.room.wait()
                return self._places.take(standing, address, user)
        except TimeoutError:
            raise too_many_connecting() from None

    def _made_room(self, place: Place) -> None:
        if place.client is not None and (queue := self._queues.get(place.client)) is not None:
            queue.room.set()
