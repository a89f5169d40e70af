"""A publishing client in bytes, and what a session makes of them: the tests' other side of the wire."""

from dataclasses import dataclass, field
from pathlib import Path

from protocols.media import EncodedPacket, TracksChanged
from protocols.rtmp import amf0
from protocols.rtmp.amf0 import Value
from protocols.rtmp.authmod import AdobeAuthenticator
from protocols.rtmp.buffer import ReceiveBuffer
from protocols.rtmp.chunk import ChunkReader, ChunkWriter, RtmpMessage
from protocols.rtmp.events import Broken, Event, PublishRequested
from protocols.rtmp.limits import RtmpLimits
from protocols.rtmp.message import MessageType
from protocols.rtmp.session import ServerSession

CAPTURES = Path(__file__).parents[3] / "data" / "rtmp"
HANDSHAKE = b"\x03" + bytes(8) + bytes(range(256)) * 5 + bytes(248) + bytes(1536)
SERVER_HANDSHAKE_BYTES = 3073

# Enough of a picture for its NAL unit header and slice header to be read
ASC = bytes.fromhex("1190")
IDR = bytes.fromhex("000000056588840021")
P_SLICE = bytes.fromhex("00000005419a246c43")


def capture(name: str) -> bytes:
    return (CAPTURES / f"{name}.c2s.bin").read_bytes()


def capture_names() -> list[str]:
    return sorted(path.name.removesuffix(".c2s.bin") for path in CAPTURES.glob("*.c2s.bin"))


def command(name: str, transaction: float, *arguments: Value, stream_id: int = 0, chunk_stream: int = 3) -> bytes:
    return message(MessageType.COMMAND_AMF0, amf0.encode(name, transaction, *arguments), chunk_stream, stream_id)


def message(
    type_: int, payload: bytes, chunk_stream: int = 4, stream_id: int = 1, timestamp: int = 0, chunk: int = 128
) -> bytes:
    writer = ChunkWriter()
    writer.chunk_size = chunk
    return writer.write(type_, payload, chunk_stream=chunk_stream, stream_id=stream_id, timestamp=timestamp)


def control(type_: int, value: int) -> bytes:
    return message(type_, value.to_bytes(4, "big"), chunk_stream=2, stream_id=0)


def opening(name: Value = "key", app: str = "live", **facts: Value) -> bytes:
    """Everything from the handshake to publish, sent at once."""
    return HANDSHAKE + commands(name, app, **facts)


def commands(name: Value = "key", app: str = "live", **facts: Value) -> bytes:
    return (
        command("connect", 1, {"app": app, "type": "nonprivate", "tcUrl": f"rtmp://127.0.0.1/{app}", **facts})
        + command("createStream", 2, None)
        + command("publish", 3, None, name, "live", stream_id=1)
    )


def video(payload: bytes, timestamp: int = 0) -> bytes:
    return message(MessageType.VIDEO, payload, 6, timestamp=timestamp)


def audio(payload: bytes, timestamp: int = 0) -> bytes:
    return message(MessageType.AUDIO, payload, 4, timestamp=timestamp)


def h264_config() -> bytes:
    return video(b"\x17\x00\x00\x00\x00" + AVCC)


def h264_frame(timestamp: int, composition: int = 0, key: bool = False) -> bytes:
    return video(
        bytes([0x17 if key else 0x27, 1]) + composition.to_bytes(3, "big", signed=True) + (IDR if key else P_SLICE), timestamp
    )


def aac_config(asc: bytes = ASC) -> bytes:
    return audio(b"\xaf\x00" + asc)


def aac_frame(timestamp: int, data: bytes = b"\x21\x10\x04\x60\x8c\x1c") -> bytes:
    return audio(b"\xaf\x01" + data, timestamp)


@dataclass
class Run:
    """A session fed to its end, accepted at its publish."""

    session: ServerSession
    events: list[Event] = field(default_factory=list)
    output: bytearray = field(default_factory=bytearray)

    @property
    def packets(self) -> list[EncodedPacket]:
        return [event for event in self.events if isinstance(event, EncodedPacket)]

    @property
    def changes(self) -> list[TracksChanged]:
        return [event for event in self.events if isinstance(event, TracksChanged)]

    def of(self, track: int) -> list[EncodedPacket]:
        return [packet for packet in self.packets if packet.track == track]

    def request(self) -> PublishRequested:
        (request,) = (event for event in self.events if isinstance(event, PublishRequested))
        return request

    def messages(self) -> list[RtmpMessage]:
        """What the session has sent after its part of the handshake."""
        return read_messages(bytes(self.output[SERVER_HANDSHAKE_BYTES:]))

    def commands(self) -> list[list[Value]]:
        return [amf0.decode(sent.payload) for sent in self.messages() if sent.type == MessageType.COMMAND_AMF0]

    def feed(self, data: bytes, *, splits: list[int] | None = None, accept: bool = True, now: int = 0) -> "Run":
        """`splits`: sizes of the reads, repeated; whole buffers without."""
        at = turn = 0
        while at < len(data):
            space = self.session.space()
            if not len(space):
                break  # held
            count = min(len(space), len(data) - at, splits[turn % len(splits)] if splits else len(space))
            turn += 1
            space[:count] = data[at : at + count]
            at += count
            self._settle(self.session.received(count, now), accept, now)
        return self

    def accept(self, now: int = 0) -> None:
        self.session.accept()
        self._settle(self.session.proceed(now), True, now)

    def _settle(self, events: list[Event], accept: bool, now: int) -> None:
        while True:
            self.events += events
            for event in events:
                if isinstance(event, Broken):
                    raise event.error
            if accept and any(isinstance(event, PublishRequested) for event in events):
                self.session.accept()
            elif not self.session.busy:
                break
            events = self.session.proceed(now)
        self.output += self.session.take_output()


def run(
    data: bytes = b"", *, splits: list[int] | None = None, authenticator: AdobeAuthenticator | None = None, accept: bool = True
) -> Run:
    return Run(ServerSession(RtmpLimits(), "192.0.2.1", authenticator)).feed(data, splits=splits, accept=accept)


def reader(data: bytes, **bounds: int) -> ChunkReader:
    """A chunk reader with `data` in its buffer and work for all of it."""
    buffer = ReceiveBuffer(len(data) + 1)
    buffer.space()[: len(data)] = data
    buffer.filled(len(data))
    chunks = ChunkReader(buffer, **{"streams": 32, "otherwise": 1 << 20, "partial": 1 << 22, **bounds})
    chunks.steps = 1 << 20
    return chunks


def read_messages(data: bytes) -> list[RtmpMessage]:
    """All messages, with the sender's chunk size followed."""
    chunks = reader(data)
    messages: list[RtmpMessage] = []
    while (got := chunks.next(0)) is not None:
        if got.type == MessageType.SET_CHUNK_SIZE:
            chunks.set_chunk_size(int.from_bytes(got.payload, "big"))
        messages.append(got)
    return messages


def _capture_avcc() -> bytes:
    """The configuration record of a real encoder: SPS and PPS must be whole to be described."""
    data = capture("ff51_video_only")
    at = data.index(b"\x17\x00\x00\x00\x00\x01\x64\x00") + 5
    sps = int.from_bytes(data[at + 6 : at + 8], "big")
    pps_at = at + 8 + sps
    pps = int.from_bytes(data[pps_at + 1 : pps_at + 3], "big")
    return data[at : pps_at + 3 + pps]


AVCC = _capture_avcc()
