"""A bad network between a peer and the gateway: a UDP relay on loopback that loses and delays packets, both ways, and may be narrow on
either.

Seeded, so that a run can be repeated. The way to it: `through` rewrites the candidates of a WHEP answer.
"""

import asyncio
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

MAX_CLIENTS = 64
QUEUE_S = 0.3
_WIRE = 10**9  # bit/s of a way that is not narrow


@dataclass
class Relay:
    """Loses `loss` of all packets and delays each by `delay_s`, in each direction. It carries `rate` bit/s towards clients and `uplink`
    towards the gateway (0: anything), before which packets queue for at most `queue_s`."""

    target: tuple[str, int]
    loss: float
    delay_s: float
    rate: int = 0
    uplink: int = 0
    queue_s: float = QUEUE_S
    port: int = 0
    passed: int = 0
    offered: int = 0
    """Bytes for clients, whether they pass or not."""
    offering: asyncio.Event = field(default_factory=asyncio.Event)  # set by each packet for clients
    lost: int = 0
    closed: bool = False
    """What still waits is carried no more."""
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    _free_at: dict[str, float] = field(default_factory=dict)  # when a narrow way has nothing more to carry

    def through(self, answer: str) -> str:
        """The SDP answer with this relay in the place of the gateway's candidates."""
        lines = [line for line in answer.splitlines() if not line.startswith("a=candidate")]
        candidate = f"a=candidate:1 1 udp 2130706431 127.0.0.1 {self.port} typ host"
        out = []
        for line in lines:
            out.append(re.sub(r"^(m=\w+ )\d+", rf"\g<1>{self.port}", line))
            if line.startswith("a=mid:"):
                out.append(candidate)
        return "\r\n".join(out) + "\r\n"

    def forward(self, send: Any, *arguments: Any) -> None:
        if self.chance.random() < self.loss:
            self.lost += 1
            return
        self.passed += 1
        asyncio.get_running_loop().call_later(self.delay_s, self._deliver, send, *arguments)

    def _deliver(self, send: Any, *arguments: Any) -> None:
        if not self.closed:
            send(*arguments)

    def towards_client(self, send: Any, data: bytes, client: Any) -> None:
        self.offered += len(data)
        self.offering.set()
        self._squeeze("down", self.rate, send, data, client)

    def towards_gateway(self, send: Any, data: bytes) -> None:
        self._squeeze("up", self.uplink, send, data)

    def _squeeze(self, way: str, rate: int, send: Any, data: bytes, *to: Any) -> None:
        now = asyncio.get_running_loop().time()
        queued = max(0.0, self._free_at.get(way, 0.0) - now)
        if not rate and not queued:
            self.forward(send, data, *to)
        elif rate and queued > self.queue_s:
            self.lost += 1
        else:  # a way that has become wide carries first what waits: it puts nothing out of order
            at = self._free_at[way] = now + queued + len(data) * 8 / (rate or _WIRE)
            asyncio.get_running_loop().call_at(at, self.forward, send, data, *to)


class _Inside(asyncio.DatagramProtocol):
    """The side of the gateway, for one client."""

    def __init__(self, relay: Relay, outside: asyncio.DatagramTransport, client: Any) -> None:
        self._relay, self._outside, self._client = relay, outside, client

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._relay.towards_client(self._outside.sendto, data, self._client)


class _Outside(asyncio.DatagramProtocol):
    """The side of the clients."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._inside: dict[Any, asyncio.Task[asyncio.DatagramTransport]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        opening = self._inside.get(addr)
        if opening is None and len(self._inside) < MAX_CLIENTS:
            opening = self._inside[addr] = asyncio.create_task(self._open(addr))
        if opening is not None and opening.done():
            self._relay.towards_gateway(opening.result().sendto, data)

    async def _open(self, client: Any) -> asyncio.DatagramTransport:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Inside(self._relay, self._transport, client), remote_addr=self._relay.target
        )
        return transport

    async def close(self) -> None:
        for opening in self._inside.values():
            (await opening).close()
        self._transport.close()


@asynccontextmanager
async def relaying(target_port: int, *, loss: float, round_trip_s: float) -> AsyncIterator[Relay]:
    relay = Relay(("127.0.0.1", target_port), loss, round_trip_s / 2)
    transport, outside = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Outside(relay), local_addr=("127.0.0.1", 0)
    )
    relay.port = transport.get_extra_info("sockname")[1]
    try:
        yield relay
    finally:
        relay.closed = True
        await outside.close()
