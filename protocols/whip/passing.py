"""H.264 whose RTP payloads go on to viewers as they came: what must be known of a frame is read off their first bytes. Sans-IO.

What is kept true: a frame that passes is whole, is no larger than the path takes, and has its parameter sets in it or before it where a
decoder begins. Anything else is taken apart and put together again by who sends it.
"""

from collections.abc import Sequence

from protocols.bitstream.h26x import NalStream
from protocols.bitstream.unit import AccessUnit, check_size
from protocols.media import Codec, Track
from protocols.webrtc.receive.depacketize import h264_frame, h264_kinds
from protocols.webrtc.send.packetize import UNSENT, packetize_h264

PASS_LIMIT = 1240
"""Bytes of a payload: what encoders send by default (OBS 1220, Chromium 1170) passes, and with all headers stays below 1350. It came by a
path that took it; what is larger is cut anew for the smallest path that there is."""

_SLICES = {1}  # ITU-T H.264 Table 7-1: of a picture that is no IDR picture
_SETS = {7, 8}


class PassingH264:
    """State of one stream."""

    def __init__(self, track_id: int) -> None:
        self._stream = NalStream(Codec.H264, track_id)
        self._described: Track | None = None
        self._sets: tuple[bytes, ...] = ()  # the payloads of its parameter sets

    @property
    def track(self) -> Track | None:
        return self._stream.track

    def take(self, payloads: Sequence[bytes]) -> tuple[AccessUnit, tuple[bytes, ...]]:
        """The payloads of one frame; gives it with what may be sent of it as it is. Raises `ProtocolError` for what is broken."""
        data, kinds = h264_frame(payloads), h264_kinds(payloads)
        settled = self._stream.settled
        if kinds == _SLICES and settled:
            check_size(data)
            return AccessUnit(data, False, False), _passing(payloads)
        unit = self._stream.annexb(data)
        if not unit.data or kinds & UNSENT:
            return unit, ()
        passing = _passing(payloads)
        if passing and (unit.keyframe or not settled) and not kinds >= _SETS and self.track is not None:
            passing = (*self._parameter_sets(self.track), *passing)
        return unit, passing

    def _parameter_sets(self, track: Track) -> tuple[bytes, ...]:
        """As payloads, cut once for all key frames that need them."""
        if track is not self._described:
            self._described, self._sets = track, tuple(packetize_h264(track.extradata))
        return self._sets


def _passing(payloads: Sequence[bytes]) -> tuple[bytes, ...]:
    return tuple(payloads) if max(map(len, payloads)) <= PASS_LIMIT else ()
