"""Parts of an HLS stream on their way through a worker process: the gateway's side.

Keeps true: each part that is given is answered, once, in the order given; what a worker that fell behind, crashed or refused could not make
is answered with nothing, at once where the worker is too far behind. Nothing here blocks.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from protocols.media import EncodedPacket, Track
from transcode.mux_messages import pack_mux

Done = Callable[[bytes, bytes], None]
"""Takes the initialisation section and the fragment, both empty where there is none; on the event loop, must not block or raise."""

_MOST_WAITING = 32


@dataclass(slots=True)
class _Waiting:
    done: Done
    made: tuple[bytes, bytes] | None = None


class Fragments:
    """Those of one worker: `Worker.fragments`."""

    def __init__(self, send: Callable[[bytes], bool]) -> None:
        """`send` takes a message for the worker; False if the worker cannot take it now."""
        self.lost = 0
        """Parts that were not made."""
        self._send = send
        self._waiting: deque[_Waiting] = deque()

    def make(self, track: Track, packets: Sequence[EncodedPacket], durations: Sequence[int], index: int, done: Done) -> None:
        """Have one part made: `durations` in ns belong to `packets`, `index` counts the track's fragments from 1."""
        waiting = _Waiting(done)
        message = pack_mux(track, packets, durations, index) if len(self._waiting) < _MOST_WAITING else b""
        self._waiting.append(waiting)
        if not message or not self._send(message):
            self._lose(waiting)
            self._answer()

    def then(self, done: Callable[[], None]) -> None:
        """`done` is called once all that was given before is answered."""
        self._waiting.append(_Waiting(lambda init, fragment: done(), (b"", b"")))
        self._answer()

    # What the worker says

    def on_taken(self) -> None:
        """Nothing: the fragment itself is the answer."""

    def on_fragment(self, init: bytes, fragment: bytes) -> None:
        waiting = next((each for each in self._waiting if each.made is None), None)
        if waiting is not None:
            waiting.made = init, fragment
            self.lost += not fragment
            self._answer()

    def give_up(self) -> None:
        """The worker has gone: what it had in hand will not come."""
        for waiting in self._waiting:
            if waiting.made is None:
                self._lose(waiting)
        self._answer()

    def _lose(self, waiting: _Waiting) -> None:
        waiting.made = b"", b""
        self.lost += 1

    def _answer(self) -> None:
        while self._waiting and (made := self._waiting[0].made) is not None:
            waiting = self._waiting.popleft()
            waiting.done(*made)
