"""What the fuzzers feed: the receiver of one peer for each protocol, and the small things of each format that an input may be made of."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from protocols.bitstream.av1 import Av1Stream
from protocols.bitstream.h26x import NalStream
from protocols.bitstream.vpx import VpxStream
from protocols.errors import ProtocolError
from protocols.media import Codec
from protocols.rtmp import amf0
from protocols.rtmp.events import Broken, Event, PublishRequested
from protocols.rtmp.limits import RtmpLimits
from protocols.rtmp.message import MessageType
from protocols.rtmp.session import ServerSession, SessionPhase
from protocols.srt.tracks import TsDemuxer
from protocols.webrtc.receive import depacketize
from protocols.webrtc.receive.jitter import FRAME_PACKETS
from protocols.whip.passing import PassingH264
from tests.fuzz.cost import Atom, Receive
from tests.unit.protocols.rtmp.peer import AVCC, command, control, message
from tests.unit.protocols.srt.streams import AUDIO_PID, VIDEO_PID, packet, pat, pes, pmt

RTMP_AT_ONCE_S = 0.5
"""CPU of one session beyond what its bytes allow (`RtmpLimits.steps_at_once`), in steps of some milliseconds."""

H264_SLICE, H264_KEY = b"\x41\x9a", b"\x65\x88\x84\x21"


# -- receivers -----------------------------------------------------------------------------------------------------------------------


def at_once(take: Callable[[bytes], object]) -> Receive:
    """All that it does is one step."""

    def receive(data: bytes) -> Iterator[None]:
        take(data)
        yield

    return receive


def forgiving(take: Callable[[bytes], object]) -> Receive:
    """As `at_once`; what is broken costs a unit and not the connection, as over SRT and WHIP."""

    def receive(data: bytes) -> Iterator[None]:
        with contextlib.suppress(ProtocolError):
            take(data)
        yield

    return receive


def transport() -> Receive:
    """A transport stream over SRT, all at one moment."""
    demuxer = TsDemuxer()
    return at_once(lambda data: demuxer.feed(data, 0))


def streams() -> Mapping[str, Callable[[], Receive]]:
    """By name, what takes the access units of a video stream as they are."""
    return {
        "H.264": lambda: forgiving(NalStream(Codec.H264, 1).annexb),
        "HEVC": lambda: forgiving(NalStream(Codec.HEVC, 1).annexb),
        "AV1": lambda: forgiving(Av1Stream(1).temporal_unit),
        "VP8": lambda: forgiving(VpxStream(Codec.VP8, 1).frame),
        "VP9": lambda: forgiving(VpxStream(Codec.VP9, 1).frame),
    }


def frames(codec: Codec) -> Receive:
    """The frames of one codec in RTP payloads, in `datagrams`."""
    payloads: list[bytes] = []
    take = _taker(codec)

    def receive(data: bytes) -> None:
        if len(payloads) <= FRAME_PACKETS:  # nor are more held where they come in
            payloads.append(data[1:])
        if data[0]:
            frame = payloads.copy()
            payloads.clear()
            depacketize.check(frame)
            take(frame)

    return forgiving(receive)


def _taker(codec: Codec) -> Callable[[Sequence[bytes]], object]:
    if codec is Codec.H264:
        return PassingH264(1).take
    take: Callable[[bytes], object] = {
        Codec.HEVC: NalStream(Codec.HEVC, 1).annexb,
        Codec.AV1: Av1Stream(1).temporal_unit,
        Codec.VP8: VpxStream(Codec.VP8, 1).frame,
        Codec.VP9: VpxStream(Codec.VP9, 1).frame,
    }[codec]
    whole = depacketize.FORMATS[codec].frame
    return lambda payloads: take(whole(payloads))


def datagrams(frame: bytes) -> list[bytes]:
    """Of a frame's `payload`s, each alone behind its marker: 1 where the frame ends."""
    made: list[bytes] = []
    at = 0
    while at + 2 <= len(frame):
        size = int.from_bytes(frame[at : at + 2])
        made.append(b"\0" + frame[at + 2 : at + 2 + size])
        at += 2 + size
    return [*made[:-1], b"\1" + made[-1][1:]] if made else []


def rtmp() -> Receive:
    """An RTMP session that is let publish, all at one moment."""
    session = ServerSession(RtmpLimits(), "192.0.2.1")

    def settle(events: list[Event]) -> None:
        session.take_output()
        for event in events:
            if isinstance(event, Broken):
                raise event.error
            if isinstance(event, PublishRequested):
                session.accept()

    def receive(data: bytes) -> Iterator[None]:
        at = 0
        while at < len(data):
            space = session.space()
            count = min(len(space), len(data) - at)
            space[:count] = data[at : at + count]
            at += count
            live = session.stage is SessionPhase.LIVE
            settle(session.received(count, 0))
            yield
            while session.busy or (session.stage is SessionPhase.LIVE) is not live:
                live = session.stage is SessionPhase.LIVE
                settle(session.proceed(0))
                yield

    return receive


# -- bits ----------------------------------------------------------------------------------------------------------------------------


def bits(*fields: str) -> bytes:
    """Fields of "0" and "1", then the stop bit."""
    text = "".join(fields) + "1"
    return int(text.ljust(len(text) + -len(text) % 8, "0"), 2).to_bytes((len(text) + 7) // 8)


def fixed(value: int, size: int) -> str:
    return f"{value:0{size}b}"


def ue(value: int) -> str:
    """Exp-Golomb."""
    text = f"{value + 1:b}"
    return "0" * (len(text) - 1) + text


def annexb(*units: bytes) -> bytes:
    return b"".join([b"\0\0\1" + unit for unit in units])


# -- atoms: NAL units ----------------------------------------------------------------------------------------------------------------


def h264_sps(number: int) -> bytes:
    """Baseline; of another size with each number below 1000."""
    return b"\x67" + bits(
        fixed(66, 8), fixed(0xC0, 8), fixed(30, 8), ue(0), ue(0), ue(2), ue(1), "0", ue(number % 1000), ue(9), "110", "0"
    )


def h264_dear_sps(number: int) -> bytes:
    """High, with all scaling lists, and as many numbers in its picture order."""
    lists = ("1" + ue(2) * 16) * 6 + ("1" + ue(2) * 64) * 6
    head = (fixed(100, 8), fixed(0, 8), fixed(30, 8), ue(number % 32), ue(3), "0", ue(0), ue(0), "0", "1")
    return b"\x67" + bits(*head, lists, ue(0), ue(2), ue(1), "0", ue(number % 1000), ue(9), "110", "0")


def h264_pps(number: int) -> bytes:
    return b"\x68" + bits(ue(number % 256), ue(0), "11", ue(number))


def hevc_sps(number: int) -> bytes:
    return _hevc_sps(number, ue(0))


def hevc_dear_sps(number: int) -> bytes:
    """With as many short-term reference picture sets as there may be."""
    first = ue(16) + ue(16) + (ue(0) + "1") * 32
    return _hevc_sps(number, ue(64) + first + ("0" + first) * 63)


def _hevc_sps(number: int, sets: str) -> bytes:
    profile = fixed(1, 8) + fixed(0x60000000, 32) + "1001" + "0" * 44 + fixed(30, 8)
    size = (ue(0), ue(1), ue(16 + number % 1000), ue(64), "0", ue(0), ue(0), ue(0), "0", ue(1), ue(0), ue(0))
    return b"\x42\x01" + bits(
        fixed(0, 4), fixed(0, 3), "1", profile, *size, *([ue(0)] * 6), "0", "00", "0", sets, "0", "00", "0"
    )


def large_pps(number: int) -> bytes:
    return h264_pps(number % 32) + b"\x55" * 2000


NAL: Sequence[Atom] = (
    lambda n: annexb(H264_SLICE),
    lambda n: annexb(H264_KEY),
    lambda n: annexb(h264_sps(n)),
    lambda n: annexb(h264_dear_sps(n)),
    lambda n: annexb(h264_pps(n)),
    lambda n: annexb(large_pps(n)),
    lambda n: annexb(h264_sps(0), h264_pps(0), H264_KEY),
    lambda n: annexb(b"\x06\x05\x01\x01\x80"),
    lambda n: annexb(b"\x06" + b"\x05\x01\x01" * 30 + b"\x80"),
    lambda n: annexb(b"\x06" + b"\xff" * (n % 1000) + b"\x80"),
    lambda n: annexb(b"\x09\x10"),
    lambda n: annexb(b"\x40\x01\x0c", hevc_sps(n)),
    lambda n: annexb(hevc_dear_sps(n)),
    lambda n: annexb(b"\x44\x01" + bits(ue(n % 64), ue(0), ue(n))),
    lambda n: annexb(b"\x26\x01" + bits("10", ue(n % 64))),
    lambda n: annexb(b"\x02\x01\xd0"),
    lambda n: b"\0\0\1",
    lambda n: b"\0\0\3",
    lambda n: b"\0",
    lambda n: b"\xff",
)

AV1: Sequence[Atom] = (
    lambda n: b"\x12\x00",
    lambda n: b"\x0a\x0b" + bytes((0, 0, 0, n & 255)) + b"\x6a\xbf\xf8\x5f\x20\x40\x10",
    lambda n: b"\x32\x03\x10\x00\x00",
    lambda n: b"\x32\x01\x10",
    lambda n: b"\x2a\x01\x01",
    lambda n: b"\x0a\x80\x80\x80\x00",
    lambda n: b"\x36\x00\x01\x10",
    lambda n: b"\x22\x00",
)


# -- atoms: payloads of RTP ----------------------------------------------------------------------------------------------------------


def payload(data: bytes) -> bytes:
    """With its length before it."""
    return len(data).to_bytes(2) + data


RTP: Mapping[Codec, Sequence[Atom]] = {
    Codec.H264: (
        lambda n: payload(b"\x78" + b"\x00\x01\x41" * 399),
        lambda n: payload(b"\x78" + b"\x00\x02\x41\x9a" * (n % 300)),
        lambda n: payload(H264_SLICE),
        lambda n: payload(h264_sps(n)),
        lambda n: payload(b"\x7c\x81\x9a"),
        lambda n: payload(b"\x7c\x01\x9a"),
        lambda n: payload(b"\x7c\x41\x9a"),
        lambda n: payload(b"\x78" + b"".join([payload(h264_pps(n + k)) for k in range(100)])),
    ),
    Codec.HEVC: (
        lambda n: payload(b"\x60\x01" + b"\x00\x03\x02\x01\xd0" * 239),
        lambda n: payload(b"\x60\x01" + b"\x00\x01\x02" * 399),
        lambda n: payload(b"\x02\x01\xd0"),
        lambda n: payload(b"\x62\x01\x81\xd0"),
        lambda n: payload(b"\x62\x01\x01\xd0"),
        lambda n: payload(b"\x62\x01\x41\xd0"),
        lambda n: payload(hevc_dear_sps(n)),
    ),
    Codec.AV1: (
        lambda n: payload(b"\x00" + b"\x01\x12" * 600),
        lambda n: payload(b"\x00" + b"\x00" * 1200),
        lambda n: payload(b"\x00" + b"\x02\x30\x10" * 400),
        lambda n: payload(b"\x10\x30\x10"),
        lambda n: payload(b"\x50\x30"),
        lambda n: payload(b"\xd0\x10"),
        lambda n: payload(b"\x90\x10"),
    ),
    Codec.VP8: (
        lambda n: payload(
            b"\x10" + bytes((n & 1, 0, 0)) + b"\x9d\x01\x2a" + (n % 1000 + 1).to_bytes(2, "little") + b"\x10\x00"
        ),
        lambda n: payload(b"\x00\x01"),
        lambda n: payload(b"\x90\xf0\x80\x00\x00\x00\x01"),
    ),
    Codec.VP9: (
        lambda n: payload(b"\x0c\x82\x49\x83\x42\x00" + n.to_bytes(3)[-2:] + b"\x00\xf0"),
        lambda n: payload(b"\x0e\x08\xff" + b"\x0c\x00\x00\x00" * 255 + b"\x82"),
        lambda n: payload(b"\x5c\x01\x01\x01\x80"),
    ),
}


# -- atoms: sound in a transport stream ----------------------------------------------------------------------------------------------


def adts(number: int, size: int = 8) -> bytes:
    """An ADTS frame of any sampling frequency and channels."""
    head = 0xFFF1 << 40 | 1 << 38 | (number % 13) << 34 | (1 + number // 13 % 7) << 30 | size << 13 | 0x1FFC
    return head.to_bytes(7).ljust(size, b"\x21")


def loas(element: bytes) -> bytes:
    return (0x56E000 | len(element)).to_bytes(3) + element


def latm(number: int, units: bytes = b"\x06\x21\x10\x04\x60\x8c\x1c", other: str = "0") -> bytes:
    """An AudioMuxElement with its StreamMuxConfig, of any sampling frequency."""
    config = fixed(2, 5) + fixed(number % 12, 4) + fixed(2, 4) + "000"
    return loas(
        bits("0", "0", "1", fixed(number // 12 % 4, 6), "0000", "000", config, "000", fixed(255, 8), other, "0", _bits(units))
    )


def _bits(data: bytes) -> str:
    return "".join([fixed(byte, 8) for byte in data])


def eac3(number: int, size: int, kind: int = 0) -> bytes:
    words = size // 2 - 1
    return bytes((0x0B, 0x77, kind << 6 | words >> 8, words & 255, 0x30 | (number & 7) << 1, 0x80)).ljust(size, b"\0")


def mpeg(number: int) -> bytes:
    """A layer III frame of the lowest bit rate."""
    size = (26, 24, 36)[number % 3]
    return bytes((0xFF, 0xF3, 0x10 | (number % 3) << 2, 0xC0 if number & 1 else 0)).ljust(size, b"\0")


SOUND: Mapping[int, Sequence[Atom]] = {
    0x03: (
        lambda n: b"\xff",
        lambda n: b"\xff\xfb",
        lambda n: b"\xff\xfb\x90\x00",
        lambda n: b"\xff\xf3\x10\xc0\x00",
        mpeg,
        lambda n: mpeg(n)[:23],
    ),
    0x0F: (
        lambda n: b"\xff",
        lambda n: b"\xff\xf1",
        lambda n: adts(0),
        adts,
        lambda n: adts(n, 13),
        lambda n: adts(n, 9)[:7],
        lambda n: b"\xff\xf1\x50\x80\x1f\xff\xfc",
    ),
    0x11: (
        lambda n: b"\x56",
        lambda n: b"\x56\xe0\x00",
        lambda n: b"\x56\xe0\x05",
        lambda n: loas(b"\xff" * 5),
        lambda n: loas(b"\x80" + bytes(64)),
        lambda n: loas(b"\xff" * 8191),
        latm,
        lambda n: latm(0),
        lambda n: latm(n, other="1" + "100000000" * (n % 900)),
    ),
    0x87: (
        lambda n: b"\x0b",
        lambda n: b"\x0b\x77",
        lambda n: b"\x0b\x77\xff\xff\xff\xff",
        lambda n: eac3(n, 8),
        lambda n: eac3(0, 8),
        lambda n: eac3(n, 8, 1),
        lambda n: eac3(n, 2, 1),
        lambda n: bytes((0x0B, 0x77, 0, 0, 0, 0x40, n & 255)).ljust(128, b"\0"),
    ),
    0x06: (
        lambda n: b"\x7f\xe0\x01\xfc",
        lambda n: b"\x7f\xe0" + b"\xff" * (n % 300) + b"\x00",
        lambda n: b"\x7f\xfc\x01\x00\x00\x00\x00\x00\xfc",
        lambda n: b"\x7f",
    ),
}
OPUS_DESCRIPTORS = b"\x05\x04Opus\x7f\x02\x80\x02"


class Muxer:
    """Packets of a transport stream with their counters right, however their PIDs follow one another."""

    def __init__(self) -> None:
        self._counters: dict[int, int] = {}

    def pes(self, pid: int, data: bytes) -> bytes:
        made = []
        for at in range(0, len(data), 184):
            counter = self._counters[pid] = self._counters.get(pid, -1) + 1
            made.append(packet(pid, data[at : at + 184], counter, start=at == 0))
        return b"".join(made)

    def sound(self, kind: int, payloads: Sequence[bytes]) -> bytes:
        """A programme of one stream of sound, each payload one PES."""
        descriptors = OPUS_DESCRIPTORS if kind == 0x06 else b""
        made = [pat({1: 0x1000}), pmt({AUDIO_PID: kind}, descriptors=descriptors)]
        made += [self.pes(AUDIO_PID, pes(data, 90 * number, stream_id=0xC0)) for number, data in enumerate((*payloads, b"\0"))]
        return b"".join(made)


def packets_of(muxer: Muxer) -> Sequence[Atom]:
    """Tables, PES of a packet or a few, and packets of no use, of a muxer."""
    return (
        lambda n: pat({1: 0x1000, 2 + n % 60000: 0x1001}),
        lambda n: pat({1 + number: 0x1000 + number for number in range(40)}, version=n % 32),
        lambda n: pmt({VIDEO_PID: 0x1B, AUDIO_PID: 0x0F}),
        lambda n: pmt({AUDIO_PID: 0x0F, 0x200 + n % 4096: 3}),
        lambda n: pmt({0x100 + number: (0x1B, 0x0F, 3, 0x86)[(number + n) % 4] for number in range(32)}),
        lambda n: pmt({0x100 + number: 0x86 for number in range(32)}, 2 + n % 39, 0x1001 + n % 39, n % 32),
        lambda n: muxer.pes(VIDEO_PID, pes(annexb(h264_sps(n), h264_pps(0), H264_KEY), 3000 * n)),
        lambda n: muxer.pes(AUDIO_PID, pes(adts(n) * 20, 3000 * n, stream_id=0xC0, known=True)),
        lambda n: muxer.pes(AUDIO_PID, pes(adts(0, 13), None, stream_id=0xC0)),
        lambda n: muxer.pes(VIDEO_PID, pes(annexb(H264_SLICE), 3000 * n)),
        lambda n: packet(VIDEO_PID, b"\0", n),
        lambda n: packet(VIDEO_PID, b"\xaa" * 184, n),
        lambda n: packet(n & 0x1FFF, b"\xaa" * 184, n),
        lambda n: b"\x47" * 188,
        lambda n: b"\x47" + bytes(99),
        lambda n: bytes(188),
    )


# -- atoms: messages of RTMP ---------------------------------------------------------------------------------------------------------


def whole(type_: int, body: bytes, chunk_stream: int = 4) -> bytes:
    """A message in chunks of 64 KiB."""
    return message(type_, body, chunk_stream, chunk=65536)


_TAGS = b"".join([b"\x08\0\0\1\0\0\0\0\0\0\0\xaf\0\0\0\x0c" for _ in range(250)])
_TRACKS = b"\x96\x11avc1" + b"".join([bytes((number, 0, 0, 3, 0, 0, 0)) for number in range(16)])

RTMP: Sequence[Atom] = (
    lambda n: whole(8, b""),
    lambda n: whole(8, b"\xaf") + b"\xc4\xaf" * 200,
    lambda n: whole(8, b"") + b"\xc4" * 200,
    lambda n: whole(0x63, b"") + b"\xc4" * 200,
    lambda n: whole(8, b"\xaf\x00" + (0x1190, 0x1210)[n & 1].to_bytes(2)),
    lambda n: whole(8, b"\x2f\xff\xfb\x90" + bytes((0xC0 * (n & 1),))),
    lambda n: whole(9, b"\x17\x00\x00\x00\x00" + AVCC + bytes(n & 1), 6),
    lambda n: whole(9, b"\x17\x01\x00\x00\x00\x00\x00\x00\x04" + H264_KEY, 6),
    lambda n: whole(9, b"\x90hvc1\x01" + bytes(20) + b"\x0f\x01\xa0\xff\xff" + b"\x00\x01\x42" * 2000, 6),
    lambda n: whole(9, _TRACKS, 6),
    lambda n: whole(9, b"\x97" + b"\x02\0\0\0\x07" * 7 + b"\x02\0\0\0\x01avc1\0\0\0", 6),
    lambda n: whole(MessageType.AGGREGATE, _TAGS),
    lambda n: whole(MessageType.DATA_AMF0, b"\x02\0\x0aonMetaData" + b"\x05" * 1990),
    lambda n: whole(MessageType.DATA_AMF0, b"\x02\0\x0aonMetaData\x03" + b"\0\1a\x05" * 1990 + b"\0\0\x09"),
    lambda n: whole(MessageType.DATA_AMF0, amf0.encode("onMetaData", {"framerate": float(n % 900 + 1)})),
    lambda n: whole(MessageType.COMMAND_AMF0, b"\x02\0\1x" + b"\x0a\0\0\0\1" * 12 + b"\x05"),
    lambda n: command("_checkbw", 1),
    lambda n: message(4, b"\0\6\0\0\0\0", 2, 0),
    lambda n: control(MessageType.ABORT, 4 + n % 4),
    lambda n: control(MessageType.SET_CHUNK_SIZE, (1, 128, 65536)[n % 3]),
    lambda n: b"\x04\0\0\0\0\xff\xff\x08\0\0\0\0" + b"\xaf" * 20,
    lambda n: b"\x05\0\0\0\0\xff\xff\x08\0\0\0\0" + b"\xaf" * 20,
    lambda n: b"\xc4\xaf\xc5\xaf" * 50,
)
