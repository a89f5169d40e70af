"""One RTMP connection on asyncio: the socket's side of a `ServerSession`, and the `Publisher` made of it.

Reading stops while the session waits for its decision, while the inbox is filling, and while the publisher is paused: TCP makes the
encoder wait. The buffer for reading is small until the publisher is accepted. Whatever the peer does, `close` ends in bounded time.
"""

import asyncio
import secrets
import socket
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import cast

from protocols.errors import ProtocolError, Reason, Rejected
from protocols.inbox import Inbox, Item, PauseSender
from protocols.media import EncodedPacket, LeftOut, TracksChanged
from protocols.publisher import Credential, PublisherStats
from protocols.rtmp.authmod import AdobeAuthenticator
from protocols.rtmp.events import Broken, Dismissed, Event, HandshakeDone, PublishRequested, StreamEnded
from protocols.rtmp.limits import RtmpLimits
from protocols.rtmp.session import ServerSession, SessionPhase

_TCP_INFO_BYTES = 104
_TCP_INFO_RTT = 68  # offset of tcpi_rtt in struct tcp_info (linux/tcp.h), µs
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)
_END = "NetStream.Unpublish"


class RtmpConnection(asyncio.BufferedProtocol):
    """The events of one socket: `greeted`, `opened`, `decided` and `lost`, each set when the connection is lost at the latest."""

    def __init__(self, limits: RtmpLimits, address: str, authenticator: AdobeAuthenticator | None) -> None:
        self.session = ServerSession(limits, address, authenticator, patient=True)
        self.filling = PauseSender(self._regulate)
        self.inbox = Inbox(limits.queue_ms, limits.queue_bytes, self.filling)
        self.greeted = asyncio.Event()  # the handshake is done
        self.opened = asyncio.Event()  # there is a `request`, or a `dismissal`
        self.decided = asyncio.Event()  # accepted or refused
        self.lost = asyncio.Event()
        self.request: PublishRequested | None = None
        self.dismissal: Dismissed | None = None
        self.error: ProtocolError | None = None
        self.connected = False  # there is a transport
        self.shaken = False  # the handshake came to its end
        self.paused = False  # by the publisher's reader
        self._limits = limits
        self._transport: asyncio.Transport | None = None
        self._socket: socket.socket | None = None
        self.resumed = 0  # ns, when reading last began again
        self._reading = True
        self._going_on = False
        self._settling: asyncio.TimerHandle | None = None
        self._closing = False
        self.ended = False  # by the encoder, in order

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports do not derive from it
        self._socket = transport.get_extra_info("socket")
        self.connected = True
        self._acknowledge_quickly()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.session.space()

    def buffer_updated(self, nbytes: int) -> None:
        self._acknowledge_quickly()
        self._handle(self.session.received(nbytes, time.monotonic_ns()))

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and not self.session.ending:
            self._finish(ProtocolError(f"the connection broke: {type(exc).__name__}"))
        elif self.session.stage is SessionPhase.LIVE and self.session.unfinished and not (self._closing or self.session.ending):
            self._finish(ProtocolError("the connection ended within a message"))
        else:  # ffmpeg 5 and nginx end their streams by closing the connection
            for item in self.session.settle():
                self.inbox.put(item)
            self._finish(None)
        for event in (self.greeted, self.opened, self.decided, self.lost):
            event.set()

    # What the listener and the publisher call

    def accept(self) -> None:
        if self.lost.is_set() or self._closing:
            raise self.error or ProtocolError("the encoder has gone")
        self.session.accept()
        self.decided.set()
        self.flush()
        self._go_on()

    def regulate(self, paused: bool) -> None:
        self.paused = paused
        self._regulate()

    def round_trip_ns(self) -> int:
        """The TCP round trip, 0 where the system does not say."""
        if self._socket is None or self.lost.is_set() or not hasattr(socket, "TCP_INFO"):
            return 0
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        except OSError:  # it has just been closed
            return 0
        return int.from_bytes(info[_TCP_INFO_RTT : _TCP_INFO_RTT + 4], "little") * 1000

    def flush(self) -> None:
        transport, output = self._transport, self.session.take_output()
        if transport is None or not output or transport.is_closing():
            return
        transport.write(output)
        if transport.get_write_buffer_size() > self._limits.output_bytes:
            self._break(ProtocolError("the peer does not read our replies"))

    async def close(self, code: str = "", description: str = "", error: ProtocolError | None = None) -> None:
        """Ends the connection, telling the encoder why where there is a `code`. Idempotent; bounded in time."""
        if self._transport is None:
            return
        if not self._closing:
            self._closing = True
            self.decided.set()
            self._finish(error)
            if code:
                self.session.end(code, description)
            self.session.stage = SessionPhase.OVER
            self.flush()
            self._regulate()
            try:
                await self._part(code != "" or self.dismissal is not None)
            finally:
                self.abort()
        await self.lost.wait()

    def abort(self) -> None:
        if self._transport is not None and not self.lost.is_set():
            self._transport.abort()

    async def _part(self, linger: bool) -> None:
        if self._transport is None or self.lost.is_set():
            return
        if self.ended:
            # GStreamer's rtmp2sink reports an error to its user if we close before it does.
            await self.gone(self._limits.close_s)
        elif linger:
            # The encoder has time to read why, and what it still sends is read: closing with unread bytes would make the kernel send a
            # reset, which destroys what we have said.
            await self.gone(self._limits.linger_s)
        if not self._transport.is_closing():
            self._transport.close()
        await self.gone(self._limits.close_s)

    async def gone(self, within_s: float) -> bool:
        """Whether the connection is lost, waiting for it at most so long."""
        try:
            async with asyncio.timeout(within_s):
                await self.lost.wait()
        except TimeoutError:
            return False
        return True

    def _handle(self, events: Iterable[Event]) -> None:
        for event in events:
            match event:
                case EncodedPacket() | TracksChanged() | LeftOut():
                    self.inbox.put(event)
                case HandshakeDone():
                    self.shaken = True
                    self.greeted.set()
                case PublishRequested():
                    self.request = event
                    self.opened.set()
                case Dismissed():
                    self.dismissal = event
                    self.opened.set()
                case StreamEnded():
                    self.ended = True
                    self._finish(None)
                case Broken(error, told):
                    self._break(error, told)
        if self.dismissal is None:  # its answer waits for its time
            self.flush()
        self._regulate()
        due = self.session.due
        if due is not None and self._settling is None:
            self._settling = asyncio.get_running_loop().call_later(max(0, due - time.monotonic_ns()) / 1e9, self._settle)

    def _settle(self) -> None:
        self._settling = None
        if not self._closing:
            self._handle(self.session.settle(time.monotonic_ns()))

    def _regulate(self) -> None:
        """Reads from the socket exactly while there is a use for more, and goes on with what was left of the last read."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        stage = self.session.stage
        waiting = not self._closing and (
            stage is SessionPhase.HELD
            or self.dismissal is not None
            or (stage is SessionPhase.LIVE and (self.paused or self.filling.high))
        )
        busy = self.session.busy and not self._closing
        if busy and not waiting and not self._going_on:
            self._going_on = True
            asyncio.get_running_loop().call_soon(self._go_on)
        reading = not waiting and not busy
        if reading != self._reading:
            self._reading = reading
            self.resumed = time.monotonic_ns()
            (transport.resume_reading if reading else transport.pause_reading)()

    def _go_on(self) -> None:
        self._going_on = False
        if self.lost.is_set() or self._closing:
            return
        self._handle(self.session.proceed(time.monotonic_ns()))

    def _break(self, error: ProtocolError, told: bool = False) -> None:
        self._finish(error)
        if told and self._transport is not None:  # how long it may take is whoever waits for `opened` to say
            self.flush()
            self._transport.close()
        else:
            self.abort()

    def _finish(self, error: ProtocolError | None) -> None:
        self.error = self.error or error
        self.inbox.end(error)

    def _acknowledge_quickly(self) -> None:
        # Encoders wait for our delayed acknowledgement (Nagle): 131 ms to publish without it, 1 ms with it. The kernel forgets it.
        if _QUICKACK is not None and self._socket is not None:
            self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)


class RtmpPublisher:
    """One encoder that wants to publish over RTMP: a `protocols.publisher.Publisher`."""

    def __init__(self, connection: RtmpConnection, request: PublishRequested, protocol: str, remote: str) -> None:
        self._connection = connection
        self._request = request
        self._protocol = protocol
        self._remote = remote
        self._id = secrets.token_urlsafe(12)
        self._stats = PublisherStats()

    @property
    def id(self) -> str:
        return self._id

    @property
    def protocol(self) -> str:
        return self._protocol

    @property
    def remote(self) -> str:
        return self._remote

    @property
    def software(self) -> str:
        return self._connection.session.software

    @property
    def credential(self) -> Credential:
        return self._request.credential

    @property
    def params(self) -> Mapping[str, str]:
        return self._request.params

    @property
    def stats(self) -> PublisherStats:
        session = self._connection.session
        self._stats.bytes_received = session.bytes_received
        self._stats.packets_received = session.packets_received
        self._stats.packets_ignored = session.packets_ignored
        self._stats.packets_unreadable = session.packets_unreadable
        self._stats.round_trip_ns = self._connection.round_trip_ns() or self._stats.round_trip_ns
        self._stats.stopped = self._connection.session.ending or self._connection.ended
        return self._stats

    async def accept(self) -> None:
        self._connection.accept()

    async def reject(self, refusal: Rejected) -> None:
        await self._connection.close(refusal.reason.rtmp_code, refusal.detail)

    def __aiter__(self) -> AsyncIterator[Item]:
        return aiter(self._connection.inbox)

    def pause(self, paused: bool) -> None:
        self._connection.regulate(paused)

    def request_keyframe(self, layer: str = "") -> bool:
        return False  # RTMP has no way to ask

    async def aclose(self, why: str = "") -> None:
        await self._connection.close(_END if why else "", why)

    async def watch(self, limits: RtmpLimits) -> None:
        """Waits for the end of the connection, and makes it where the session does not decide or the encoder sends no media."""
        connection, session = self._connection, self._connection.session
        if not await self._decided(limits.decision_s):
            await self.reject(Rejected(Reason.INTERNAL, "The server did not decide in time."))
        since = time.monotonic_ns()
        idle_ns = int(limits.media_idle_s * 1e9)
        while True:
            now = time.monotonic_ns()
            if connection.paused or connection.filling.high:
                since = now  # it is we who do not read
            quiet = now - max(since, session.last_media, connection.resumed)
            if quiet >= idle_ns:
                why = f"No media for {limits.media_idle_s:g} s."
                await connection.close(_END, why, ProtocolError(why))
            if await connection.gone((idle_ns - quiet) / 1e9):
                return

    async def _decided(self, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                await self._connection.decided.wait()
        except TimeoutError:
            return False
        return True
