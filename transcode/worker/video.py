"""Any video to H.264, VP8 or AV1 without reordering, in one layer or more, on the source's timeline. Worker side: imports libav.

Keeps true: every picture of the source leaves once in each layer, in presentation order, with its own time (a varying frame rate stays
varying), up to the limits of size and rate; a key frame is one in all layers.
"""

from collections.abc import Callable, Iterator

from av import FFmpegError, VideoFrame

from protocols.media import Codec, EncodedPacket, Track
from transcode.adaptation import AS_PLANNED, Effort
from transcode.encoder_table import ENCODERS, X264
from transcode.ladder import Rung, start_bitrate
from transcode.plan import VideoTarget
from transcode.worker.decoder import VideoDecoder
from transcode.worker.encoders import KEYFRAME_SECONDS, NANOSECOND, UNKNOWN_FRAME_RATE, open_video
from transcode.worker.layer import LayerEncoder, OpenEncoder
from transcode.worker.pictures import FrameRate, Layers, Pictures

_SECOND = 1_000_000_000
_BACKWARD_JUMP = _SECOND  # pictures late by less are out of order, by more are of a source that started its clock anew
_LEAST_BITRATE = 50_000


class VideoTranscoder:
    """One video track: `take` a source packet, get the packets that come of it."""

    def __init__(
        self,
        track: Track,
        target: VideoTarget,
        shown: int | None = None,
        *,
        note: Callable[[str], None] = lambda text: None,
        open_encoder: OpenEncoder = open_video,
    ) -> None:
        """Pictures up to the pts `shown` (ns) have been shown in another way: they are only references for what follows. `note` is told
        what the operator should know."""
        self._note = note
        self._open_encoder = open_encoder
        self._encoder = target.encoder
        self._target = target
        self._shown = shown
        self._told = 0  # bit/s of all layers, by the call
        self._effort: Effort = AS_PLANNED
        self._rate = FrameRate(min(target.frame_rate or UNKNOWN_FRAME_RATE, target.max_frame_rate))
        self._id = track.id
        self._decoder = VideoDecoder(track.codec)
        self._pictures = Pictures(track.interlaced, target, ENCODERS[target.encoder].pix_fmt)
        self._layers: dict[str, LayerEncoder] = {}
        self._gone = 0  # packets of layers that were left out
        self._rate_dropped = 0
        self._keyframe_wanted = False
        self._last_keyframe = 0
        self._last_pts: int | None = None
        self._due = 0  # the next picture within the rate limit
        self.outputs: tuple[Track, ...] = ()
        """What comes out, a track for each layer, the top one first: changed before the first packet that is so."""

    @property
    def decoded(self) -> int:
        return self._decoder.decoded

    @property
    def errors(self) -> int:
        """Packets that the decoder refused."""
        return self._decoder.errors

    @property
    def encoded(self) -> int:
        return self._gone + sum(layer.encoded for layer in self._layers.values())

    @property
    def dropped(self) -> int:
        """Packets before a key frame, pictures beyond the rate limit or out of order."""
        return self._decoder.dropped + self._rate_dropped

    def reopen(self, track: Track) -> None:
        """The source has changed. Its parameter sets come in band, so the decoder follows by itself, from the next key frame on."""
        self._pictures.reopen(track.interlaced)

    def request_keyframe(self) -> None:
        self._keyframe_wanted = True

    def set_bitrate(self, bits_per_second: int) -> None:
        """What all layers together may have: each gets its share by size, and never more than was planned."""
        self._told = bits_per_second

    def set_effort(self, effort: Effort) -> None:
        """Work so from here on: a layer or a preset less at once, a dearer preset alone with the next key frame."""
        self._effort = self._pictures.effort = effort
        if self._resting:
            self._decoder.restart()
            self._keep(())

    def take(self, packet: EncodedPacket, silent: bool = False) -> Iterator[EncodedPacket]:
        """Decode one source packet. `silent`: its pictures are only references for what follows, nothing comes out."""
        if self._resting:
            return
        for frame in self._decoder.take(packet):
            if not silent:
                yield from self._show(frame)

    def finish(self) -> Iterator[EncodedPacket]:
        """The end: the pictures that the decoder, the deinterlacer and the encoders still hold."""
        for frame in self._decoder.drain():
            yield from self._show(frame)
        for layers in self._pictures.flush():
            yield from self._encode(layers)
        for layer in self._layers.values():
            try:
                yield from layer.finish()
            except FFmpegError as error:
                self._fall_back(error)

    @property
    def _resting(self) -> bool:
        """Whether all layers are left out, so that there is nothing to decode for."""
        return self._target.passed and self._effort.shed >= max(1, len(self._target.encoded))

    def _show(self, frame: VideoFrame) -> Iterator[EncodedPacket]:
        """Put one decoded picture out, if it is in order and within the rate limit."""
        pts = frame.pts
        if pts is not None and self._shown is not None and pts <= self._shown:
            return
        last = self._last_pts
        if pts is None or (last is not None and last - _BACKWARD_JUMP < pts <= last):
            self._rate_dropped += 1  # a decoder that has not learned the reordering yet
            return
        if last is None or pts <= last:
            self._due = self._last_keyframe = pts
        self._last_pts = pts
        if not self._within_rate(pts):
            self._rate_dropped += 1
            return
        self._rate.measure(pts)
        frame.time_base = NANOSECOND
        for layers in self._pictures.convert(frame):
            yield from self._encode(layers)

    def _within_rate(self, pts: int) -> bool:
        interval = round(_SECOND / self._target.max_frame_rate)
        if pts < self._due - interval // 4:  # a quarter: rounded times wander
            return False
        self._due = max(self._due + interval, pts + interval // 2)
        return True

    def _encode(self, pictures: Layers) -> Iterator[EncodedPacket]:
        """One picture in all layers."""
        pts = pictures[0][1].pts
        assert pts is not None
        rungs = tuple(rung for rung, _ in pictures)
        self._keep(rungs)
        self._share_bitrate(rungs)
        stamp = self._decoder.stamp(pts)
        periodic = stamp.keyframe if self._target.passed else pts - self._last_keyframe >= KEYFRAME_SECONDS * _SECOND
        keyframe = self._keyframe_wanted or periodic
        while pictures:
            try:
                new = [self._prepare(rung, picture, keyframe) for rung, picture in pictures]
                keyframe = keyframe or any(new)
                while pictures:
                    rung, picture = pictures[0]
                    packets = self._layers[rung.layer].encode(picture, stamp, keyframe)
                    del pictures[0]
                    self.outputs = tuple(layer.output for layer in self._layers.values())
                    yield from packets
            except FFmpegError as error:
                self._fall_back(error)
                form = self._pictures.pix_fmt
                pictures = [(rung, picture.reformat(format=form, threads=1)) for rung, picture in pictures]
        if keyframe:
            self._keyframe_wanted = False
            self._last_keyframe = pts

    def _prepare(self, rung: Rung, picture: VideoFrame, keyframe: bool) -> bool:
        return self._layers[rung.layer].prepare(picture, self._rate.measured, self._effort, self._encoder, keyframe)

    def _share_bitrate(self, rungs: tuple[Rung, ...]) -> None:
        """What the layers have: by size, or less where the call has told so."""
        planned = [self._planned_bitrate(rung) for rung in rungs]
        part = min(1.0, self._told / sum(planned)) if self._told else 1.0
        for layer, bitrate in zip(self._layers.values(), planned, strict=True):
            layer.bitrate = max(_LEAST_BITRATE, min(round(bitrate * part), self._target.max_bitrate))

    def _planned_bitrate(self, rung: Rung) -> int:
        target = self._target
        if (rung.width, rung.height) == (target.width, target.height):
            return target.bitrate
        return start_bitrate(rung.width, rung.height, self._rate.measured)  # a lower layer, or a size that was not planned for

    def _keep(self, rungs: tuple[Rung, ...]) -> None:
        """Have these layers and no others."""
        names = [rung.layer for rung in rungs]
        if names == list(self._layers):
            return
        self._gone += sum(layer.encoded for name, layer in self._layers.items() if name not in names)
        self._layers = {name: self._layers.get(name) or self._layer(name) for name in names}
        self.outputs = tuple(layer.output for layer in self._layers.values())

    def _layer(self, name: str) -> LayerEncoder:
        return LayerEncoder(Track(self._id, self._target.codec, reorder=0, layer=name), self._open_encoder)

    def _fall_back(self, error: FFmpegError) -> None:
        """x264 goes on in the place of an encoder in hardware; one in software that fails ends the worker."""
        if self._encoder == X264 or self._target.codec is not Codec.H264:
            raise error
        self._note(f"{ENCODERS[self._encoder].label} has failed ({error.strerror}): x264 encodes from here on")
        self._encoder = X264
        self._pictures.pix_fmt = ENCODERS[X264].pix_fmt
        for layer in self._layers.values():
            layer.give_up()
