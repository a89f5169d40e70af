"""What may be set of transcoding, for the whole gateway and for one call: each setting once, with its kind, standard and bounds. Sans-IO.

The configuration takes standard and bounds of its keys from here, the API's model is made from it, a call's record holds it as it is,
and `transcode.plan.Policy` carries it to where it is decided by.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar

from transcode.ladder import NAMES

T = TypeVar("T")
Treatment = Literal["auto", "always", "never"]
"""Video is transcoded where that is needed, even where it is not needed, or never: it is refused instead."""
MadeCodec = Literal["h264", "vp8", "av1"]
_EDGE: Final = (16, 7680)


@dataclass(frozen=True, slots=True)
class Setting:
    """`standard`: where nobody says anything. `least` and `most`: what may be said; None: no bound. A `limit` a call may only narrow."""

    standard: Any
    least: Any
    most: Any
    meaning: str
    limit: bool


def _setting(standard: T, least: T | None = None, most: T | None = None, meaning: str = "", *, limit: bool = False) -> T:
    unsaid: T = field(default=type(standard)(), metadata={"setting": Setting(standard, least, most, meaning, limit)})
    return unsaid


@dataclass(frozen=True, slots=True)
class Transcoding:
    """What happens to media in this call; 0 and empty: as the gateway's configuration says."""

    policy: Literal["", Treatment] = _setting("auto")
    # Of the long edge if it is the larger limit: a portrait picture is held to the turned box
    max_width: int = _setting(1920, *_EDGE, limit=True)
    max_height: int = _setting(1080, *_EDGE, limit=True)
    max_frame_rate: float = _setting(60.0, 1, 240, limit=True)
    max_bitrate: int = _setting(6_000_000, 100_000, 50_000_000, "Bits per second.", limit=True)  # of a transcoded video
    layers: int = _setting(1, 1, len(NAMES), "Sizes that each video is offered in.")  # as many as its own size allows
    codec: Literal["", MadeCodec] = _setting(
        "h264", meaning="What video becomes where it is transcoded and all viewers take it; else H.264."
    )


UNSAID: Final = Transcoding()
SETTINGS: Final[Mapping[str, Setting]] = MappingProxyType({each.name: each.metadata["setting"] for each in fields(Transcoding)})
"""Of `Transcoding`, by name."""
