"""Caller mode: pulls an `srt://` source and presents it as a publisher that outlives the source's absences.

Kept true here:
* A name is resolved once per attempt and the checked address is the one connected to: no second look-up could answer otherwise (DNS
  rebinding). Addresses that are not of the public internet are refused unless allowed.
* After a connection is lost or refused, the next attempt follows with growing waits; they begin anew once media has come.
"""

import asyncio
import logging
import secrets
import socket as sockets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from types import MappingProxyType
from typing import Final

from protocols.addresses import is_public
from protocols.back_off import BackOff
from protocols.errors import ProtocolError, Reason, Rejected
from protocols.inbox import Inbox, Item
from protocols.publisher import Credential
from protocols.srt.address import Address
from protocols.srt.connection import SrtConnection, inbox, prepare
from protocols.srt.libsrt import FAILED, READABLE, WRITABLE, Option
from protocols.srt.limits import DEFAULT_LATENCY_MS, ReceiveLimits
from protocols.srt.receiver import SrtReceiver
from protocols.srt.source_url import SourceUrl
from protocols.srt.statistics import SrtStats
from protocols.srt.tracks import TsDemuxer

log = logging.getLogger(__name__)

_CONNECT_MS: Final = 3000  # SRTO_CONNTIMEO
_CONNECT_S: Final = 5.0  # beyond libsrt's own
_RESOLVE_S: Final = 5.0
BACK_OFF: Final = BackOff(1.0, 30.0)

_REFUSALS: Final[Mapping[int, str]] = {
    10: "wrong passphrase",
    11: "a passphrase is set on one side only",
    14: "no handshake: not an SRT listener, or another SRT mode",
    16: "the source did not answer",
    1400: "bad stream id",
    1401: "unauthorised",
    1402: "overloaded, or too many calls",
    1403: "forbidden",
    1404: "no such stream",
    1405: "the source does not give streams to callers",
    1409: "the stream is in use",
}


async def resolve(source: SourceUrl, allow_private: bool) -> Address:
    """The address to connect to; raises `Rejected` (FORBIDDEN) for a private one, `OSError` where the name is not found."""
    async with asyncio.timeout(_RESOLVE_S):
        found = await asyncio.get_running_loop().getaddrinfo(source.host, source.port, type=sockets.SOCK_DGRAM)
    hosts = [str(entry[4][0]) for entry in found]
    for host in hosts:
        if allow_private or is_public(host):
            return Address(host, source.port)
    raise Rejected(
        Reason.FORBIDDEN, f"{source} is not on the public internet: allow private sources in the configuration to pull it"
    )


class SrtSource:
    """A pulled stream (`protocols.publisher.Publisher`). Its iteration connects, and goes on over reconnections until `aclose`;
    it ends early only with `Rejected`, where the address is not allowed."""

    protocol = "srt"
    software = ""

    def __init__(
        self,
        receiver: SrtReceiver,
        source: SourceUrl,
        *,
        credential: Credential,
        params: Mapping[str, str] | None = None,
        latency_ms: int = DEFAULT_LATENCY_MS,
        allow_private: bool = False,
        back_off: BackOff = BACK_OFF,
        limits: ReceiveLimits | None = None,
    ) -> None:
        self.id = secrets.token_urlsafe(12)
        self.remote = str(source)
        self.credential = credential
        self.params = MappingProxyType(dict(params or {}))
        self.stats = SrtStats()
        self._receiver = receiver
        self._source = source
        self._latency_ms = source.access.latency_ms or latency_ms
        self._allow_private = allow_private
        self._back_off = back_off
        self._limits = limits or ReceiveLimits()
        self._closed = asyncio.Event()
        self._socket: int | None = None
        self._inbox: Inbox | None = None

    @property
    def last_error(self) -> str:
        """Why the last attempt or connection ended; empty while media flows."""
        return self.stats.absent

    async def until_closed(self) -> None:
        """Wait until it has been closed."""
        await self._closed.wait()

    async def accept(self) -> None:
        """Nothing to say to a source before it is called."""

    async def reject(self, refusal: Rejected) -> None:
        await self.aclose(refusal.detail)

    def pause(self, paused: bool) -> None:
        """SRT has no back-pressure that a live source heeds."""

    def request_keyframe(self, layer: str = "") -> bool:
        return False

    async def aclose(self, why: str = "") -> None:
        self._closed.set()
        if self._socket is not None:
            self._receiver.end(self._socket, None)
        if self._inbox is not None:
            self._inbox.end(None)

    async def __aiter__(self) -> AsyncIterator[Item]:
        failures = 0
        while not self._closed.is_set():
            try:
                async with aclosing(self._attempt()) as items:
                    async for item in items:
                        failures, self.stats.absent = 0, ""
                        yield item
                self.stats.absent = "the source ended the stream"
            except (ProtocolError, OSError) as error:  # TimeoutError and SrtError are OSErrors
                self.stats.absent = str(error) or "no answer"
            if self._closed.is_set():
                return
            failures += 1
            wait = self._back_off.wait_s(failures)
            self.stats.reconnects += 1
            log.info("SRT source %s: %s; next attempt in %.1f s", self._source, self.stats.absent, wait)
            try:
                async with asyncio.timeout(wait):
                    await self._closed.wait()
            except TimeoutError:
                continue

    async def _attempt(self) -> AsyncGenerator[Item, None]:
        """One connection, from the name to its end."""
        address = await resolve(self._source, self._allow_private)
        self._inbox = box = inbox(self._limits, self.stats)
        receiver = self._receiver
        self._socket = socket = receiver.srt.create()
        try:
            self._prepare(socket)
            receiver.srt.connect(socket, address)
        except OSError:
            receiver.srt.close(socket)
            raise
        connection = SrtConnection(receiver, socket, TsDemuxer(), box, self.stats, self._limits, self._disconnected)
        receiver.watch(_Calling(receiver, socket, connection, box, self._limits.max_latency_ms))
        try:
            async for item in box:
                yield item
        finally:
            receiver.end(socket, None)
            self._socket = None

    def _disconnected(self) -> None:
        self._socket = None

    def _prepare(self, socket: int) -> None:
        srt, access = self._receiver.srt, self._source.access
        prepare(srt, socket, self._limits, min(self._latency_ms, self._limits.max_latency_ms))
        srt.set(socket, Option.CONNTIMEO, _CONNECT_MS)
        if self._source.stream_id:
            srt.set(socket, Option.STREAMID, self._source.stream_id)
        if access.passphrase is not None:
            srt.set(socket, Option.PASSPHRASE, access.passphrase)
            if self._source.key_bytes:
                srt.set(socket, Option.PBKEYLEN, self._source.key_bytes)


class _Calling:
    """A socket on its way to being connected, watched by the receiver; then its `Connection` takes over."""

    events = READABLE | WRITABLE | FAILED

    def __init__(
        self, receiver: SrtReceiver, socket: int, connection: SrtConnection, inbox: Inbox, max_latency_ms: int
    ) -> None:
        self._max_latency_ms = max_latency_ms
        self.socket = socket
        self._receiver = receiver
        self._connection = connection
        self._inbox = inbox
        self._since: int | None = None

    def ready(self, now: int) -> None:
        srt, receiver = self._receiver.srt, self._receiver
        if not srt.connected(self.socket):
            code = srt.reject_reason(self.socket)
            raise ProtocolError(f"the source refuses: {_REFUSALS.get(code, f'reason {code}')}")
        if srt.get(self.socket, Option.RCVLATENCY) > self._max_latency_ms:
            raise ProtocolError(f"the source wants more than {self._max_latency_ms} ms of latency")
        receiver.release(self.socket)
        receiver.watch(self._connection)

    def sweep(self, now: int) -> None:
        self._since = self._since or now
        if now - self._since > _CONNECT_S * 1e9:
            raise ProtocolError("the source did not answer")

    def ended(self, error: ProtocolError | None, now: int) -> None:
        self._inbox.end(error)
