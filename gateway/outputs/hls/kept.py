"""What of a stream goes on in another process: its name in addresses, what its playlists have promised, and their numbers.

The media are gone with the process that had them: no segment of before is listed, the first new one is a discontinuity, and its number
follows (RFC 8216bis §6.2.1: media and discontinuity sequence numbers never go back).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from gateway.model.records import Json
from protocols.hls.playlist import MediaPlaylist
from protocols.hls.segmenter import Timing


@dataclass(frozen=True, slots=True)
class KeptRendition:
    """`segment` is the number of the next one, `discontinuities` were before it, `init` is the next initialisation section's. On the disk
    or in the bucket there may be those from `archived` on."""

    segment: int
    discontinuities: int
    init: int
    archived: int

    def farewell(self, timing: Timing) -> str:
        """The playlist of one that ends before anything new was in it."""
        playlist = MediaPlaylist(timing, 0, self.segment, self.discontinuities)
        playlist.end()
        return playlist.text()


@dataclass(frozen=True, slots=True)
class KeptStream:
    """`end` is the media time in ns up to which it has come."""

    id: str
    timing: Timing
    end: int
    interruptions: int
    renditions: Mapping[str, KeptRendition] = field(default_factory=dict)

    def after(self, away: int) -> Self:
        """As it goes on when nothing has come for `away` ns: that is one interruption more."""
        return replace(self, end=self.end + away, interruptions=self.interruptions + 1)

    def to_json(self) -> Json:
        return asdict(self)

    @classmethod
    def of(cls, stored: Any) -> Self:
        """Raises `ValueError` for what this version does not know how to go on with."""
        try:
            renditions = {str(name): KeptRendition(**_whole(each)) for name, each in stored["renditions"].items()}
            timing = Timing(**_whole(stored["timing"]))
            numbers = _whole({name: stored[name] for name in ("end", "interruptions")})
            return cls(str(stored["id"]), timing, renditions=renditions, **numbers)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"is no stream that was kept: {type(error).__name__}") from None


def _whole(numbers: Mapping[str, Any]) -> dict[str, int]:
    if any(type(number) is not int or number < 0 for number in numbers.values()):
        raise TypeError
    return dict(numbers)
