"""When nothing comes of an encoder any more, whether its connection is there or not. Sans-IO.

A connected encoder that sends nothing is the same failure as a closed socket. Kept true: what is usual for a track is no silence, however
slow it is: each may be without a whole frame for three of its own frame times. A connection is silent when all of its tracks are: a
picture that stands while the sound goes on is what a slide show looks like, and the other way round a pause in a talk.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

STALLED_NS: Final = 500_000_000  # without a whole frame, at least
FRAMES: Final = 3  # or for so many frame times
SLATE_NS: Final = 1_500_000_000  # at least, after which nobody waits for the encoder to go on by itself
_LONGEST_FRAME: Final = 10_000_000_000  # ns; a jump of the clock is no frame time
_FORGET: Final = 32  # frames, after which a frame time that was long once is half forgotten, about


@dataclass(slots=True)
class _Heard:
    """One track: when its newest frame was whole, on our clock and on the encoder's, and how far apart its frames are."""

    last: int
    dts: int
    frame: int = 0


class SilenceWatch:
    """Of one connection. All times in ns; those of `last`, `stalled_at` and `slate_at` on the monotonic clock."""

    def __init__(self, since: int | None = None) -> None:
        """`since`: when the connection before this one was heard last, which was to go on then; None: there was none."""
        self._since = since
        self._tracks: dict[int, _Heard] = {}

    def heard(self, track: int, dts: int, now: int) -> None:
        """A whole frame of this track, with this time stamp of the encoder's, came at `now`."""
        heard = self._tracks.get(track)
        if heard is None:
            self._tracks[track] = _Heard(now, dts)
            return
        heard.frame = min(max(dts - heard.dts, heard.frame - heard.frame // _FORGET), _LONGEST_FRAME)
        heard.last, heard.dts = now, dts

    def keep(self, tracks: Collection[int]) -> None:
        """The connection has these tracks and no others: nothing is expected of those that have ended."""
        for track in self._tracks.keys() - tracks:
            del self._tracks[track]

    def excuse(self, now: int) -> None:
        """Until `now` nothing could come, and that was our own doing."""
        for heard in self._tracks.values():
            heard.last = now
        self._since = None if self._since is None else now

    @property
    def last(self) -> int | None:
        """When the newest frame came; None: there was none yet."""
        return max((heard.last for heard in self._tracks.values()), default=self._since)

    @property
    def stalled_at(self) -> int | None:
        """From when on the connection is silent, should nothing more come; None: nothing was heard yet."""
        return self._after(STALLED_NS)

    @property
    def slate_at(self) -> int | None:
        """From when on it has been silent for long."""
        return self._after(SLATE_NS)

    def _after(self, least: int) -> int | None:
        since = None if self._since is None else self._since + least
        return max((heard.last + max(least, FRAMES * heard.frame) for heard in self._tracks.values()), default=since)
