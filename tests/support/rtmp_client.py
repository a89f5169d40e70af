"""An encoder that sends over RTMP exactly what it is told, byte for byte, when it is told."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from protocols.rtmp import amf0
from protocols.rtmp.chunk import ChunkWriter
from protocols.rtmp.message import MessageType
from tests.support.flv import Tag

_CHUNK_STREAMS = {MessageType.AUDIO: 4, MessageType.DATA_AMF0: 5, MessageType.COMMAND_AMF0: 3, MessageType.VIDEO: 6}
_HANDSHAKE = b"\x03" + bytes(2 * 1536)
_STARTED = b"NetStream.Publish.Start"


class Refused(Exception):
    """What the server has said, and closed the connection."""


class RtmpClient:
    """One that publishes; `over` is set when the server has closed the connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.over = asyncio.Event()
        self._answered = asyncio.Event()
        self._said = b""
        self._reader = reader
        self._writer = writer
        self._chunks = ChunkWriter()

    async def publish(self, app: str, key: str) -> None:
        """Everything up to the first media; returns when the server wants it. Raises `Refused` when it wants none."""
        address = f"rtmp://127.0.0.1/{app}"
        self._writer.write(_HANDSHAKE)
        self._command("connect", 1, {"app": app, "type": "nonprivate", "tcUrl": address})
        self._command("createStream", 2, None)
        self._command("publish", 3, None, key, "live", stream=1)
        async with asyncio.timeout(60):
            await self._answered.wait()
        if _STARTED not in self._said:
            raise Refused(self._said.decode(errors="replace"))

    async def send(self, tags: Sequence[Tag], due: Sequence[int] = ()) -> None:
        """Each tag as one message, when its time is due from now on, or so many ms from now where `due` says."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        for tag, at in zip(tags, due or [tag.time for tag in tags], strict=True):
            await asyncio.sleep(start + at / 1000 - loop.time())  # the encoder's pace, not a wait for anything
            kind = MessageType(tag.kind)
            self._write(kind, tag.body, _CHUNK_STREAMS[kind], 1, tag.time)
            await self._writer.drain()

    async def read(self) -> None:
        while data := await self._reader.read(1 << 16):
            self._said = (self._said + data)[-4096:]
            if _STARTED in self._said:
                self._answered.set()
        self._answered.set()
        self.over.set()

    def _command(self, *values: amf0.Value, stream: int = 0) -> None:
        self._write(MessageType.COMMAND_AMF0, amf0.encode(*values), 3, stream)

    def _write(self, kind: MessageType, body: bytes, chunk_stream: int, stream: int, time: int = 0) -> None:
        self._writer.write(self._chunks.write(kind, body, chunk_stream=chunk_stream, stream_id=stream, timestamp=time))


@asynccontextmanager
async def rtmp_client(port: int, key: str, app: str = "live") -> AsyncIterator[RtmpClient]:
    """A client that publishes under this key, until left."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = RtmpClient(reader, writer)
    reading = asyncio.create_task(client.read())
    try:
        await client.publish(app, key)
        yield client
    finally:
        writer.close()
        reading.cancel()
