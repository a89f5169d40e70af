"""One layer of a video on its way out: pictures of one size encoded, at its bitrate and effort. Worker side: imports libav.

Keeps true: an encoder is opened anew where PyAV cannot change one that is open (size, bitrate, preset, rate), and at a moment when that
costs least; `output` tells what comes out from the next packet on.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

from av import Packet, VideoFrame
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from av.video.stream import VideoStream

from protocols.bitstream.av1 import Av1Stream
from protocols.media import Codec, EncodedPacket, Track
from transcode.adaptation import AS_PLANNED, Effort, preset
from transcode.worker.decoder import Stamp, parameter_sets
from transcode.worker.encoders import open_video

OpenEncoder = Callable[[VideoFrame, float, int, str, str], VideoCodecContext]
"""Opens an encoder for pictures like this one, at so many a second, bit/s, effort, by name; `encoders.open_video`."""

_ROUNDED = 1000  # ns
_CUT = 0.8  # a bitrate that falls below this part of the present one is set at once, at the cost of a key frame


class LayerEncoder:
    """Pictures in by `encode`, each after `prepare` was asked for it; packets out."""

    def __init__(self, output: Track, open_encoder: OpenEncoder = open_video) -> None:
        self.output = output
        self.bitrate = 0  # bit/s to have: set before the first picture, and at any time
        self.encoded = 0
        self._open = open_encoder
        self._av1 = Av1Stream(output.id) if output.codec is Codec.AV1 else None
        self._encoder: VideoCodecContext | None = None
        self._effort = AS_PLANNED  # of the open encoder
        self._frame_bits = 0.0  # what the open encoder spends on a picture
        self._inside: deque[tuple[int, Stamp]] = deque()  # the pts of each picture that is in it: x264 keeps none, hardware may

    def prepare(self, picture: VideoFrame, rate: float, effort: Effort, encoder: str, keyframe: bool) -> bool:
        """See that there is an encoder for this picture; True where it is a new one, which begins with a key frame.

        x264 follows a new bitrate only after many seconds, since PyAV cannot move its buffer, and without look-ahead counts frames, not
        seconds. All but a deep cut and a cheaper preset wait for a picture that is to be a key frame anyway.
        """
        present = self._encoder
        if present is not None and (present.width, present.height) == (picture.width, picture.height):
            change = self.bitrate / rate / self._frame_bits
            at_once = change < _CUT or effort.lower > self._effort.lower
            if not at_once and not (keyframe and (abs(change - 1) > 0.05 or effort.lower != self._effort.lower)):
                return False
        name = preset(picture.width, picture.height, effort.lower)
        self._encoder = self._open(picture, rate, self.bitrate, name, encoder)
        self._effort = effort
        self._frame_bits = self.bitrate / rate
        width, height = picture.width, picture.height
        self.output = replace(self.output, width=width, height=height, extradata=b"")
        return True

    def encode(self, picture: VideoFrame, stamp: Stamp, keyframe: bool) -> list[EncodedPacket]:
        """What comes of the picture; raises `av.FFmpegError` where the encoder fails."""
        assert self._encoder is not None
        assert picture.pts is not None
        self._inside.append((picture.pts, stamp))
        # always set: a decoded frame brings its own type, which x264 would obey
        picture.pict_type = PictureType.I if keyframe else PictureType.NONE
        return list(self._coded(self._encoder.encode(picture)))

    def finish(self) -> list[EncodedPacket]:
        """The end: x264 holds nothing back, an encoder in hardware may. Raises `av.FFmpegError`."""
        return list(self._coded(self._encoder.encode(None))) if self._encoder is not None else []

    def give_up(self) -> None:
        """Let go of the encoder: the next picture gets a new one."""
        self._encoder = None
        self._inside.clear()

    def _coded(self, coded: "list[Packet[VideoStream]]") -> Iterator[EncodedPacket]:
        for packet in coded:
            pts, stamp = self._of(packet.pts or 0)
            data = bytes(packet)
            if self._av1 is not None:
                data = self._av1.temporal_unit(data).data
            if packet.is_keyframe and not self.output.extradata:
                self.output = self._described(data)
            self.encoded += 1
            yield EncodedPacket(
                self.output.id, pts, pts, packet.is_keyframe, data, stamp.begun, stamp.arrival, layer=self.output.layer
            )

    def _of(self, pts: int) -> tuple[int, Stamp]:
        """The picture of a packet: they come out in order, libvpx rounds their times, and hardware may leave one out."""
        while len(self._inside) > 1 and self._inside[1][0] <= pts + _ROUNDED:
            self._inside.popleft()
        return self._inside.popleft()

    def _described(self, keyframe: bytes) -> Track:
        if self._av1 is not None and self._av1.track is not None:
            known = self._av1.track
            return replace(self.output, extradata=known.extradata, profile=known.profile, level=known.level)
        if self.output.codec is not Codec.H264:
            return self.output
        sets = parameter_sets(keyframe, Codec.H264)
        # H.264 §7.3.2.1.1: level_idc is the third byte after the SPS's header
        return replace(self.output, extradata=sets, level=sets[7] if len(sets) > 7 else 0, profile="Constrained Baseline")
