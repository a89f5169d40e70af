"""The system's libsrt 1.5 behind a small typed surface (cffi, ABI mode): the only file that touches it.

Kept true here:
* The library is found at run time and its version checked: struct layouts are the same in all of 1.5.x and change in 1.6.
* It is started once per process and cleaned up once, at exit, after whatever was registered later (libsrt's collector thread
  races with exit handlers otherwise).
* Errors are asked for in the thread and call that made them: `srt_getlasterror` is per thread.
* No libsrt log handler is installed: it would be called from every libsrt thread and fight for the interpreter lock.

All calls release the interpreter lock. A socket is an int; every function may be called from any thread, but one socket belongs to one.
"""

import atexit
import contextlib
import os
import sys
from collections.abc import Callable
from enum import IntEnum
from functools import cache
from typing import Any, Final

import cffi  # type: ignore[import-untyped]

from protocols.srt.address import Address, pack_sockaddr, unpack_sockaddr
from protocols.srt.statistics import LinkStatistics

_DECLARATIONS: Final = """
typedef int32_t SRTSOCKET;
typedef struct {
   int64_t msTimeStamp; int64_t pktSentTotal; int64_t pktRecvTotal;
   int pktSndLossTotal; int pktRcvLossTotal; int pktRetransTotal; int pktSentACKTotal; int pktRecvACKTotal;
   int pktSentNAKTotal; int pktRecvNAKTotal; int64_t usSndDurationTotal;
   int pktSndDropTotal; int pktRcvDropTotal; int pktRcvUndecryptTotal;
   uint64_t byteSentTotal; uint64_t byteRecvTotal; uint64_t byteRcvLossTotal; uint64_t byteRetransTotal;
   uint64_t byteSndDropTotal; uint64_t byteRcvDropTotal; uint64_t byteRcvUndecryptTotal;
   int64_t pktSent; int64_t pktRecv; int pktSndLoss; int pktRcvLoss; int pktRetrans; int pktRcvRetrans;
   int pktSentACK; int pktRecvACK; int pktSentNAK; int pktRecvNAK; double mbpsSendRate; double mbpsRecvRate;
   int64_t usSndDuration; int pktReorderDistance; double pktRcvAvgBelatedTime; int64_t pktRcvBelated;
   int pktSndDrop; int pktRcvDrop; int pktRcvUndecrypt;
   uint64_t byteSent; uint64_t byteRecv; uint64_t byteRcvLoss; uint64_t byteRetrans; uint64_t byteSndDrop;
   uint64_t byteRcvDrop; uint64_t byteRcvUndecrypt;
   double usPktSndPeriod; int pktFlowWindow; int pktCongestionWindow; int pktFlightSize; double msRTT;
   double mbpsBandwidth; int byteAvailSndBuf; int byteAvailRcvBuf; double mbpsMaxBW; int byteMSS;
   int pktSndBuf; int byteSndBuf; int msSndBuf; int msSndTsbPdDelay;
   int pktRcvBuf; int byteRcvBuf; int msRcvBuf; int msRcvTsbPdDelay;
} SRT_TRACEBSTATS; /* the fields up to here are all that is read */
typedef struct { SRTSOCKET fd; int events; } SRT_EPOLL_EVENT;
typedef int srt_listen_callback_fn(void* opaque, SRTSOCKET socket, int hsversion, const void* peer, const char* streamid);
int srt_startup(void); int srt_cleanup(void); uint32_t srt_getversion(void); void srt_setloglevel(int level);
SRTSOCKET srt_create_socket(void); int srt_close(SRTSOCKET u); int srt_getsockstate(SRTSOCKET u);
int srt_bind(SRTSOCKET u, const void* name, int namelen); int srt_listen(SRTSOCKET u, int backlog);
SRTSOCKET srt_accept(SRTSOCKET u, void* addr, int* addrlen);
int srt_listen_callback(SRTSOCKET listener, srt_listen_callback_fn* hook, void* opaque);
int srt_connect(SRTSOCKET u, const void* name, int namelen);
int srt_getpeername(SRTSOCKET u, void* name, int* namelen); int srt_getsockname(SRTSOCKET u, void* name, int* namelen);
int srt_getsockflag(SRTSOCKET u, int opt, void* value, int* length);
int srt_setsockflag(SRTSOCKET u, int opt, const void* value, int length);
int srt_recvmsg(SRTSOCKET u, char* buffer, int length);
int srt_sendmsg(SRTSOCKET u, const char* buffer, int length, int ttl, int inorder);
const char* srt_getlasterror_str(void); int srt_getlasterror(int* errno_location);
int srt_bistats(SRTSOCKET u, void* performance, int clear, int instantaneous);
int srt_epoll_create(void); int srt_epoll_release(int eid);
int srt_epoll_add_usock(int eid, SRTSOCKET u, const int* events); int srt_epoll_remove_usock(int eid, SRTSOCKET u);
int srt_epoll_uwait(int eid, SRT_EPOLL_EVENT* set, int size, int64_t timeout_ms);
int srt_getrejectreason(SRTSOCKET u); int srt_setrejectreason(SRTSOCKET u, int value);
int malloc_trim(size_t keep_bytes); /* of the C library that it is linked with */
"""

_LIBRARY_NAMES: Final = {
    # Debian's GnuTLS flavour first: its AES costs a tenth of the other's on bookworm.
    "linux": ("libsrt-gnutls.so.1.5", "libsrt.so.1.5"),
    "darwin": (
        "/opt/homebrew/opt/srt/lib/libsrt.1.5.dylib",
        "/usr/local/opt/srt/lib/libsrt.1.5.dylib",
        "libsrt.1.5.dylib",
    ),
}
_INSTALL: Final = {"darwin": "brew install srt"}
_INSTALL_ELSEWHERE: Final = "apt-get install -y libsrt1.5-gnutls"

MAX_STREAM_ID: Final = 512  # SRT handshake extension SRT_CMD_SID
MAX_MESSAGE: Final = 1456  # live mode: one message per UDP packet
_MESSAGES_PER_READ: Final = 64
_EVENTS_PER_WAIT: Final = 256
_STATISTICS_BYTES: Final = 4096  # "fields are only appended": room for those that we do not know

READABLE: Final = 0x1
WRITABLE: Final = 0x4
FAILED: Final = 0x8
_NOTHING_YET: Final = 6002  # SRT_EASYNCRCV
_CONNECTED: Final = 5  # SRTS_CONNECTED
_LOG_CRITICAL: Final = 2  # LOG_CRIT


class LibsrtMissing(RuntimeError):
    """No usable libsrt: the text is one line that says how to install it."""


class SrtError(OSError):
    """A libsrt call failed; `code` is libsrt's error number."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


class Option(IntEnum):
    """SRTO_… numbers of the options in use."""

    SNDSYN = 1
    RCVSYN = 2
    FC = 4
    SNDBUF = 5
    RCVBUF = 6
    UDP_RCVBUF = 9
    PASSPHRASE = 26
    PBKEYLEN = 27
    TLPKTDROP = 31
    CONNTIMEO = 36
    LOSSMAXTTL = 42
    RCVLATENCY = 43
    PEERLATENCY = 44
    MINVERSION = 45
    STREAMID = 46
    PAYLOADSIZE = 49
    ENFORCEDENCRYPTION = 53
    IPV6ONLY = 54
    PEERIDLETIMEO = 55


_FLAGS: Final = frozenset({Option.SNDSYN, Option.RCVSYN, Option.TLPKTDROP, Option.ENFORCEDENCRYPTION})

CallHook = Callable[[int, bytes, bytes], int]
"""(socket, caller's sockaddr, raw stream id) -> 0 to go on, or the SRT reject code. Runs on libsrt's thread of that port: nothing is
received there meanwhile, and who closes the listening socket waits for it."""


@cache
def load(path: str = "") -> "Libsrt":
    """The process's libsrt, from `path` or `GATEWAY_LIBSRT` or the usual names; raises `LibsrtMissing`."""
    ffi = cffi.FFI()
    ffi.cdef(_DECLARATIONS)
    wanted = path or os.environ.get("GATEWAY_LIBSRT", "")
    names = (wanted,) if wanted else _LIBRARY_NAMES.get(sys.platform, ("libsrt.so.1.5",))
    install = _INSTALL.get(sys.platform, _INSTALL_ELSEWHERE)
    for name in names:
        try:
            library = ffi.dlopen(name)
        except OSError:
            continue
        try:
            number = library.srt_getversion()
        except AttributeError:
            raise LibsrtMissing(f"SRT needs libsrt 1.5, which {name} is not: {install}") from None
        if number >> 8 != 0x0105:
            found = f"{number >> 16}.{number >> 8 & 255}.{number & 255}"
            raise LibsrtMissing(f"SRT needs libsrt 1.5, found {found} as {name}: {install}")
        return Libsrt(ffi, library, name, number)
    raise LibsrtMissing(f"SRT needs libsrt 1.5, not found as {', '.join(names)}: {install}")


class Libsrt:
    """A started libsrt. Made by `load` only."""

    def __init__(self, ffi: Any, library: Any, name: str, number: int) -> None:
        self._ffi = ffi
        self._lib = library
        self.name = name
        self.version = f"{number >> 16}.{number >> 8 & 255}.{number & 255}"
        self._hooks: dict[int, Any] = {}  # a cffi callback lives as long as its listening socket
        if library.srt_startup() < 0:
            raise LibsrtMissing(f"libsrt {self.version} does not start: {self._error_text()}")
        library.srt_setloglevel(_LOG_CRITICAL)
        atexit.register(library.srt_cleanup)

    # -- sockets

    def create(self) -> int:
        return self._check(self._lib.srt_create_socket(), "create a socket")

    def set(self, socket: int, option: Option, value: int | str) -> None:
        """Set an option; raises `SrtError` (also when a just accepted socket has already broken)."""
        if isinstance(value, str):
            raw = value.encode()
            result = self._lib.srt_setsockflag(socket, option, raw, len(raw))
        elif option in _FLAGS:
            result = self._lib.srt_setsockflag(socket, option, self._ffi.new("char *", bytes([bool(value)])), 1)
        else:
            result = self._lib.srt_setsockflag(socket, option, self._ffi.new("int *", value), 4)
        self._check(result, f"set {option.name}")

    def get(self, socket: int, option: Option) -> int:
        """An int option's value."""
        value, length = self._ffi.new("int *"), self._ffi.new("int *", 4)
        self._check(self._lib.srt_getsockflag(socket, option, value, length), f"read {option.name}")
        return int(value[0])

    def bind(self, socket: int, host: str, port: int) -> None:
        raw = pack_sockaddr(host, port)
        self._check(self._lib.srt_bind(socket, raw, len(raw)), f"bind {host}:{port}")

    def listen(self, socket: int, backlog: int, hook: CallHook, on_error: Callable[[BaseException], None]) -> None:
        """Take callers; `hook` decides on each before it is connected. An exception of it refuses the caller and goes to `on_error`."""

        def called(_opaque: object, caller: int, _version: int, peer: Any, stream_id: Any) -> int:
            code = 1500  # what the caller hears if the hook raises
            try:
                code = hook(caller, self._ffi.buffer(peer, 28)[:], self._ffi.string(stream_id, MAX_STREAM_ID + 1))
            finally:
                if code:
                    self._lib.srt_setrejectreason(caller, code)
            return -1 if code else 0

        def failed(_kind: object, error: BaseException, _trace: object) -> int:
            on_error(error)
            return -1

        callback = self._ffi.callback("srt_listen_callback_fn", called, error=-1, onerror=failed)
        self._hooks[socket] = callback
        self._check(self._lib.srt_listen_callback(socket, callback, self._ffi.NULL), "install the listen callback")
        self._check(self._lib.srt_listen(socket, backlog), "listen")

    def accept(self, socket: int) -> int | None:
        """The next connected caller, or None."""
        caller = self._lib.srt_accept(socket, self._ffi.NULL, self._ffi.NULL)
        return int(caller) if caller >= 0 else None

    def connect(self, socket: int, address: Address) -> None:
        raw = pack_sockaddr(address.host, address.port)
        self._check(self._lib.srt_connect(socket, raw, len(raw)), "connect")

    def connected(self, socket: int) -> bool:
        return bool(self._lib.srt_getsockstate(socket) == _CONNECTED)

    def over(self, socket: int) -> bool:
        """It was connected or being connected, and is not any more; or there is no such socket."""
        return bool(self._lib.srt_getsockstate(socket) > _CONNECTED)

    def reject_reason(self, socket: int) -> int:
        return int(self._lib.srt_getrejectreason(socket))

    def local_port(self, socket: int) -> int:
        return self._name(self._lib.srt_getsockname, socket).port

    def peer(self, socket: int) -> Address:
        return self._name(self._lib.srt_getpeername, socket)

    def close(self, socket: int) -> None:
        self._lib.srt_close(socket)
        self._hooks.pop(socket, None)

    # -- data

    def reader(self) -> Callable[[int], bytes | None]:
        """A reader for one thread: `read(socket)` gives what has arrived, at most 64 messages in one piece, b"" when nothing has, None
        when the connection is over."""
        room = _MESSAGES_PER_READ * (MAX_MESSAGE + 44)
        buffer = self._ffi.new("char[]", room)
        view = self._ffi.buffer(buffer)
        receive, last_error, null = self._lib.srt_recvmsg, self._lib.srt_getlasterror, self._ffi.NULL
        full = room - 1500

        def read(socket: int) -> bytes | None:
            size = 0
            while size <= full:
                count = receive(socket, buffer + size, 1500)
                if count <= 0:
                    if not size and last_error(null) != _NOTHING_YET:
                        return None  # what was read before a break is given out first; the next read says it again
                    break
                size += count
            data: bytes = view[:size]
            return data

        return read

    def send(self, socket: int, message: bytes) -> None:
        self._check(self._lib.srt_sendmsg(socket, message, len(message), -1, 1), "send")

    def statistics(self, socket: int) -> LinkStatistics | None:
        """The connection's figures, None when it is gone. Costs about 10 us."""
        room = self._ffi.new("char[]", _STATISTICS_BYTES)
        if self._lib.srt_bistats(socket, room, 0, 1) < 0:
            return None
        raw = self._ffi.cast("SRT_TRACEBSTATS *", room)
        return LinkStatistics(
            packets=raw.pktRecvTotal,
            bytes=raw.byteRecvTotal,
            lost=raw.pktRcvLossTotal,
            retransmitted=raw.pktRcvRetrans,
            dropped=raw.pktRcvDropTotal,
            belated=raw.pktRcvBelated,
            undecryptable=raw.pktRcvUndecryptTotal,
            nak_sent=raw.pktSentNAKTotal,
            round_trip_ms=raw.msRTT,
            latency_ms=raw.msRcvTsbPdDelay,
            buffer_ms=raw.msRcvBuf,
            buffer_packets=raw.pktRcvBuf,
            receive_mbps=raw.mbpsRecvRate,
            capacity_mbps=raw.mbpsBandwidth,
        )

    # -- epoll

    def epoll(self) -> int:
        return self._check(self._lib.srt_epoll_create(), "create an epoll set")

    def epoll_add(self, epoll: int, socket: int, events: int) -> None:
        self._check(self._lib.srt_epoll_add_usock(epoll, socket, self._ffi.new("int *", events)), "watch a socket")

    def epoll_remove(self, epoll: int, socket: int) -> None:
        self._lib.srt_epoll_remove_usock(epoll, socket)  # fails only if it has gone already

    def epoll_release(self, epoll: int) -> None:
        self._lib.srt_epoll_release(epoll)

    def waiter(self, epoll: int) -> Callable[[int], list[tuple[int, int]]]:
        """A waiter for one thread: `wait(timeout_ms)` gives (socket, events) of those ready, level-triggered."""
        ready = self._ffi.new("SRT_EPOLL_EVENT[]", _EVENTS_PER_WAIT)
        uwait = self._lib.srt_epoll_uwait

        def wait(timeout_ms: int) -> list[tuple[int, int]]:
            count = min(uwait(epoll, ready, _EVENTS_PER_WAIT, timeout_ms), _EVENTS_PER_WAIT)  # before 1.5.5 it may say one more
            return [(ready[i].fd, ready[i].events) for i in range(count)]

        return wait

    # --

    def give_back_memory(self) -> None:
        """Return to the system what ended sockets held (0.5 MB each): their own threads freed it, and glibc would keep it for those.

        Takes 20 ms after a storm of callers; does nothing where the C library is not glibc.
        """
        with contextlib.suppress(AttributeError):
            self._lib.malloc_trim(0)

    def _name(self, ask: Any, socket: int) -> Address:
        room, length = self._ffi.new("char[]", 128), self._ffi.new("int *", 128)
        self._check(ask(socket, room, length), "read an address")
        return unpack_sockaddr(self._ffi.buffer(room, length[0])[:])

    def _check(self, result: int, what: str) -> int:
        if result < 0:
            code = self._lib.srt_getlasterror(self._ffi.NULL)
            raise SrtError(f"libsrt cannot {what}: {self._error_text()}", code)
        return int(result)

    def _error_text(self) -> str:
        return str(self._ffi.string(self._lib.srt_getlasterror_str()).decode(errors="replace"))
