"""DTLS with one peer, and the SRTP keys that come of it (RFC 5764, RFC 8827), by OpenSSL in memory.

What is kept true: nothing that a peer sends raises anything but `ProtocolError` out of `handshake`; the peer's certificate has the
fingerprint of its offer; peers with ECDSA and with RSA certificates both connect, in either role; a lost first flight is sent again after
100 ms, not after OpenSSL's second; closing sends close_notify, so that the peer sees it at once; whatever is computed for a datagram is
computed within `computing`, and nothing is waited for in it.
"""

import asyncio
import datetime
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from typing import NamedTuple, Self

import pylibsrtp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL, crypto
from pylibsrtp import Policy

from protocols.errors import ProtocolError

# Browsers and OBS present ECDSA, GStreamer before 1.28 RSA: with ECDSA suites alone an RSA server finds no shared cipher.
_CIPHERS = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    b"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA"
)
_DIGESTS = ("sha-256", "sha-384", "sha-512")  # of fingerprints; those before them prove nothing (RFC 8122 §5)
_RESEND_AFTER = (0.1, 0.2, 0.4)  # s; OpenSSL's own timer goes on from 1 s
_INBOX = 32  # datagrams: a flight has at most a handful
_DATAGRAM = 1500  # a flight of ours, with a certificate of P-256, is half of it: OpenSSL's records of one flight leave together
_VALID_FROM = datetime.timedelta(days=-1)  # clocks of peers go wrong
_VALID_FOR = datetime.timedelta(days=30)
_RENEW = datetime.timedelta(days=1)
_REPAIR_WINDOW = 1024  # packets: so far back one can be sent again, and one that comes late is told from a repeated one


class SrtpProfile(NamedTuple):
    """A way to protect media (RFC 5764 §4.1.2, RFC 7714 §14.2) that both libraries know."""

    openssl: bytes
    libsrtp: int
    key: int
    salt: int
    """Lengths of the master key and salt in bytes."""


def _known_to_libsrtp(profile: SrtpProfile) -> bool:
    """It can be built without AES-GCM."""
    try:
        Policy(srtp_profile=profile.libsrtp)
    except pylibsrtp.Error:
        return False
    return True


_PROFILES = tuple(  # the preferred first
    filter(
        _known_to_libsrtp,
        (
            SrtpProfile(b"SRTP_AEAD_AES_256_GCM", Policy.SRTP_PROFILE_AEAD_AES_256_GCM, 32, 12),
            SrtpProfile(b"SRTP_AEAD_AES_128_GCM", Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 16, 12),
            SrtpProfile(b"SRTP_AES128_CM_SHA1_80", Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 16, 14),
        ),
    )
)


class Certificate:
    """The gateway's certificate, one for all peers, with one TLS context for all of them. Use `Certificate.generate`."""

    def __init__(self, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, certificate: x509.Certificate) -> None:
        self._certificate = certificate
        context = SSL.Context(SSL.DTLS_METHOD)
        # A resumed session would skip the peer's certificate, and with it the fingerprint. A second handshake in one that stands could
        # change it, and be asked for without end.
        context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _any_issuer)
        context.use_certificate(certificate)
        context.use_privatekey(key)
        context.set_cipher_list(_CIPHERS)
        context.set_tlsext_use_srtp(b":".join(profile.openssl for profile in _PROFILES))
        self.context = context

    @classmethod
    def generate(cls) -> Self:
        """ECDSA P-256, for 30 days, and with a name that says nothing."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, secrets.token_hex(16))])
        now = datetime.datetime.now(datetime.UTC)
        unsigned = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        unsigned = unsigned.not_valid_before(now + _VALID_FROM).not_valid_after(now + _VALID_FOR)
        return cls(key, unsigned.sign(key, hashes.SHA256()))

    @property
    def fingerprint(self) -> str:
        """The value of `a=fingerprint:`."""
        return f"sha-256 {self._certificate.fingerprint(hashes.SHA256()).hex(':').upper()}"

    @property
    def expiring(self) -> bool:
        return self._certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC) < _RENEW


def _any_issuer(*_: object) -> bool:
    """Peers sign their own certificates: the fingerprint says whose it is."""
    return True


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
        self._certificate = certificate
        self._active = active
        self._send = send
        self._computing = computing or nullcontext()
        self._inbox: deque[bytes] = deque()
        self._arrived = asyncio.Event()  # set while something waits to be read
        self._flight = b""  # what was sent last in the handshake, until something comes
        self._tls: SSL.Connection | None = None  # from the start of the handshake until either end has closed
        self._reader: asyncio.Task[None] | None = None  # after the handshake

    def receive(self, datagram: bytes) -> bool:
        """Take a datagram whose first byte is 20 to 63 (RFC 7983); False when too many wait."""
        if len(self._inbox) >= _INBOX:
            return False
        self._inbox.append(datagram)
        self._arrived.set()
        return True

    async def ready(self) -> None:
        """Until the handshake has something to do: at once when active, with the peer's first datagram when passive."""
        if not self._active:
            await self._arrived.wait()

    async def handshake(self, fingerprints: Sequence[tuple[str, str]]) -> tuple[pylibsrtp.Session, pylibsrtp.Session]:
        """Connect with the peer whose certificate has `fingerprints` (hash, hex), and give its SRTP sessions: outbound, inbound.

        Raises `ProtocolError`; it has no timeout of its own.
        """
        tls = self._tls = SSL.Connection(self._certificate.context)
        if self._active:
            tls.set_connect_state()
        else:
            tls.set_accept_state()
        try:
            while True:
                async with self._computing:
                    if self._advance(tls):
                        _prove_identity(tls, fingerprints)
                        sessions = _srtp_sessions(tls, self._active)
                        break
                await self._news(tls)
        except (SSL.Error, pylibsrtp.Error) as error:
            raise ProtocolError(f"the DTLS handshake failed: {type(error).__name__}") from error
        self._flight = b""  # nothing is answered any more
        self._reader = asyncio.get_running_loop().create_task(self._read(tls))
        return sessions

    async def closed(self) -> None:
        """Until the peer has sent close_notify, after a handshake."""
        if (reader := self._reader) is not None:
            await asyncio.wait({reader})
            if not reader.cancelled():
                reader.result()  # a defect, if anything

    async def aclose(self) -> None:
        """Send close_notify and end. Idempotent, and never waits for the peer; the goodbye is said before anything is waited for, so that
        whoever is cancelled here again has said it."""
        if (tls := self._tls) is not None:
            self._tls = None
            with suppress(SSL.Error):  # amid the handshake there is no goodbye
                tls.shutdown()
                self._flush(tls)
        if (reader := self._reader) is not None:
            reader.cancel()
            await asyncio.wait({reader})

    def _advance(self, tls: SSL.Connection) -> bool:
        """One step of the handshake, with the next datagram if there is one: whether it is done. Raises `SSL.Error`."""
        try:
            self._feed(tls)
            tls.do_handshake()
        except SSL.WantReadError:
            return False
        finally:
            self._flight = self._flush(tls)  # after a failure the alert that says so
        return True

    async def _read(self, tls: SSL.Connection) -> None:
        """What comes after the handshake, until the peer's close_notify: a flight that it sends again is answered again; there are no data
        channels."""
        while self._tls is not None:
            await self._news(tls)
            async with self._computing:
                try:
                    self._feed(tls)
                    while tls.recv(_DATAGRAM):
                        pass
                except SSL.ZeroReturnError:
                    self._tls = None
                except SSL.Error:  # there is no more, or it was not the peer's
                    pass
                self._flush(tls)

    async def _news(self, tls: SSL.Connection) -> None:
        """Until a datagram has come or OpenSSL's timer has run out. RFC 6347 §4.2.4.1 allows a shorter timer: the flight goes out again
        until something comes."""
        for wait in _RESEND_AFTER if self._flight else ():
            if await self._came_within(wait):
                return
            self._send(self._flight)
        await self._came_within(tls.DTLSv1_get_timeout())

    async def _came_within(self, seconds: float | None) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._arrived.wait()
        except TimeoutError:
            return False

    def _feed(self, tls: SSL.Connection) -> None:
        """Give OpenSSL the next datagram, or its timer's due."""
        if self._inbox:
            tls.bio_write(self._inbox.popleft())
            if not self._inbox:
                self._arrived.clear()
        else:
            tls.DTLSv1_handle_timeout()

    def _flush(self, tls: SSL.Connection) -> bytes:
        """Send what OpenSSL has to say, and give it."""
        try:
            datagram = tls.bio_read(_DATAGRAM)
        except SSL.WantReadError:
            return b""
        self._send(datagram)
        return datagram


def _prove_identity(tls: SSL.Connection, fingerprints: Sequence[tuple[str, str]]) -> None:
    """The peer's certificate has all fingerprints of the offer that can prove anything, and there is one (RFC 8122 §5). Raises
    `ProtocolError`."""
    named = [(name.lower(), value.upper()) for name, value in fingerprints if name.lower() in _DIGESTS]
    certificate = tls.get_peer_certificate()
    if certificate is None or not named or any(value != _digest(certificate, name) for name, value in named):
        raise ProtocolError("the DTLS handshake failed: the certificate is not the one that the offer names")


def _digest(certificate: crypto.X509, name: str) -> str:
    return certificate.digest(name.replace("-", "")).decode()


def _srtp_sessions(tls: SSL.Connection, active: bool) -> tuple[pylibsrtp.Session, pylibsrtp.Session]:
    """Outbound and inbound, with the keys of RFC 5764 §4.2. Raises `ProtocolError` where the peer knows no way that we know."""
    agreed = tls.get_selected_srtp_profile()
    profile = next((each for each in _PROFILES if each.openssl == agreed), None)
    if profile is None:
        raise ProtocolError("the DTLS handshake failed: no SRTP profile was agreed on")
    _, libsrtp, key, salt = profile
    secret = tls.export_keying_material(b"EXTRACTOR-dtls_srtp", 2 * (key + salt))
    client = secret[:key] + secret[2 * key : 2 * key + salt]
    server = secret[key : 2 * key] + secret[2 * key + salt :]
    own, peers = (client, server) if active else (server, client)
    outbound = Policy(own, Policy.SSRC_ANY_OUTBOUND, srtp_profile=libsrtp)
    inbound = Policy(peers, Policy.SSRC_ANY_INBOUND, srtp_profile=libsrtp)
    for policy in (outbound, inbound):
        policy.window_size = _REPAIR_WINDOW
    outbound.allow_repeat_tx = True  # repair without RTX sends the same packet twice
    return pylibsrtp.Session(outbound), pylibsrtp.Session(inbound)
