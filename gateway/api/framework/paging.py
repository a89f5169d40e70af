"""How much of a list one answer shows: as many items as fit into its bytes, and the rest on the next page. Sans-IO.

A list that is in memory has an order of its own, that of its items' keys: the cursor is the last key that was shown, so that what comes and
goes meanwhile skips and repeats nothing else. Pages of what is stored are made in `gateway.store.queries`.
"""

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeVar

from pydantic import BaseModel

from gateway.model.records import MAX_CURSOR
from protocols.errors import Reason, Rejected

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

MAX_ANSWER: Final = 256 * 1024  # bytes of the items of one answer, as JSON
_CURSOR: Final = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_CURSOR}}}")


def fitting(items: Iterable[M]) -> Iterator[M]:
    """The first items that fit, at least one: what is too much is not even made."""
    left = MAX_ANSWER
    for number, item in enumerate(items):
        left -= len(item.model_dump_json().encode())
        if left < 0 and number:
            return
        yield item


def page(keyed: Mapping[str, T], show: Callable[[T], M], cursor: str | None) -> tuple[dict[str, M], str | None]:
    """Those behind the cursor that fit, by key, and the cursor of the next page; None: there is none. Raises `Rejected` (BAD_REQUEST) for
    what is no cursor."""
    last_shown = _key(cursor) if cursor is not None else ""
    behind = sorted(key for key in keyed if key > last_shown)
    shown = dict(zip(behind, fitting(show(keyed[key]) for key in behind), strict=False))
    return shown, _cursor(behind[len(shown) - 1]) if len(shown) < len(behind) else None


def _cursor(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def _key(cursor: str) -> str:
    try:
        if not _CURSOR.fullmatch(cursor):
            raise ValueError
        return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except ValueError:  # of base64 and UTF-8, too
        raise Rejected(Reason.BAD_REQUEST, "the cursor is none of ours: begin without one") from None
