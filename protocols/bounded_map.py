"""A dictionary of a bounded size, for what strangers can fill: the key that was written longest ago makes room for a new one. Sans-IO."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedMap(OrderedDict[K, V]):
    """At most `most` keys, the one written longest ago first. Writing a key again makes it the newest; reading it does not."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    @property
    def full(self) -> bool:
        """Whether the next new key pushes another out."""
        return len(self) >= self.most

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        if len(self) > self.most:
            self.popitem(last=False)
