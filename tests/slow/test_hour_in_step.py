"""An hour of media whose sound has a slow clock, faster than real time: over RTMP and SRT, to what WebRTC's sender reports and the segments
of HLS say of when each picture and each sound is to be played. What was captured together stays together."""

import socket
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import pytest
from aiortc.rtp import RtcpPacket, RtcpSrPacket

from gateway.sessions.arrival_clock import ClockFault
from gateway.sessions.lip_sync import Apart, LipSync
from gateway.sessions.pacer import LiveEdgePolicy, Pacer
from gateway.sessions.timeline import Timeline
from protocols.bitstream.stills import StillPictures
from protocols.hls.segmenter import Segmenter, Timing
from protocols.media import Codec, EncodedPacket, Kind, Track, TracksChanged
from protocols.rtmp.limits import RtmpLimits
from protocols.rtmp.session import ServerSession
from protocols.srt.tracks import TsDemuxer
from protocols.webrtc.rtp import CLOCK_RATES
from protocols.webrtc.send.history import SentFrame
from protocols.webrtc.send.sender import Sender
from protocols.webrtc.send.source import Source
from protocols.webrtc.send.way import ViewerWay
from protocols.webrtc.transport.egress import Egress
from protocols.webrtc.transport.srtp import OutboundSrtp
from tests.unit.protocols.rtmp.peer import (
    AVCC,
    HANDSHAKE,
    IDR,
    P_SLICE,
    Run,
    aac_config,
    aac_frame,
    commands,
    h264_config,
    h264_frame,
)
from tests.unit.protocols.srt.streams import AUDIO_PID, PMT_PID, VIDEO_PID, packets, pat, pes, pmt
from tests.unit.protocols.webrtc.loopback import MS, SECOND, parameters

HOUR_S = 3600
PICTURES, RATE = 30, 48_000  # a second
SAMPLES = 1024  # of a frame of AAC
SPURT = 16  # frames in a PES, as ffmpeg sends them
ORIGIN = 10**15  # local time of the beginning
REPORTS = 5 * SECOND
SETTLED_S = 20
IN_STEP = 60 * MS
ADTS = bytes.fromhex("fff14c4001bffc") + b"\x21\x00\x49\x90\x02\x19"
SETS = AVCC[8 : 8 + int.from_bytes(AVCC[6:8])], AVCC[11 + int.from_bytes(AVCC[6:8]) :]
SEGMENT = 2 * SECOND

Written = Iterator[tuple[int, Sequence[object]]]
"""(arrival, what the protocol makes of what came then)"""


def captured(rate: float, spurt: int) -> Iterator[tuple[int, Kind, int]]:
    """(arrival after the beginning in ns, kind, number): pictures, and frames of sound whose clock runs at `rate`, as many together."""
    pictures = ((n * SECOND // PICTURES, Kind.VIDEO, n) for n in range(HOUR_S * PICTURES))
    frame = SAMPLES * SECOND / RATE / rate
    sound = (
        (round(((n // spurt + 1) * spurt if spurt > 1 else n) * frame), Kind.AUDIO, n)
        for n in range(int(HOUR_S * SECOND / frame) // spurt * spurt)
    )
    picture, heard = next(pictures, None), next(sound, None)
    while picture is not None or heard is not None:
        if heard is None or (picture is not None and picture <= heard):
            assert picture is not None
            yield picture
            picture = next(pictures, None)
        else:
            yield heard
            heard = next(sound, None)


def over_rtmp(rate: float) -> Written:
    run = Run(ServerSession(RtmpLimits(), "192.0.2.1", None)).feed(
        HANDSHAKE + commands() + h264_config() + aac_config(), now=ORIGIN
    )
    yield ORIGIN, run.events
    for at, kind, number in captured(rate, 1):
        run.events = []
        if kind is Kind.VIDEO:
            data = h264_frame(number * 1000 // PICTURES, key=number % 60 == 0)
        else:
            data = aac_frame(number * SAMPLES * 1000 // RATE)
        yield ORIGIN + at, run.feed(data, now=ORIGIN + at).events


def over_srt(rate: float) -> Written:
    """Each PES of sound has a time, and the frames in it follow by their samples."""
    demuxer, counters = TsDemuxer(), {VIDEO_PID: 0, AUDIO_PID: 0}
    begin = 90_000
    demuxer.feed(pat({1: PMT_PID}) + pmt({VIDEO_PID: 0x1B, AUDIO_PID: 0x0F}), ORIGIN)

    def written(pid: int, data: bytes, at: int) -> tuple[int, Sequence[object]]:
        made = packets(pid, data, counters[pid])
        counters[pid] += len(made)
        return ORIGIN + at, demuxer.feed(b"".join(made), ORIGIN + at)

    for at, kind, number in captured(rate, SPURT):
        if kind is Kind.VIDEO:
            key = number % 60 == 0
            units = (b"\x09\xf0", *SETS, IDR[4:]) if key else (b"\x09\xf0", P_SLICE[4:])
            unit = b"".join(b"\0\0\0\1" + each for each in units)
            yield written(VIDEO_PID, pes(unit, begin + number * 90_000 // PICTURES, known=True), at)
        elif number % SPURT == 0:
            ticks = begin + number * SAMPLES * 90_000 // RATE
            yield written(AUDIO_PID, pes(ADTS * SPURT, ticks, stream_id=0xC0, known=True), at)


@dataclass
class Played:
    """When what was captured in each second is to be played, less when it was captured (ns, on average)."""

    by_second: dict[Kind, dict[int, list[float]]] = field(default_factory=lambda: {kind: defaultdict(list) for kind in Kind})

    def note(self, kind: Kind, captured: float, played: float) -> None:
        self.by_second[kind][int(captured) // SECOND].append(played - captured)

    def apart(self, after_s: int) -> float:
        """The most by which a second's sound and picture are."""
        video, audio = (
            {second: fmean(each) for second, each in self.by_second[kind].items() if second >= after_s} for kind in Kind
        )
        both = video.keys() & audio.keys()
        assert len(both) > HOUR_S - after_s - 5
        return max(abs(video[second] - audio[second]) for second in both)


@dataclass
class Nowhere:
    """A `SenderTransport` to a viewer who is not there yet: what is judged are timestamps and reports."""

    egress: Egress
    address: tuple[Any, ...] | None = None
    outbound: OutboundSrtp | None = None


class WebRtc:
    """One track at a viewer: played at the time of the last report's clock that its RTP timestamp says."""

    carried: int | None = None

    def __init__(
        self, way: Nowhere, track: Track, clock: Callable[[int], tuple[int, int]], played: Callable[[float], None]
    ) -> None:
        self.source = Source(
            track,
            clock,
            lambda when, run: None,
            on_keyframe_wanted=lambda: False,
            on_bitrate=lambda bits: None,
            on_sent=lambda packet, ready, sent: None,
        )
        self._sender: Sender = Sender(ViewerWay(way), parameters(track.kind), on_turn=lambda: None, timestamp=0)
        self._sender.attach(self.source, ORIGIN, join=False)
        self._reported_at, self._ntp, self._rtp = 0, 0, 0
        self._rate = CLOCK_RATES[track.kind]
        self._played = played
        self.source.add(self)

    def deliver(self, frame: SentFrame, now: int) -> None:
        if now - self._reported_at >= REPORTS:
            compound = self._sender.report(now)
            assert compound is not None
            (report,) = (each for each in RtcpPacket.parse(compound) if isinstance(each, RtcpSrPacket))
            self._reported_at = now
            self._ntp, self._rtp = report.sender_info.ntp_timestamp, report.sender_info.rtp_timestamp
        since = ((frame.timestamp - self._rtp + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)
        self._played((self._ntp & (1 << 48) - 1) * SECOND / (1 << 32) + since * SECOND / self._rate)

    def keyframe_came(self, source: Source, now: int) -> None: ...

    def answered(self, comes: bool, now: int) -> None: ...

    def pump(self, now: int) -> bool:
        return False


@pytest.fixture
def nowhere() -> Iterator[Nowhere]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        yield Nowhere(Egress(sock))


@pytest.mark.parametrize("rate", [0.998, 0.97])
@pytest.mark.parametrize("written", [over_rtmp, over_srt])
def test_an_hour_of_slow_sound_stays_in_step_for_webrtc_and_hls(
    nowhere: Nowhere, written: Callable[[float], Written], rate: float
) -> None:
    faults: list[ClockFault] = []
    apart: list[Apart] = []
    timeline, lip_sync, pacer = Timeline(faults.append), LipSync(apart.append), Pacer(LiveEdgePolicy())
    webrtc, hls = Played(), Played()
    frame_ns = {Kind.VIDEO: SECOND / PICTURES, Kind.AUDIO: SAMPLES * SECOND / RATE / rate}
    kinds: dict[int, Kind] = {}
    came, sent, listed = (dict.fromkeys(Kind, 0) for _ in range(3))
    most_waited = 0

    def clock(now: int) -> tuple[int, int]:
        return now, pacer.media_now(now)

    def playing(kind: Kind) -> Callable[[float], None]:
        return lambda played: webrtc.note(kind, sent[kind] * frame_ns[kind], played)

    # Each frame of AAC stands for itself, as its transcoder's output does
    viewers = {
        kind: WebRtc(nowhere, Track(number, codec), clock, playing(kind))
        for number, (kind, codec) in enumerate({Kind.VIDEO: Codec.H264, Kind.AUDIO: Codec.OPUS}.items())
    }
    timing, stills = Timing.of(SEGMENT, SEGMENT, SECOND // PICTURES), StillPictures(Track(0, Codec.AAC))
    segmenters = {kind: Segmenter(timing, video=kind is Kind.VIDEO, segment=SEGMENT, stills=stills) for kind in Kind}

    def release(until: int) -> None:
        while (due := pacer.next_release) is not None and due <= until:
            give(due)

    def give(now: int) -> None:
        nonlocal most_waited
        for packet in pacer.pop(now):
            kind = kinds[packet.track]
            viewers[kind].source.push(packet, now)
            most_waited = max(most_waited, now - packet.arrival)
            sent[kind] += 1
            for cut in segmenters[kind].push(packet):
                at = cut.start
                for duration in cut.durations:
                    hls.note(kind, listed[kind] * frame_ns[kind], at)
                    listed[kind] += 1
                    at += duration

    for now, items in written(rate):
        release(now)
        for item in items:
            if isinstance(item, TracksChanged):
                kinds = {track.id: track.kind for track in item.tracks}
                lip_sync.expect(kinds.values())
            if not isinstance(item, EncodedPacket):
                continue
            kind = kinds[item.track]
            packet = timeline.map(item)
            lip_sync.note(packet.track, kind, packet.dts, packet.arrival, now)
            pacer.hold_back(lip_sync.hold, at_once=lip_sync.at_once)
            pacer.push(packet, kind, now)
            came[kind] += 1
        give(now)
    release(now + SECOND)

    assert came == sent, "nothing is dropped"
    assert came[Kind.VIDEO] == HOUR_S * PICTURES
    assert webrtc.apart(SETTLED_S) <= IN_STEP
    assert hls.apart(SETTLED_S) <= IN_STEP
    assert [fault.rate for fault in faults] == [pytest.approx(rate, abs=0.1 * (1 - rate))]
    in_spurts = written is over_srt
    assert [each.later for each in apart] == [Kind.AUDIO] * in_spurts
    assert most_waited <= (420 * MS if in_spurts else 0)
