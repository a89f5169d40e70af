"""The RTMP chunk stream: messages cut into chunks and interleaved (RTMP 1.0 §5.3). Sans-IO.

`ChunkReader` gives the messages of a `ReceiveBuffer` in any split of the bytes. Memory is taken as payload arrives, never by a declared
length, and all unfinished messages together are bounded. A long message in small chunks costs no more than in large ones: a run of
chunks that is in the buffer as a whole is copied once and its one-byte headers are cut out together.

Timestamps are the sender's milliseconds modulo 2^32: a delta that is "negative" (librtmp, audio behind video on one chunk stream) adds up.
"""

from typing import NamedTuple

from protocols.errors import ProtocolError
from protocols.rtmp.buffer import ReceiveBuffer

DEFAULT_CHUNK = 128  # RTMP 1.0 §5.4.1
MAX_CHUNK = 0xFFFFFF
_EXTENDED = 0xFFFFFF
_MODULO = 0xFFFFFFFF
_HEADER_BYTES = (11, 7, 3)  # of a message header of type 0, 1, 2 (§5.3.1.2)
_LONGEST_FIRST_DELTA_MS = 5000


class RtmpMessage(NamedTuple):
    """One message. `timestamp` in ms modulo 2^32; `begun` and `arrival` in ns, of its first and last byte. `passed_over`: bytes of one that
    was too long to be kept, whose payload is empty."""

    type: int
    stream_id: int
    timestamp: int
    payload: bytes | bytearray
    begun: int
    arrival: int
    passed_over: int = 0


class _ChunkStream:
    """What §5.3.1.2 says that the next header of a chunk stream may leave out, and its unfinished message."""

    __slots__ = (
        "begun",
        "delta",
        "extended",
        "extension",
        "length",
        "missing",
        "part",
        "passed",
        "stream_id",
        "timestamp",
        "type",
    )

    def __init__(self) -> None:
        self.timestamp = 0
        self.delta = 0
        self.length = 0
        self.type = 0
        self.stream_id = 0
        self.extended = False
        self.extension = b""  # the four bytes of the last extended timestamp
        self.part: bytearray | None = None  # None: the next chunk begins a message
        self.passed = False  # the message is too long to be kept
        self.missing = 0
        self.begun = 0


class ChunkReader:
    """Reads messages out of `buffer`. `longest` gives the allowed length by message type, `otherwise` for all the rest.

    `steps` is the work left: each chunk header costs one, and at 0 `next` gives None whatever the buffer holds.
    """

    def __init__(self, buffer: ReceiveBuffer, *, streams: int, otherwise: int, partial: int) -> None:
        self._buffer = buffer
        self._streams: dict[int, _ChunkStream] = {}
        self._max_streams = streams
        self._longest: dict[int, int] = {}
        self._otherwise = otherwise
        self._passed_over: frozenset[int] = frozenset()
        self._max_partial = partial
        self._partial = 0  # bytes held of all unfinished messages
        self._chunk = DEFAULT_CHUNK
        self._current: _ChunkStream | None = None  # whose chunk payload is being read
        self._left = 0  # bytes of that chunk
        self.steps = 0

    @property
    def partial(self) -> int:
        """Bytes held of messages that are not complete."""
        return self._partial

    def allow(self, longest: dict[int, int], partial: int, passed_over: frozenset[int] = frozenset()) -> None:
        """New bounds: the longest message by type, and of all unfinished messages together. Longer ones of the types in `passed_over` are
        no error: their bytes are read and not kept."""
        self._longest = longest
        self._max_partial = partial
        self._passed_over = passed_over

    def set_chunk_size(self, size: int) -> None:
        # RTMP 1.0 §5.4.1: the top bit is 0, at least 1; beyond 0xFFFFFF all are equivalent, as no message is longer.
        if not 1 <= size <= 0x7FFFFFFF:
            raise ProtocolError(f"chunk size {size:#x}")
        self._chunk = min(size, MAX_CHUNK)

    def abort(self, chunk_stream: int) -> None:
        """Drops the unfinished message of a chunk stream (§5.4.2)."""
        stream = self._streams.get(chunk_stream)
        if stream is not None:
            self._drop(stream)

    def next(self, now: int) -> RtmpMessage | None:
        """The next complete message; None if the buffer holds no more of one. Raises `ProtocolError`."""
        while True:
            stream = self._current
            if stream is None:
                if self.steps <= 0:
                    return None
                self.steps -= 1
                stream = self._header(now)
                if stream is None:
                    return None
            if self._payload(stream):
                return self._complete(stream, now)
            if self._current is not None:
                return None

    def _header(self, now: int) -> _ChunkStream | None:
        """Reads a chunk header and makes its chunk the current one; None if the header is not there as a whole."""
        buffer = self._buffer
        data, at, end = buffer.data, buffer.start, buffer.end
        if at >= end:
            return None
        first = data[at]
        kind, chunk_stream = first >> 6, first & 0x3F
        at += 1
        if chunk_stream < 2:  # §5.3.1.1: 0 = one more byte, 1 = two more, the second being the higher
            if at + 1 + chunk_stream > end:
                return None
            chunk_stream = 64 + int.from_bytes(data[at : at + 1 + chunk_stream], "little")
            at += 1 + (first & 0x3F)
        stream = self._streams.get(chunk_stream)
        if stream is None:
            # A first header without length and type cannot be read; librtmp and ffmpeg always begin with type 0 or 1.
            if kind > 1:
                raise ProtocolError(f"chunk stream {chunk_stream} begins with a header of type {kind}")
            if len(self._streams) >= self._max_streams:
                raise ProtocolError(f"more than {self._max_streams} chunk streams")
            stream = _ChunkStream()
        following = self._continue(stream, at, end) if kind == 3 else self._describe(stream, kind, at, end)
        if following is None:
            return None
        self._streams[chunk_stream] = stream
        if stream.part is None:
            stream.passed = self._passes_over(stream)
            stream.part = bytearray()
            stream.missing = stream.length
            stream.begun = now
        buffer.start = following
        self._current = stream
        self._left = min(stream.missing, self._chunk)
        if stream.missing > self._chunk and chunk_stream < 64 and not stream.extended and not stream.passed:
            self._run(stream, 0xC0 | chunk_stream)
        return stream

    def _describe(self, stream: _ChunkStream, kind: int, at: int, end: int) -> int | None:
        """Reads a message header of type 0, 1 or 2 at `at`; gives where its payload begins, None if it is not there as a whole."""
        data = self._buffer.data
        following = at + _HEADER_BYTES[kind]
        if following > end:
            return None
        time = int.from_bytes(data[at : at + 3], "big")
        extended = time == _EXTENDED
        if extended:
            if following + 4 > end:
                return None
            stream.extension = bytes(data[following : following + 4])
            time = int.from_bytes(stream.extension, "big")
            following += 4
        self._drop(stream)  # a new header within a message: the message was given up
        if kind < 2:
            stream.length = int.from_bytes(data[at + 3 : at + 6], "big")
            stream.type = data[at + 6]
        if kind == 0:
            stream.stream_id = int.from_bytes(data[at + 7 : at + 11], "little")
            stream.timestamp = time
            # §5.3.1.2.4: a type 3 header after it repeats the timestamp as a delta. Senders whose clock does not begin at 0 cannot mean it.
            stream.delta = time if time <= _LONGEST_FIRST_DELTA_MS else 0
        else:
            stream.timestamp = (stream.timestamp + time) & _MODULO
            stream.delta = time
        stream.extended = extended
        return following

    def _continue(self, stream: _ChunkStream, at: int, end: int) -> int | None:
        """Reads what follows a header of type 3: nothing, or the extended timestamp once more."""
        begins = stream.part is None
        if stream.extended:
            # §5.3.1.3: type 3 repeats the extended timestamp. ffmpeg and FMLE do so; OBS before 2024 and rtmpdump leave it out within a
            # message, so there it is taken only if it is the same value.
            there = bytes(self._buffer.data[at : min(at + 4, end)])
            if begins or stream.extension.startswith(there):
                if len(there) < 4:
                    return None
                at += 4
            if begins and stream.delta:
                stream.delta = int.from_bytes(there, "big")
        if begins:
            stream.timestamp = (stream.timestamp + stream.delta) & _MODULO
        return at

    def _passes_over(self, stream: _ChunkStream) -> bool:
        """Whether the message that begins is too long to be kept; the bound may have changed since the header that gave its length."""
        too_long = stream.length > self._longest.get(stream.type, self._otherwise)
        if too_long and stream.type not in self._passed_over:
            raise ProtocolError(f"a message of type {stream.type} with {stream.length} bytes")
        return too_long

    def _run(self, stream: _ChunkStream, header: int) -> None:
        """Reads the run of whole chunks at the start of the buffer, if each of its inner headers is `header`; else nothing."""
        assert stream.part is not None
        buffer, chunk = self._buffer, self._chunk
        at, available = buffer.start, len(buffer)
        count = -(-stream.missing // chunk)
        size = stream.missing + count - 1
        if size > available:  # the last whole chunk ends before a header that is left unread
            count = available // (chunk + 1)
            size = count * (chunk + 1) - 1
        if count < 2:
            return
        run = buffer.data[at : at + size]
        if run[chunk :: chunk + 1].count(header) != count - 1:
            return
        del run[chunk :: chunk + 1]
        buffer.start = at + size
        stream.missing -= len(run)
        self._hold(len(run))
        if stream.part:
            stream.part += run
        else:
            stream.part = run
        self._left = 0

    def _payload(self, stream: _ChunkStream) -> bool:
        """Moves what is there of the current chunk to its message; True if that completes the message."""
        assert stream.part is not None
        buffer = self._buffer
        count = min(self._left, len(buffer))
        if count:
            if not stream.passed:
                self._hold(count)
                stream.part += buffer.view[buffer.start : buffer.start + count]
            buffer.start += count
            stream.missing -= count
            self._left -= count
        if self._left == 0:
            self._current = None
        return stream.missing == 0

    def _hold(self, count: int) -> None:
        self._partial += count
        if self._partial > self._max_partial:
            raise ProtocolError(f"more than {self._max_partial} bytes of unfinished messages")

    def _drop(self, stream: _ChunkStream) -> None:
        if stream.part is not None:
            self._partial -= len(stream.part)
            stream.part = None

    def _complete(self, stream: _ChunkStream, now: int) -> RtmpMessage:
        payload = stream.part
        assert payload is not None
        self._partial -= len(payload)
        stream.part = None
        passed_over = stream.length if stream.passed else 0
        return RtmpMessage(stream.type, stream.stream_id, stream.timestamp, payload, stream.begun, now, passed_over)


class ChunkWriter:
    """Makes the chunks of our own messages: each begins with a header of type 0, so that no client has to remember anything of ours."""

    def __init__(self) -> None:
        self.chunk_size = DEFAULT_CHUNK

    def write(self, type_: int, payload: bytes, *, chunk_stream: int, stream_id: int = 0, timestamp: int = 0) -> bytes:
        """The bytes of one message on a chunk stream below 64; `timestamp` in ms below 2^24 - 1."""
        header = bytes([chunk_stream]) + timestamp.to_bytes(3, "big") + len(payload).to_bytes(3, "big") + bytes([type_])
        pieces = [header, stream_id.to_bytes(4, "little"), payload[: self.chunk_size]]
        for at in range(self.chunk_size, len(payload), self.chunk_size):
            pieces += (bytes([0xC0 | chunk_stream]), payload[at : at + self.chunk_size])
        return b"".join(pieces)
