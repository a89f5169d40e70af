"""What a viewer asks for one of its pictures, as JSON: the Video Layer Selection of draft-ietf-wish-whep-03. Sans-IO.

Beside the draft's fields (`mediaId`, `rid`, `maxWidth`, `maxHeight`; `encodingId` is what its earlier versions called `rid`) there are two
of our own, `width` and `height`: the tile in its own pixels, for which the smallest layer that fills it is meant. Fields that are not
known, such as those for scalable codecs, are ignored.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from protocols.errors import ProtocolError
from protocols.webrtc.send.simulcast import Wish

MAX_BYTES = 4096
_MAX_PIXELS = 1 << 16
_MAX_NAME = 255  # RFC 8851 §10 sets none; our own parser of offers is stricter


@dataclass(frozen=True, slots=True)
class LayerRequest:
    """`media` is a mid or the index of an m-line; None: the first picture."""

    media: str | None
    wish: Wish


def parse(body: bytes) -> LayerRequest:
    """Raises `ProtocolError`, in words for the author of the player."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise ProtocolError("the body is not JSON") from None
    if not isinstance(fields, dict):
        raise ProtocolError("the body is not a JSON object")
    return LayerRequest(
        media=_name(fields, "mediaId"),
        wish=Wish(
            layer=_name(fields, "rid") or _name(fields, "encodingId") or "",
            width=_pixels(fields, "width"),
            height=_pixels(fields, "height"),
            max_width=_pixels(fields, "maxWidth"),
            max_height=_pixels(fields, "maxHeight"),
        ),
    )


def _name(fields: Mapping[str, object], key: str) -> str | None:
    value = fields.get(key)
    if isinstance(value, int) and not isinstance(value, bool):  # players send the index as a number
        value = str(value)
    if value is None or (isinstance(value, str) and len(value) <= _MAX_NAME):
        return value
    raise ProtocolError(f"{key} is a string")


def _pixels(fields: Mapping[str, object], key: str) -> int:
    value = fields.get(key, 0)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _MAX_PIXELS:
        return int(value)
    raise ProtocolError(f"{key} is a number of pixels")
