"""The bytes received and not yet read, in one fixed piece of memory that the socket writes into directly. Sans-IO."""


class ReceiveBuffer:
    """`data[start:end]` is unread. The reader moves `start`; the socket fills `space()` and says how much by `filled()`."""

    __slots__ = ("data", "end", "start", "view")

    def __init__(self, size: int) -> None:
        self._allocate(size)
        self.start = self.end = 0

    def _allocate(self, size: int) -> None:
        self.data = bytearray(size)
        self.view = memoryview(self.data)

    def __len__(self) -> int:
        return self.end - self.start

    def space(self) -> memoryview:
        """Where the next bytes go: never empty unless a whole buffer waits unread."""
        if self.start == self.end:
            self.start = self.end = 0
        elif len(self.data) - self.end < len(self.data) // 4:
            self.view[: len(self)] = self.view[self.start : self.end]
            self.end -= self.start
            self.start = 0
        return self.view[self.end :]

    def filled(self, count: int) -> None:
        self.end += count

    def take(self, count: int) -> bytes:
        """The next `count` bytes, which must be there."""
        taken = bytes(self.view[self.start : self.start + count])
        self.start += count
        return taken

    def enlarge(self, size: int) -> None:
        """A larger piece of memory with the same unread bytes."""
        unread = self.take(len(self))
        self._allocate(size)
        self.view[: len(unread)] = unread
        self.start, self.end = 0, len(unread)
