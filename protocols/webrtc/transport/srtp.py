"""SRTP in place: packets are protected in the memory that they are built in and sent from (RFC 3711, RFC 7714).

The only file that names pylibsrtp's private `lib` and `ffi` (its public interface copies every packet three times); a contract test
holds them.
"""

from typing import Any

from pylibsrtp import Error, Session
from pylibsrtp._binding import ffi, lib

from protocols.errors import ProtocolError

CAPACITY = 1 << 16
TRAILER_LIMIT = 144  # SRTP_MAX_TAG_LEN + SRTP_MAX_MKI_LEN: what libsrtp may write behind a packet
_RTCP_LIMIT = 1500 - TRAILER_LIMIT - 4
_DATAGRAM_LIMIT = 1500
_RTP_MINIMUM = 12
_RTCP_MINIMUM = 8 + 4  # RFC 3711 §3.4: header, SSRC and the SRTCP index


class SrtpError(Exception):
    """libsrtp would not protect a packet: this viewer cannot get it; no other is touched. The number is libsrtp's status."""


class Arena:
    """64 KiB in which the packets of one run are built side by side. One for all viewers: each run leaves before the next is built."""

    __slots__ = ("_memory", "base", "length", "view")

    def __init__(self) -> None:
        self._memory = ffi.new("char[]", CAPACITY)
        self.base: Any = self._memory
        self.length: Any = ffi.new("int *")
        self.view = memoryview(ffi.buffer(self._memory))


class OutboundSrtp:
    """Protects what goes to one peer. Keeps the session (and its keys) alive."""

    __slots__ = ("_context", "_protect", "_session", "address")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._context = session._srtp[0]
        self._protect = lib.srtp_protect
        self.address = int(ffi.cast("uintptr_t", self._context))
        """Of libsrtp's session, as long as this lives."""

    def protect(self, arena: Arena, offset: int, size: int) -> int:
        """Protects the RTP packet at `offset` in place and gives its new size; the caller leaves `TRAILER_LIMIT` bytes behind it.

        Raises `SrtpError`: key exhausted, or a repeated packet older than the session's window.
        """
        length = arena.length
        length[0] = size
        status = self._protect(self._context, arena.base + offset, length)
        if status:
            raise SrtpError(status)
        return length[0]  # type: ignore[no-any-return]

    def protect_rtcp(self, data: bytes) -> bytes:
        """One compound packet. Raises `SrtpError` as `protect`, and `ValueError` above 1352 bytes."""
        if len(data) > _RTCP_LIMIT:
            raise ValueError("compound RTCP packet too long")
        try:
            return bytes(self._session.protect_rtcp(data))
        except Error as error:
            raise SrtpError(str(error)) from None


def protect_address() -> int:
    """Of libsrtp's `srtp_protect`."""
    return int(ffi.cast("uintptr_t", ffi.addressof(lib, "srtp_protect")))


class InboundSrtp:
    """Checks and opens what comes from one peer."""

    __slots__ = ("_buffer", "_context", "_length", "_memory", "_session")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._context = session._srtp[0]
        self._memory = ffi.new("char[]", _DATAGRAM_LIMIT)
        self._buffer = ffi.buffer(self._memory)
        self._length = ffi.new("int *")

    def unprotect_rtp(self, data: bytes) -> bytes:
        """Raises `ProtocolError` for what was not made with the peer's key, came before, or cannot be RTP."""
        return self._open(data, lib.srtp_unprotect, _RTP_MINIMUM)

    def unprotect_rtcp(self, data: bytes) -> bytes:
        """Raises `ProtocolError` as `unprotect_rtp`."""
        return self._open(data, lib.srtp_unprotect_rtcp, _RTCP_MINIMUM)

    def _open(self, data: bytes, unprotect: Any, minimum: int) -> bytes:
        size = len(data)
        if not minimum <= size <= _DATAGRAM_LIMIT:
            raise ProtocolError("SRTP packet of an impossible size")
        self._buffer[0:size] = data
        self._length[0] = size
        if unprotect(self._context, self._memory, self._length):
            raise ProtocolError("SRTP packet not authentic or repeated")
        return bytes(self._buffer[0 : self._length[0]])
