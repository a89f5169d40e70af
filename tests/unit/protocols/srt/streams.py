"""Transport streams for tests: made by real muxers, or packet by packet where a muxer would not do such a thing."""

import functools
import subprocess

from protocols.srt.psi import crc32
from tests.support.encoders import FFMPEG, FFMPEG_9

PICTURE = ("-f", "lavfi", "-i", "testsrc2=size=320x240:rate=30")
TONE = ("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000")
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "30", "-b:v", "1M")
VIDEO_PID, AUDIO_PID, PMT_PID = 0x100, 0x101, 0x1000


@functools.cache
def muxed(*arguments: str, seconds: float = 3, version: int = 5, inputs: tuple[str, ...] = (*PICTURE, *TONE)) -> bytes:
    """ffmpeg's transport stream of the test picture and tone with these output arguments."""
    program = FFMPEG if version == 5 else FFMPEG_9
    command = [program, "-v", "error", "-nostdin", *inputs, "-t", str(seconds), *arguments, "-f", "mpegts", "pipe:1"]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


@functools.cache
def gstreamer_muxed(seconds: int = 3, mux: str = "") -> bytes:
    """GStreamer's transport stream, whose video PES have a length where they fit."""
    command = (
        f"gst-launch-1.0 -q mpegtsmux name=m alignment=7 {mux} ! fdsink "
        f"videotestsrc num-buffers={30 * seconds} ! video/x-raw,width=320,height=240,framerate=30/1 ! "
        "x264enc tune=zerolatency bitrate=1000 key-int-max=30 ! h264parse config-interval=-1 ! m. "
        f"audiotestsrc num-buffers={47 * seconds} ! audio/x-raw,rate=48000 ! avenc_aac ! aacparse ! m."
    )
    return subprocess.run(command.split(), check=True, capture_output=True, timeout=60).stdout


def packet(
    pid: int, payload: bytes, counter: int, *, start: bool = False, stuffing: int | None = None, flags: int = 0
) -> bytes:
    """One packet. `payload` shorter than its room is filled by the adaptation field; `stuffing` forces so many bytes of it."""
    room = 184 - len(payload)
    control = 0x10
    field = b""
    if room or stuffing is not None:
        control |= 0x20
        size = room if room else 0
        field = bytes((size - 1,)) + (bytes((flags,)) + b"\xff" * (size - 2) if size > 1 else b"")
    if not payload:
        control &= ~0x10
    head = bytes((0x47, (0x40 if start else 0) | pid >> 8, pid & 0xFF, control | counter & 15))
    made = head + field + payload
    assert len(made) == 188
    return made


def section(pid: int, body: bytes, counter: int = 0) -> bytes:
    """A table in one packet; `body` from its table id up to, not including, the CRC, with any section length."""
    size = len(body) - 3 + 4
    body = body[:1] + bytes((0xB0 | size >> 8, size & 0xFF)) + body[3:]
    payload = b"\0" + body + crc32(body).to_bytes(4, "big")
    return packet(pid, payload + b"\xff" * (184 - len(payload)), counter, start=True)


def pat(programmes: dict[int, int], version: int = 0) -> bytes:
    entries = b"".join(n.to_bytes(2, "big") + (0xE000 | pid).to_bytes(2, "big") for n, pid in programmes.items())
    return section(0, bytes((0, 0, 0, 0, 1, 0xC1 | version << 1, 0, 0)) + entries)


def pmt(streams: dict[int, int], programme: int = 1, pid: int = PMT_PID, version: int = 0, descriptors: bytes = b"") -> bytes:
    """`streams`: PID to stream type."""
    body = (
        bytes((2, 0, 0))
        + programme.to_bytes(2, "big")
        + bytes((0xC1 | version << 1, 0, 0, 0xE0 | VIDEO_PID >> 8, VIDEO_PID & 255, 0xF0, 0))
    )
    for stream, kind in streams.items():
        body += (
            bytes((kind,)) + (0xE000 | stream).to_bytes(2, "big") + (0xF000 | len(descriptors)).to_bytes(2, "big") + descriptors
        )
    return section(pid, body)


def timestamp(ticks: int, mark: int = 2) -> bytes:
    return bytes(
        (
            mark << 4 | (ticks >> 30 & 7) << 1 | 1,
            ticks >> 22 & 255,
            (ticks >> 15 & 127) << 1 | 1,
            ticks >> 7 & 255,
            (ticks & 127) << 1 | 1,
        )
    )


def pes(payload: bytes, pts: int | None = None, *, dts: int | None = None, stream_id: int = 0xE0, known: bool = False) -> bytes:
    """With a DTS only beside a PTS."""
    header = b"" if pts is None else timestamp(pts) if dts is None else timestamp(pts, 3) + timestamp(dts, 1)
    size = 3 + len(header) + len(payload) if known else 0
    return (
        b"\0\0\1"
        + bytes((stream_id,))
        + size.to_bytes(2, "big")
        + bytes((0x80, 0 if pts is None else 0x80 if dts is None else 0xC0, len(header)))
        + header
        + payload
    )


def packets(pid: int, data: bytes, counter: int = 0) -> list[bytes]:
    """A PES cut into packets, the last one stuffed where it is short."""
    return [packet(pid, data[at : at + 184], counter + n, start=at == 0) for n, at in enumerate(range(0, len(data), 184))]
