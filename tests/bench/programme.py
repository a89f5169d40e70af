"""A programme made once by ffmpeg and kept as RTMP messages in memory, so that publishing it costs no encoder.

H.264 720p30 at 2.5 Mbit/s as live encoders give it (no B-frames, one slice, key frames at fixed distance) and AAC at 128 kbit/s, 48 kHz,
stereo.
"""

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from protocols.rtmp.chunk import ChunkWriter
from protocols.rtmp.message import MessageType
from protocols.wire import Reader
from tests.support.encoders import FFMPEG

CHUNK = 65536
STREAM_ID = 1

_FLV_HEADER = 9 + 4  # and the size of the tag before the first: none
_TAG_HEADER, _TAG_TRAILER = 11, 4
_CHUNK_STREAMS = {MessageType.AUDIO: 4, MessageType.VIDEO: 6, MessageType.DATA_AMF0: 4}


@dataclass(frozen=True, slots=True)
class Message:
    """One RTMP message as its bytes on the wire; `timestamp` in ms. `media` is False for headers and metadata."""

    type: int
    timestamp: int
    media: bool
    wire: bytes


def make(path: Path, *, seconds: int, group: int, still: bool = False) -> None:
    """Encode `seconds` of the programme into the FLV file `path`, with a key frame every `group` frames of a 30th of a second. `still`: a
    picture in which little moves but much is to be seen, so that key frames are several times as large as others."""
    picture = f"testsrc2=size=1280x720:rate=30,noise={'alls=20' if still else 'alls=10:allf=t'},format=yuv420p"
    subprocess.run(
        [
            *(FFMPEG, "-hide_banner", "-loglevel", "error", "-nostdin", "-y", "-t", str(seconds), "-f", "lavfi", "-i", picture),
            *("-t", str(seconds), "-f", "lavfi", "-i", "sine=frequency=1000:sample_rate=48000", "-ac", "2"),
            *("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-x264-params", "sliced-threads=0:scenecut=0"),
            *("-bf", "0", "-g", str(group), "-b:v", "2500k", "-maxrate", "2500k", "-bufsize", "1250k"),
            *("-c:a", "aac", "-b:a", "128k", "-f", "flv", str(path)),
        ],
        check=True,
        timeout=300,
    )


def read(path: Path) -> list[Message]:
    """The tags of an FLV file in their order (Adobe FLV 10.1 §E.3)."""
    data = path.read_bytes()
    writer = ChunkWriter()
    writer.chunk_size = CHUNK
    messages = []
    reader = Reader(data)
    reader.take(_FLV_HEADER)
    while len(reader) > _TAG_HEADER:
        kind, size = reader.u8(), reader.u24()
        timestamp = reader.u24() | reader.u8() << 24
        reader.take(3)
        body = bytes(reader.take(size))
        reader.take(_TAG_TRAILER)
        media = kind != MessageType.DATA_AMF0 and body[1] == 1  # else an AVC or AAC sequence header
        wire = writer.write(
            kind, body, chunk_stream=_CHUNK_STREAMS[MessageType(kind)], stream_id=STREAM_ID, timestamp=timestamp
        )
        messages.append(Message(kind, timestamp, media, wire))
    return messages


@contextmanager
def prepared(seconds: int = 60, *, still: bool = False) -> Iterator[Callable[[int], Path]]:
    """Gives the file of the programme with a key frame every so many frames, each encoded once and deleted at the end. `still` as for
    `make`."""
    with tempfile.TemporaryDirectory() as directory:

        def file_with(group: int) -> Path:
            path = Path(directory) / f"{group}.flv"
            if not path.exists():
                make(path, seconds=seconds, group=group, still=still)
            return path

        yield file_with
