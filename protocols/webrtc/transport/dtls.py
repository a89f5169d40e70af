"""DTLS with one peer, and the SRTP keys that come of it (RFC 5764, RFC 8827). The only file that knows aiortc's private names.

What is kept true: nothing that a peer sends raises anything but `ProtocolError` out of `handshake`; the peer's certificate has the
fingerprint of its offer; peers with ECDSA and with RSA certificates both connect, in either role; a lost first flight is sent again after
100 ms, not after OpenSSL's second; closing sends close_notify, so that the peer sees it at once; whatever is computed for a datagram is
computed within `computing`, and nothing is waited for in it.
"""

import asyncio
import datetime
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext

import pylibsrtp
from aiortc.rtcdtlstransport import (
    RTCCertificate,
    RTCDtlsFingerprint,
    RTCDtlsParameters,
    RTCDtlsTransport,
    SRTPProtectionProfile,
)
from cryptography.exceptions import UnsupportedAlgorithm
from OpenSSL import SSL

from protocols.errors import ProtocolError

# Browsers and OBS present ECDSA, GStreamer before 1.28 RSA: with ECDSA suites alone an RSA server finds no shared cipher.
_CIPHERS = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    b"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA"
)
_RESEND_AFTER = (0.1, 0.2, 0.4)  # s; OpenSSL's own timer goes on from 1 s
_INBOX = 32  # datagrams: a flight has at most a handful
_FLIGHT = 16  # datagrams kept for sending again
_RENEW = datetime.timedelta(days=1)

# What OpenSSL, libsrtp, cryptography and aiortc raise on a hostile handshake or certificate.
_FAILURES = (
    SSL.Error,
    pylibsrtp.Error,
    UnsupportedAlgorithm,
    ConnectionError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
)


class Certificate(RTCCertificate):
    """The gateway's certificate, one for all peers (ECDSA P-256, 30 days), with one TLS context for all of them."""

    _context: SSL.Context | None = None

    @classmethod
    def generate(cls) -> "Certificate":
        return cls.generateCertificate()

    @property
    def fingerprint(self) -> str:
        """The value of `a=fingerprint:`."""
        return next(f"sha-256 {each.value}" for each in self.getFingerprints() if each.algorithm == "sha-256")

    @property
    def expiring(self) -> bool:
        return self.expires - datetime.datetime.now(datetime.UTC) < _RENEW

    def _create_ssl_context(self, srtp_profiles: list[SRTPProtectionProfile]) -> SSL.Context:
        if self._context is None:
            context = super()._create_ssl_context(srtp_profiles)
            context.set_cipher_list(_CIPHERS)
            # A resumed session would skip the peer's certificate, and with it the fingerprint.
            context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
            self._context = context
        return self._context


class _Path:
    """What `RTCDtlsTransport` needs of an ICE transport: a role, and datagrams in and out."""

    role = "controlled"

    def __init__(self, send: Callable[[bytes], None], computing: AbstractAsyncContextManager[object]) -> None:
        self.arrived = asyncio.Event()
        """Set while something waits to be read."""
        self._send_datagram = send
        self._inbox: deque[bytes] = deque()
        self._flight: list[bytes] | None = []
        self._computing = computing
        self._step = AsyncExitStack()

    def receive(self, datagram: bytes) -> bool:
        if len(self._inbox) >= _INBOX:
            return False
        self._inbox.append(datagram)
        self.arrived.set()
        return True

    async def begin_step(self) -> None:
        """From here until `end_step` or the next read something is computed."""
        await self._step.enter_async_context(self._computing)

    async def end_step(self) -> None:
        await self._step.aclose()

    def established(self) -> None:
        """Nothing is answered any more: flights are not sent again."""
        self._flight = None

    async def _send(self, datagram: bytes) -> None:
        if self._flight is not None and len(self._flight) < _FLIGHT:
            self._flight.append(datagram)
        self._send_datagram(datagram)

    async def _recv(self) -> bytes:
        """The next datagram. RFC 6347 §4.2.4.1 allows a shorter timer: the flight goes out again until something comes."""
        await self.end_step()
        for wait in _RESEND_AFTER if self._flight else ():
            try:
                async with asyncio.timeout(wait):
                    return await self._next()
            except TimeoutError:
                for datagram in self._flight or ():
                    self._send_datagram(datagram)
        return await self._next()

    async def _next(self) -> bytes:
        await self.arrived.wait()
        await self.begin_step()  # before it is taken: who is called off while waiting for their turn loses nothing
        datagram = self._inbox.popleft()
        if not self._inbox:
            self.arrived.clear()
        if self._flight:
            self._flight.clear()
        return datagram


class DtlsSession:
    """One DTLS association. `send` puts a datagram on the peer's path and must not raise. `computing` is entered for each step that
    something is computed in; it can be entered again and again, and says when it is this association's turn."""

    def __init__(
        self,
        certificate: Certificate,
        *,
        active: bool,
        send: Callable[[bytes], None],
        computing: AbstractAsyncContextManager[object] | None = None,
    ) -> None:
        self._path = _Path(send, computing or nullcontext())
        self._active = active
        self._transport = RTCDtlsTransport(self._path, [certificate])  # type: ignore[arg-type]  # duck-typed
        self._transport._set_role("client" if active else "server")

    def receive(self, datagram: bytes) -> bool:
        """Take a datagram whose first byte is 20 to 63 (RFC 7983); False when too many wait."""
        return self._path.receive(datagram)

    async def ready(self) -> None:
        """Until the handshake has something to do: at once when active, with the peer's first datagram when passive."""
        if not self._active:
            await self._path.arrived.wait()

    async def handshake(self, fingerprints: Sequence[tuple[str, str]]) -> tuple[pylibsrtp.Session, pylibsrtp.Session]:
        """Connect with the peer whose certificate has `fingerprints` (hash, hex), and give its SRTP sessions: outbound, inbound.

        Raises `ProtocolError`; it has no timeout of its own.
        """
        parameters = RTCDtlsParameters([RTCDtlsFingerprint(algorithm, value) for algorithm, value in fingerprints])
        await self._path.begin_step()
        try:
            await self._transport.start(parameters)
        except _FAILURES as error:
            raise ProtocolError(f"the DTLS handshake failed: {type(error).__name__}") from error
        finally:
            await self._path.end_step()
        outbound, inbound = self._transport._tx_srtp, self._transport._rx_srtp
        if self._transport.state != "connected" or outbound is None or inbound is None:
            raise ProtocolError("the DTLS handshake failed")
        self._path.established()
        return outbound, inbound

    async def closed(self) -> None:
        """Until the peer has sent close_notify, after a handshake."""
        if (pump := self._transport._task) is not None:
            await _ended(pump)

    async def aclose(self) -> None:
        """Send close_notify and end. Idempotent, and never waits for the peer."""
        pump = self._transport._task
        await self._path.end_step()
        await self._transport.stop()
        if pump is not None:
            await _ended(pump)


async def _ended(pump: asyncio.Future[None]) -> None:
    """Wait for aiortc's receiving task; how it ended does not matter, it has nothing to give."""
    await asyncio.wait({pump})
    if not pump.cancelled():
        pump.exception()
