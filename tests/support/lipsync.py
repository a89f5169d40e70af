"""Sound and picture in step, as a viewer has them: a programme of flashes with beeps, and a viewer that measures what lies between the two.

Times are those of a player: RTP timestamps of what is decoded, brought to one clock by the sender reports (RFC 3550 §6.4.1). A player that
has just begun also waits for each medium as long as its packets come late: what lies between the two then is `heard_after_seen`.
"""

import asyncio
from dataclasses import dataclass, field
from fractions import Fraction
from time import monotonic
from typing import Any

import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.rtp import RtcpSrPacket

from tests.support.viewer import Viewer

_BRIGHT = 128
_LOUD = 3000  # of 32767
_QUIET_S = 0.3
_NTP_SECOND = 1 << 32
_RATES = {"video": 90_000, "audio": 48_000}
_IN_TIME = 0.8  # of the frames of a second, when they are played: a machine that is busy holds up some of both media


def flashes_and_beeps(width: int = 640, height: int = 360, rate: int = 30) -> list[str]:
    """ffmpeg arguments: in real time, each second a white picture for 0.1 s and as long a tone, which begin at once."""
    white = f"if(lt(mod(N,{rate}),{rate // 10}),235,16)"
    picture = f"color=black:size=16x16:rate={rate},geq=lum='{white}':cb=128:cr=128,scale={width}:{height},format=yuv420p"
    tone = "aevalsrc=exprs='if(lt(mod(t\\,1)\\,0.1)\\,0.5*sin(2*PI*1000*t)\\,0)':s=48000:c=mono"
    return ["-re", "-f", "lavfi", "-i", picture, "-re", "-f", "lavfi", "-i", tone, "-map", "0:v", "-map", "1:a"]


@dataclass
class LipSync(Viewer):
    """A viewer that notes when flashes and beeps begin, by the clocks of their own streams."""

    flashes: list[int] = field(default_factory=list)  # RTP units since the stream's first packet
    beeps: list[int] = field(default_factory=list)
    _reports: dict[str, tuple[int, int]] = field(default_factory=dict)  # by kind: NTP and RTP time of the last sender report
    _arrivals: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: {"video": [], "audio": []})
    """By kind: when a packet came (s), and its RTP time."""
    _dark: bool = False
    _quiet: float = 0.0  # s since the last sound

    async def until_pairs(self, count: int, timeout: float = 60) -> None:
        """Wait until that many flashes and beeps and a report of each clock have come."""
        async with asyncio.timeout(timeout):
            while min(len(self.flashes), len(self.beeps)) < count or len(self._reports) < 2:
                self._listen_for_reports()
                self.progress.clear()
                await self.progress.wait()

    @property
    def offsets(self) -> list[float]:
        """How many ms each beep begins after the flash that is nearest to it."""
        flashes = [self._seconds("video", at) for at in self.flashes]
        found = []
        for beep in (self._seconds("audio", at) for at in self.beeps):
            nearest = min(flashes, key=lambda flash: abs(beep - flash))
            if abs(beep - nearest) < 0.5:  # the other of the first or the last one may not have been seen
                found.append(float(beep - nearest) * 1000)
        return found

    def heard_after_seen(self, second: int) -> float:
        """How many ms sound is behind the picture, in this second after the first packet, at a player that shows each as soon as it comes
        without a gap; the content itself is together by its timestamps (`offsets`). A frame has come when its last packet has."""
        begun = min(came for arrivals in self._arrivals.values() for came, _ in arrivals)
        late = {}
        for kind, arrivals in self._arrivals.items():
            whole = {rtp: came for came, rtp in arrivals if second <= came - begun < second + 1}
            delays = sorted(came - float(self._since_report(kind, rtp)) for rtp, came in whole.items())
            late[kind] = delays[int(_IN_TIME * (len(delays) - 1))]
        return (late["audio"] - late["video"]) * 1000

    async def until_seconds(self, count: int, timeout: float = 60) -> None:
        """Wait until packets have come for so many seconds after the first, and a report of each clock."""
        async with asyncio.timeout(timeout):
            while (
                len(self._reports) < 2
                or not all(self._arrivals.values())
                or min(came[-1][0] for came in self._arrivals.values()) - min(came[0][0] for came in self._arrivals.values())
                < count
            ):
                self._listen_for_reports()
                self.progress.clear()
                await self.progress.wait()

    async def _watch(self, track: MediaStreamTrack) -> None:
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            (self._see if track.kind == "video" else self._hear)(frame)
            self.progress.set()

    def _see(self, frame: Any) -> None:
        bright = float(np.mean(frame.to_ndarray(format="gray")[:: frame.height // 8])) > _BRIGHT
        if bright and self._dark:
            self.flashes.append(frame.pts)
        self._dark = not bright

    def _hear(self, frame: Any) -> None:
        samples = np.abs(frame.to_ndarray().reshape(-1, len(frame.layout.channels))[:, 0].astype(int))
        loud = np.flatnonzero(samples > _LOUD)
        if len(loud) and self._quiet >= _QUIET_S:
            self.beeps.append(frame.pts + int(loud[0]))
        self._quiet = 0.0 if len(loud) else self._quiet + len(samples) / frame.sample_rate

    def _listen_for_reports(self) -> None:
        """aiortc keeps what the reports say to itself, so they are read on their way to it."""
        for receiver in self.connection.getReceivers():
            if "_handle_rtcp_packet" not in vars(receiver):
                handle = self._reading(receiver.track.kind, receiver._handle_rtcp_packet)
                vars(receiver)["_handle_rtcp_packet"] = handle
                vars(receiver)["_handle_rtp_packet"] = self._noting(receiver.track.kind, receiver._handle_rtp_packet)

    def _reading(self, kind: str, handle: Any) -> Any:
        async def read(packet: Any) -> None:
            if isinstance(packet, RtcpSrPacket):
                self._reports[kind] = (packet.sender_info.ntp_timestamp, packet.sender_info.rtp_timestamp)
                self.progress.set()
            await handle(packet)

        return read

    def _noting(self, kind: str, handle: Any) -> Any:
        async def note(packet: Any, arrival_time_ms: int) -> None:
            self._arrivals[kind].append((monotonic(), packet.timestamp))
            self.progress.set()
            await handle(packet, arrival_time_ms=arrival_time_ms)

        return note

    def _since_report(self, kind: str, timestamp: int) -> Fraction:
        """When, by the sender's clock."""
        ntp, rtp = self._reports[kind]
        since = (timestamp - rtp + (1 << 31)) % (1 << 32) - (1 << 31)
        return Fraction(ntp, _NTP_SECOND) + Fraction(since, _RATES[kind])

    def _seconds(self, kind: str, at: int) -> Fraction:
        """When, by the sender's clock."""
        (receiver,) = (each for each in self.connection.getReceivers() if each.track.kind == kind)
        first = vars(receiver)["_RTCRtpReceiver__timestamp_mapper"]._origin  # aiortc counts from the first packet
        return self._since_report(kind, (first + at) % (1 << 32))
