"""What HLS takes of one seat; an `Output`.

Kept true: HLS players get the sound as AAC and the picture as H.264 or HEVC, as it came where it is that (B-frames included), else as it
is made for others or for them; smaller pictures that are made for others are variants.
"""

from collections.abc import Callable
from copy import copy
from typing import Final

from gateway.outputs.hls.stream import Feed, HlsStream
from gateway.sessions.capacity import Demand, OutputCost
from gateway.sessions.output import Feedback, OnChange, SeatView, Want
from protocols.errors import Rejected
from protocols.media import Codec, Kind, Track

_PICTURES: Final = frozenset({Codec.H264})
_SOUNDS: Final = frozenset({Codec.AAC})


class HlsSeatOutput:
    """`seat` is whose media it takes."""

    name: Final = "hls"
    essential: Final = False
    overhead: Final = Demand(outputs=(OutputCost(name, "HLS"),))

    def __init__(
        self,
        seat: SeatView,
        is_wanted: Callable[[SeatView], bool],
        stream_of: Callable[[SeatView], HlsStream],
        on_change: OnChange,
        on_refused: Callable[[SeatView, Rejected], None],
        on_closed: Callable[["HlsSeatOutput"], None],
    ) -> None:
        """`is_wanted` says whether the seat's call is broadcast; `stream_of` gives the stream of the seat's user that is going on, or a new
        one."""
        self.seat = seat
        self.on_change = on_change
        self._is_wanted = is_wanted
        self._stream_of = stream_of
        self._on_refused = on_refused
        self._on_closed = on_closed
        self._stream: HlsStream | None = None

    def wants(self, track: Track) -> Want | None:
        return wanted(track) if self._is_wanted(self.seat) else None

    def cost(self) -> Demand:
        """Of what it would take of the seat if the call were broadcast now."""
        as_if = copy(self)
        as_if._is_wanted = lambda seat: True
        return self.seat.cost_of(as_if)

    def publish(self, track: Track, feedback: Feedback) -> Feed:
        if self._stream is None or self._stream.ended:
            self._stream = self._stream_of(self.seat)
            self._stream.attach(self.seat)
        return self._stream.publish(track, feedback)

    def refused(self, refusal: Rejected) -> None:
        self._on_refused(self.seat, refusal)

    async def aclose(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None and not stream.ended:
            stream.detach()
        self._on_closed(self)


def wanted(track: Track) -> Want:
    """How HLS players take this track."""
    as_it_comes = frozenset({track.codec}) if fits(track) else frozenset()
    if track.kind is Kind.AUDIO:
        return Want(as_it_comes, _SOUNDS, taker="HLS")
    return Want(
        as_it_comes,
        _PICTURES,
        reorder=True,
        bit_depth=10,
        interlaced=True,
        unlimited=True,
        layers=1,
        smaller=True,
        taker="HLS",
    )


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
