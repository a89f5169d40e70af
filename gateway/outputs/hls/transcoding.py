"""What HLS has made of a session's media because its players do not take them as they are: AAC of the sound, H.264 of the picture.

Kept true: a picture is made here only where the lane does not make H.264 of it anyway for WebRTC viewers, and only one, the largest there
is; it begins at a key frame, and what comes out begins with one. What does not fit into this gateway's CPU is not begun.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from gateway.sessions.capacity import Demand, video_of
from gateway.sessions.seat import Seat
from gateway.sessions.track_pipeline import TrackPipeline
from gateway.telemetry.log import event
from protocols.errors import Rejected
from protocols.media import Codec, EncodedPacket, Kind, Track
from transcode.host.process import Worker
from transcode.plan import AudioTarget, Label, Refuse, Transcode, VideoTarget
from transcode.stage import Stage

log = logging.getLogger(__name__)

_SILENT = 1_500_000_000  # ns of media after which a layer that has stopped gives way to another
_H264 = frozenset({Codec.H264})

Take = Callable[[Track, EncodedPacket], None]
"""Gets what was made, with the track that it is of."""


@dataclass(frozen=True, slots=True)
class Room:
    """`admit` lets in what HLS of this session takes, or raises `Rejected`, of which `refused` is then told; `retire` closes what is done
    with. None of them blocks."""

    admit: Callable[[Demand], None]
    refused: Callable[[Rejected], None]
    retire: Callable[[Stage], None]


@dataclass(slots=True)
class _Picture:
    """The one that is made: of which lane, as its track was when it was last looked at."""

    number: int
    track_pipeline: TrackPipeline
    track: Track
    stage: Stage
    last: int  # dts of what went in


class HlsTranscoding:
    """Of one session, by one worker."""

    def __init__(self, session: Seat, worker: Worker, room: Room, audio_bitrate: int, take: Take) -> None:
        self._session = session
        self._worker = worker
        self._room = room
        self._audio_bitrate = audio_bitrate
        self._take = take
        self._sound: tuple[Track, Stage] | None = None
        self._picture: _Picture | None = None
        self._pictures = 0  # begun
        self._since: int | None = None  # dts from which on there is none
        self._refused = False
        self._told = False  # why there is no picture

    def sound(self, track: Track, packet: EncodedPacket) -> None:
        """AAC of this."""
        if self._sound is None:
            if not self._admitted():
                return
            target = AudioTarget(self._audio_bitrate, Codec.AAC)
            self._sound = track, self._worker.audio(track, target, self._out_of_sound)
        known, stage = self._sound
        if known is not track:
            stage.reconfigure(track)
            self._sound = track, stage
        stage.process(packet)

    def picture(self, track_pipeline: TrackPipeline, packet: EncodedPacket) -> None:
        """H.264 of this, if it is the picture to take."""
        track_pipelines = pictures(self._session)
        now = self._picture
        if track_pipeline not in track_pipelines:
            return
        if now is not None and (
            now.track_pipeline not in track_pipelines
            or (now.track_pipeline is track_pipeline and now.track.codec is not track_pipeline.track.codec)
        ):
            self._end_picture()
            now = None
        if now is None or now.track_pipeline is not track_pipeline:
            now = self._begun(track_pipeline, packet, track_pipelines)
        if now is None:
            return
        if now.track is not track_pipeline.track:
            now.track = track_pipeline.track
            now.stage.reconfigure(track_pipeline.track)
        now.last = packet.dts
        now.stage.process(packet)
        if now.stage.starved and not packet.keyframe:
            self._ask(track_pipeline)

    def no_picture(self) -> None:
        """There is one that needs none made here: as it comes, or out of its lane."""
        if self._picture is not None:
            self._end_picture()

    def request_keyframe(self) -> None:
        """In the picture that is made."""
        if self._picture is not None:
            self._picture.stage.request_keyframe()

    def _begun(
        self, track_pipeline: TrackPipeline, packet: EncodedPacket, track_pipelines: list[TrackPipeline]
    ) -> _Picture | None:
        """What is made of this lane from here on; None: nothing."""
        now = self._picture
        if self._since is None:
            self._since = packet.dts
        silent = packet.dts - (now.last if now is not None else self._since) > _SILENT
        better = track_pipelines.index(track_pipeline) < (track_pipelines.index(now.track_pipeline) if now is not None else 1)
        if not better and not silent:
            return None
        if not packet.keyframe:
            if now is None:
                self._ask(track_pipeline)
            return None
        target = picture_target(self._session, track_pipeline)
        if target is None:
            self._tell_why_not(track_pipeline)
            return None
        if not self._admitted():
            return None
        if now is not None:
            self._end_picture()
        self._pictures += 1
        stage = self._worker.video(track_pipeline.track, target, partial(self._out_of_picture, self._pictures))
        self._picture = _Picture(self._pictures, track_pipeline, track_pipeline.track, stage, packet.dts)
        return self._picture

    def _tell_why_not(self, track_pipeline: TrackPipeline) -> None:
        if not self._told:
            self._told = True
            why = self._session.decide(track_pipeline.track, _H264).why
            event(log, logging.WARNING, f"HLS has no picture: {why.text}", session=self._session.id, advice=why.advice or None)

    def _end_picture(self) -> None:
        assert self._picture is not None
        self._room.retire(self._picture.stage)
        self._picture = self._since = None

    def _admitted(self) -> bool:
        """Whether there is room for what is needed now; where there is not, nothing more is made by this."""
        if not self._refused:
            try:
                self._room.admit(needed(self._session))
            except Rejected as refusal:
                self._refused = True
                self._room.refused(refusal)
        return not self._refused

    def _ask(self, track_pipeline: TrackPipeline) -> None:
        if self._session.publisher is not None:
            track_pipeline.request_keyframe_from(self._session.publisher)

    def _out_of_sound(self, packet: EncodedPacket) -> None:
        if self._sound is not None:
            self._take(self._sound[1].tracks[0], packet)

    def _out_of_picture(self, number: int, packet: EncodedPacket) -> None:
        if self._picture is not None and self._picture.number == number:
            self._take(self._picture.stage.tracks[0], packet)


def needed(session: Seat) -> Demand:
    """What HLS of this session takes, as it is now."""
    track_pipelines = list(session.pipeline.track_pipelines.values()) if session.pipeline is not None else []
    sounds = sum(
        track_pipeline.track.kind is Kind.AUDIO and not fits(track_pipeline.track) for track_pipeline in track_pipelines
    )
    largest = next(
        (
            track_pipeline
            for track_pipeline in pictures(session)
            if not fits(track_pipeline.track) and not makes_h264(track_pipeline)
        ),
        None,
    )
    target = picture_target(session, largest) if largest is not None else None
    return Demand(sounds, (video_of(target),) if target is not None else (), hls=1)


def pictures(session: Seat) -> list[TrackPipeline]:
    """The session's, the largest first; where sizes are not known, publishers name the largest first."""
    if session.pipeline is None:
        return []
    track_pipelines = [
        track_pipeline
        for track_pipeline in session.pipeline.track_pipelines.values()
        if track_pipeline.track.kind is Kind.VIDEO
    ]
    return sorted(track_pipelines, key=lambda track_pipeline: -track_pipeline.track.width * track_pipeline.track.height)


def picture_target(session: Seat, track_pipeline: TrackPipeline) -> VideoTarget | None:
    """How its picture becomes H.264; None: it may not."""
    decision = session.decide(track_pipeline.track, _H264)
    if isinstance(decision, Transcode) and isinstance(decision.target, VideoTarget):
        return replace(decision.target, layers=1)
    return None


def makes_h264(track_pipeline: TrackPipeline) -> bool:
    """Whether the lane makes it, for whoever watches by WebRTC."""
    return isinstance(track_pipeline.decision, Transcode) and track_pipeline.decision.codec is Codec.H264


def forbidden(track_pipeline: TrackPipeline) -> bool:
    """Whether the publisher may not send this at all."""
    return isinstance(track_pipeline.decision, Refuse) and track_pipeline.decision.why.label is Label.POLICY


def fits(track: Track) -> bool:
    """Whether HLS players take it as it is."""
    match track.codec:
        case Codec.AAC:
            return bool(track.extradata and track.sample_rate)
        case Codec.H264:
            return track.bit_depth == 8 and track.chroma == "4:2:0" and not track.open_gop
        case Codec.HEVC:
            return track.bit_depth <= 10 and track.chroma == "4:2:0" and not track.open_gop
        case _:
            return False
