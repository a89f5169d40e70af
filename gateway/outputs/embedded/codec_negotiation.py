"""Which video codecs a call takes: those that all its viewers take, and H.264 always. Sans-IO.

Kept true: a codec that some viewer does not take is given up at once; it is taken again only when for a while no viewer has been without
it, so that viewers who come and go do not make the picture change to and fro. Who has no video says nothing.
"""

from collections.abc import Iterable

from protocols.media import WEBRTC_VIDEO, Codec

CARRIES = WEBRTC_VIDEO | {Codec.OPUS}
"""What a call takes where all its viewers do."""
# A viewer that does not take H.264 is shown nothing, rather than that all others get something else.
_OPTIONAL = WEBRTC_VIDEO - {Codec.H264}


class CodecNegotiation:
    """Told by `see` who is there whenever that changes. All times are monotonic, in ns."""

    def __init__(self, patience: int) -> None:
        """`patience`: from when the last viewer without a codec has gone until it is taken again."""
        self._patience = patience
        self._given_up: dict[Codec, int | None] = {}  # since when no viewer is without it; None: one is

    def see(self, viewers: Iterable[frozenset[Codec]], now: int) -> None:
        """These are there from `now` on, each with the video codecs that it takes."""
        missed = _OPTIONAL - _OPTIONAL.intersection(*viewers)
        for codec in missed:
            self._given_up[codec] = None
        for codec, since in list(self._given_up.items()):
            if codec not in missed and since is None:
                self._given_up[codec] = now

    def accepts(self, now: int) -> frozenset[Codec]:
        return CARRIES - {codec for codec, since in self._given_up.items() if since is None or now < since + self._patience}

    def due(self, now: int) -> int | None:
        """When `accepts` will be different if nobody comes or goes."""
        ends = [since + self._patience for since in self._given_up.values() if since is not None]
        return min((end for end in ends if end > now), default=None)
