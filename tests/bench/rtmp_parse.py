"""CPU of parsing RTMP, ours beside pyrtmp's: `python -m tests.bench.rtmp_parse`.

20 s of a 4 Mbit/s stream (30 pictures and 47 sounds a second, a key frame of 100 kB every 2 s) at several chunk sizes. A figure is the
share of one core that one live stream would need. Ours is the whole way from bytes to `EncodedPacket`s, bitstream included; pyrtmp's is
its chunk layer alone, fed as a whole: live, each read of its socket costs it more.
"""

import asyncio
import logging
import time

from protocols.media import EncodedPacket
from protocols.rtmp.message import MessageType
from tests.unit.protocols.rtmp.peer import AVCC, HANDSHAKE, IDR, P_SLICE, aac_config, commands, control, message, run

SECONDS = 20
FRAMES = 30
BITS = 4_000_000
KEY_BYTES = 100_000
SOUND_BYTES = 340
CHUNKS = (65536, 4096, 128)
ROUNDS = 3


def media(chunk: int) -> bytes:
    """The stream from its first header on, in chunks of `chunk`."""
    keys = SECONDS // 2
    frame_bytes = (BITS // 8 * SECONDS - keys * KEY_BYTES) // (SECONDS * FRAMES - keys)
    pieces = [message(MessageType.VIDEO, b"\x17\x00\x00\x00\x00" + AVCC, 6, chunk=chunk), aac_config()]
    sounds = 0
    for number in range(SECONDS * FRAMES):
        key = number % (2 * FRAMES) == 0
        size, start = (KEY_BYTES, IDR) if key else (frame_bytes, P_SLICE)
        # A payload without chunk headers in it by chance, as the entropy coder's output has few
        picture = (size - 4).to_bytes(4, "big") + start[4:] + bytes(index * 7 & 0x7F | 1 for index in range(size - len(start)))
        head = bytes([0x17 if key else 0x27, 1, 0, 0, 0])
        pieces.append(message(MessageType.VIDEO, head + picture, 6, timestamp=number * 1000 // FRAMES, chunk=chunk))
        while sounds * 1024 / 48000 < number / FRAMES:
            sound = b"\xaf\x01" + bytes(SOUND_BYTES)
            pieces.append(message(MessageType.AUDIO, sound, 4, timestamp=sounds * 64 // 3, chunk=chunk))
            sounds += 1
    return b"".join(pieces)


def ours(chunk: int) -> float:
    """CPU seconds for the stream."""
    fed = run(HANDSHAKE + commands() + control(MessageType.SET_CHUNK_SIZE, chunk))
    data = media(chunk)
    began = time.thread_time()
    fed.feed(data)
    spent = time.thread_time() - began
    packets = sum(isinstance(event, EncodedPacket) for event in fed.events)
    assert packets >= SECONDS * FRAMES, packets
    return spent


def pyrtmps(chunk: int) -> tuple[float, float]:
    """(CPU seconds, seconds of stream) for as much of the stream as it takes in a bearable time."""
    from pyrtmp import StreamClosedException
    from pyrtmp.session_manager import SessionManager

    logging.disable(logging.CRITICAL)
    whole = media(chunk)
    part = 1 if chunk > 128 else 10
    data = whole[: len(whole) // part]

    class Sink:
        def write(self, _: bytes) -> None: ...

        async def drain(self) -> None: ...

        def get_extra_info(self, _: str) -> tuple[str, int]:
            return ("127.0.0.1", 1)

    async def read() -> float:
        reader = asyncio.StreamReader(limit=1 << 30)
        reader.feed_data(data)
        reader.feed_eof()
        session = SessionManager(reader=reader, writer=Sink(), reader_chunk_size=chunk)
        began, messages = time.thread_time(), 0
        try:
            async for _ in session.read_chunks_from_stream():
                messages += 1
        except (StreamClosedException, asyncio.IncompleteReadError):
            pass
        spent = time.thread_time() - began
        assert messages >= SECONDS // part * FRAMES, messages
        return spent

    return asyncio.run(read()), SECONDS / part


def main() -> None:
    print(f"{'chunk':>6} {'ours':>9} {'pyrtmp':>9} {'ratio':>7}   of one core per {BITS / 1e6:g} Mbit/s stream")
    for chunk in CHUNKS:
        mine = min(ours(chunk) for _ in range(ROUNDS)) / SECONDS * 100
        spent, seconds = pyrtmps(chunk)
        theirs = spent / seconds * 100
        print(f"{chunk:>6} {mine:>8.3f}% {theirs:>8.2f}% {theirs / mine:>6.0f}x")


if __name__ == "__main__":
    main()
