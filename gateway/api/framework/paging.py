"""How much of a list one answer shows: as many items as fit into its bytes, and the rest on the next page. Sans-IO."""

from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

from pydantic import BaseModel

M = TypeVar("M", bound=BaseModel)

MAX_ANSWER: Final = 256 * 1024  # bytes of the items of one answer, as JSON


def fitting(items: Iterable[M]) -> Iterator[M]:
    """The first items that fit, at least one: what is too much is not even made."""
    left = MAX_ANSWER
    for number, item in enumerate(items):
        left -= len(item.model_dump_json().encode())
        if left < 0 and number:
            return
        yield item
