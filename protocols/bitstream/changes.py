"""How often what describes a stream may change. Sans-IO.

Parameter sets and their like cost far more to read than media of the same size, and whoever takes the stream adapts to each change. So what
is new must be paid with bytes of the stream: real ones, whose parameters change with a scene or an encoder at the most, never notice.
"""

from protocols.errors import ProtocolError

AT_ONCE = 192 << 10
"""Bytes that a stream may spend before it has earned any, and save up at the most."""


class ChangeAllowance:
    """What one stream has earned and not yet spent."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = AT_ONCE

    def earn(self, size: int) -> None:
        """So many bytes of the stream came."""
        self._left = min(AT_ONCE, self._left + size)

    def spend(self, size: int) -> None:
        """Something changes that is worth so many bytes of the stream. Raises `ProtocolError` if they are not there."""
        if size > self._left:
            raise ProtocolError("the stream's parameters change too often")
        self._left -= size
