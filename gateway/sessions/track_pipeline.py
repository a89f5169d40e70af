"""One track's way from its encoder into the call: what was decided about it, the stage that does it, and where its packets go: to a
publication for each layer that the stage gives.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from time import monotonic_ns
from typing import Protocol

from gateway.sessions.counters import PipelineCounters
from gateway.sessions.output import Publication
from gateway.sessions.track_meter import TrackMeter
from gateway.telemetry.latency import Step
from protocols.media import Codec, EncodedPacket, Kind, Track
from protocols.publisher import Publisher
from transcode.host.stream import Gop
from transcode.plan import Decision, Passthrough, Transcode
from transcode.stage import Stage

PRIMING_SPAN = 5_000_000_000  # ns of a group of pictures that is kept, since it may have to be decoded anew
PRIMING_BYTES = 8 << 20
WATCHED_SPAN = 5_000_000_000  # ns at the start of a stream that passes in which its frames may show that it must not
KEYFRAME_REQUEST_INTERVAL = 500_000_000  # ns: requests of many viewers become one
_IN_WORK = 256  # packets in a stage whose time is measured


class Tap(Protocol):
    """Sees the packets of a lane besides the call; neither blocks nor raises."""

    def source(self, track_pipeline: "TrackPipeline", packet: EncodedPacket) -> None:
        """What the encoder sent, at the live edge."""

    def output(self, track_pipeline: "TrackPipeline", packet: EncodedPacket) -> None:
        """What comes out of the lane's stage."""


class TrackPipeline:
    """See the file; `totals` are those of its pipeline, `taps` those of its session, which may come and go."""

    def __init__(self, track: Track, decision: Decision, totals: PipelineCounters, taps: Sequence[Tap] = ()) -> None:
        self.taps = taps
        self.track = track
        self.decision = decision
        self.meter = TrackMeter(track.kind)
        self.delays = totals.delays[track.kind]
        self.stage: Stage | None = None
        self.publications: dict[str, Publication] = {}
        """By layer."""
        self.shown: int | None = None  # the highest pts that was sent
        self._released: dict[int, int] = {}  # arrival -> when it went into the stage, while a worker has it
        self._pushed = 0
        self._highest_pts = -1
        self._watched = track.kind is Kind.VIDEO
        self._group = Gop(PRIMING_BYTES, PRIMING_SPAN)
        self._first_dts: int | None = None
        self._keyframe_asked = 0
        self._begun = track.kind is not Kind.VIDEO  # a key frame has come

    @property
    def mode(self) -> str:
        """`passthrough`, `transcode` or `refuse`: what is shown and counted."""
        return type(self.decision).__name__.lower()

    @property
    def watched(self) -> bool:
        """Passed through, and so young that its frames may yet show what its headers did not say: B-frames, intra refresh."""
        return self._watched and isinstance(self.decision, Passthrough)

    @property
    def outgrown(self) -> bool:
        """Passed through, and for some time with more bits than may pass."""
        return isinstance(self.decision, Passthrough) and 0 < self.decision.up_to < self.meter.sustained_bitrate

    def keep(self, packet: EncodedPacket) -> None:
        """Remember of a picture what another decoder would need to take over, where one may have to: the stream is still watched, or a
        viewer may come who does not take the codec that comes out."""
        match self.decision:
            case Passthrough() if self._watched or self.track.codec is not Codec.H264:
                self._group.add(packet)
            case Transcode() if self.decision.codec is not Codec.H264:
                self._group.add(packet)

    def reorders(self, packet: EncodedPacket) -> bool:
        """True when this packet proves B-frames (pts goes back in decoding order)."""
        if self._first_dts is None:
            self._first_dts = packet.dts
        behind = packet.pts < self._highest_pts and self.track.reorder is None
        self._highest_pts = max(self._highest_pts, packet.pts)
        if not behind and packet.dts - self._first_dts > WATCHED_SPAN:
            self._watched = False  # enough seen; should it come later, a changed track says so
            if self.track.reorder is None:
                self.track = replace(self.track, reorder=0)
            if self.track.codec is Codec.H264:
                self._group.packets = []
        return behind

    @property
    def primed(self) -> bool:
        """Whether a decoder could take over in mid-group."""
        return bool(self._group.packets)

    def take_priming(self) -> list[EncodedPacket]:
        """What a decoder needs to take over in mid-group; viewers have seen it up to `shown`."""
        packets, self._group.packets = self._group.packets, []
        return packets

    def process(self, packet: EncodedPacket, now: int) -> None:
        for tap in self.taps:
            tap.source(self, packet)
        if self.stage is None:
            return
        if isinstance(self.decision, Transcode):
            self._released[packet.arrival] = now
            while len(self._released) > _IN_WORK:
                del self._released[next(iter(self._released))]
        self.stage.process(packet)

    def out(self, packet: EncodedPacket) -> None:
        """What comes out of the stage goes to the call."""
        for tap in self.taps:
            tap.output(self, packet)
        publication = self.publications.get(packet.layer)
        if publication is None:
            return
        now = self._pushed = monotonic_ns()
        if self._released:
            self.delays.steps[Step.TRANSCODE].observe(now - self._released.get(packet.arrival, now))
        self.shown = packet.pts if self.shown is None else max(self.shown, packet.pts)
        publication.push(packet)

    def sent(self, packet: EncodedPacket, ready: int, sent: int) -> None:
        """The call has sent a packet to its first viewer: `ready` and `sent` are when its payloads were made and handed over."""
        steps = self.delays.steps
        steps[Step.PACKETIZE].observe(ready - self._pushed)
        steps[Step.SEND].observe(sent - ready)
        self.delays.total[self.mode].observe(sent - packet.arrival)

    def publish(self, tracks: tuple[Track, ...], start: Callable[[Track], Publication]) -> None:
        """What comes out of the stage from here on: `start` begins the publication of a layer that is new."""
        for layer in self.publications.keys() - {track.layer for track in tracks}:
            self.publications.pop(layer).close()
        for track in tracks:
            publication = self.publications.get(track.layer)
            if publication is not None and publication.track.codec is track.codec:
                publication.update(track)
            else:
                self.publications[track.layer] = start(track)

    def unpublish(self, taken: Container[str]) -> None:
        """Nothing more goes to the call; the layers that another lane has `taken` over are its own now."""
        for layer, publication in self.publications.items():
            if layer not in taken:
                publication.close()
        self.publications = {}

    def lacks_keyframe(self, packet: EncodedPacket) -> bool:
        """Whether nothing can be made of the packets: the first key frame is missing, as where another layer has given way in mid-group, or
        the worker has dropped some and goes on with the next."""
        self._begun = self._begun or packet.keyframe
        return not self._begun or (self.stage is not None and self.stage.starved and not packet.keyframe)

    def request_keyframe(self, publisher: Publisher, layer: str) -> bool:
        """Ask whoever makes this layer's key frames; True if one will come."""
        return self.stage is not None and (self.stage.request_keyframe(layer) or self.request_keyframe_from(publisher))

    def request_keyframe_from(self, publisher: Publisher) -> bool:
        """Ask the source itself, at most twice a second."""
        now = monotonic_ns()
        if now - self._keyframe_asked < KEYFRAME_REQUEST_INTERVAL:
            return True
        if publisher.request_keyframe(self.track.layer):
            self._keyframe_asked = now
            return True
        return False

    async def close_stage(self) -> None:
        stage, self.stage = self.stage, None
        self._released.clear()
        if stage is not None:
            await stage.aclose()
