"""A picture that stands, for when an encoder sends none: an access unit that can be put behind any other. Sans-IO.

Kept true: what is shown stays as it is, and whatever comes next decodes as if nothing had been put in front of it.
"""

from collections.abc import Callable
from typing import Protocol

from protocols.bitstream.h264_still import H264Still
from protocols.bitstream.hevc_still import HevcStill
from protocols.media import Codec, Track


class Stills(Protocol):
    """Of one stream of access units."""

    def note(self, access_unit: bytes, pts: int) -> None:
        """The access unit that comes next, shown at `pts` (ns)."""

    def repeat(self, pts: int) -> bytes:
        """An access unit with which the picture before `pts` stays there, to be put behind what came; empty where there can be none. Each
        has its place: ask again for the next."""
        ...


class _CodecStills(Stills, Protocol):
    @property
    def parameter_sets(self) -> bytes: ...


class _NoStills:
    """Of a codec that has none, and of sound."""

    def __init__(self, parameter_sets: bytes) -> None:
        self.parameter_sets = parameter_sets

    def note(self, access_unit: bytes, pts: int) -> None:
        pass

    def repeat(self, pts: int) -> bytes:
        return b""


_CODECS: dict[Codec, Callable[[bytes], _CodecStills]] = {Codec.H264: H264Still, Codec.HEVC: HevcStill}


class StillPictures:
    """Of one track after the other; `Stills`."""

    def __init__(self, track: Track) -> None:
        self.begin(track)

    def begin(self, track: Track) -> None:
        """What comes from here on is this; its `extradata` is what a decoder has."""
        self._stills = _CODECS.get(track.codec, _NoStills)(track.extradata)

    @property
    def parameter_sets(self) -> bytes:
        """What a decoder needs beforehand, also for what is made here (Annex B)."""
        return self._stills.parameter_sets

    def note(self, access_unit: bytes, pts: int) -> None:
        self._stills.note(access_unit, pts)

    def repeat(self, pts: int) -> bytes:
        return self._stills.repeat(pts)
