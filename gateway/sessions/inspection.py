"""Whether what comes of a connected encoder is worth showing: once a second its newest key frame and its sound are looked at in a worker.

Kept true: nothing is decoded in this process, and nothing anywhere unless a trigger asks for it; a worker looks at one stream alone; what
waits to be looked at is bounded; where it cannot be looked at, it is shown.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from functools import partial
from time import monotonic_ns
from typing import Final, Protocol

from gateway.sessions.seat_state import InterruptionCause
from gateway.sessions.triggers import SECOND, Triggers, TriggerWatch
from gateway.telemetry.log import event
from protocols.defects import log_defect
from protocols.errors import Rejected
from protocols.media import EncodedPacket, Kind, Track
from transcode.host.pool import Workers
from transcode.host.process import Worker
from transcode.look_messages import Look, LookedAt

_EVERY_S: Final = 1.0
_ASK_NS: Final = 4 * SECOND  # without a key frame
_WITHIN_S: Final = 5.0
_AGAIN_S: Final = 30.0  # after there was no worker
_RATED: Final = 3  # looks over which a bit rate is measured
_MOST_SOUND: Final = 256  # packets
_MOST_SOUND_BYTES: Final = 256 << 10

log = logging.getLogger(__name__)


class Inspected(Protocol):
    """Whose media they are. Nothing here blocks or raises."""

    @property
    def paused(self) -> bool:
        """The encoder is not read just now, by our own will."""

    def ask_keyframe(self, layer: str) -> None:
        """Of the picture of this layer, where the encoder makes them when asked."""

    def judged(self, cause: InterruptionCause | None) -> None:
        """Why what comes is as good as nothing; None: it is not."""


class Inspection:
    """Of one seat, over all of its publishers."""

    def __init__(self, name: str, triggers: Triggers, workers: Workers, owner: Inspected) -> None:
        """`name` is the seat's, for the log."""
        self._name = name
        self._triggers = triggers
        self._workers = workers
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._worker: Worker | None = None
        self._no_worker_until = 0.0
        self._looking: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._picture: Track | None = None  # the smallest, and
        self._sound: Track | None = None
        self.forget()

    def expect(self, tracks: Sequence[Track]) -> None:
        """The encoder has these."""
        pictures = (track for track in tracks if track.kind is Kind.VIDEO)
        self._picture = min(pictures, key=lambda track: track.width * track.height, default=None)
        self._sound = next((track for track in tracks if track.kind is Kind.AUDIO), None)
        self._watch.expect(frozenset(track.kind for track in tracks))

    def take(self, packet: EncodedPacket) -> None:
        """The encoder gave this."""
        self._bytes += len(packet.data)
        if self._picture is not None and packet.track == self._picture.id:
            if packet.keyframe and packet.layer == self._picture.layer:
                self._keyframe, self._asked_at = packet.data, packet.arrival
        elif self._sound is not None and packet.track == self._sound.id:
            self._heard.append(packet.data)
            self._heard_bytes += len(packet.data)
            while len(self._heard) > _MOST_SOUND or self._heard_bytes > _MOST_SOUND_BYTES:
                self._heard_bytes -= len(self._heard.popleft())
        if self._timer is None:
            self._arm()

    def forget(self) -> None:
        """What was noticed so far is of no interest any more: media are missing, or come anew."""
        self._watch = TriggerWatch(self._triggers)
        self._rates: deque[float] = deque(maxlen=_RATED)
        self._bytes = self._heard_bytes = 0
        self._keyframe = b""
        self._heard: deque[bytes] = deque()
        self._since = self._asked_at = monotonic_ns()

    def close(self) -> None:
        """The seat ends."""
        if self._timer is not None:
            self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()
        if self._worker is not None:
            self._worker.abandon()

    def _arm(self) -> None:
        self._timer = self._loop.call_later(_EVERY_S, self._tick)

    def _tick(self) -> None:
        self._arm()
        now, since = monotonic_ns(), self._since
        if self._owner.paused:  # what came is what we have let come
            self.forget()
            return
        self._since = now
        if self._triggers.sees and self._picture is not None and now - self._asked_at >= _ASK_NS:
            self._asked_at = now
            self._owner.ask_keyframe(self._picture.layer)
        self._rates.append(self._bytes * 8 * SECOND / max(1, now - since))
        if len(self._rates) == _RATED:
            self._watch.rate(sum(self._rates) / _RATED, now)
        if self._sound is not None and not self._heard:
            self._watch.no_sound(since)
        if self._triggers.looks and (self._keyframe or self._heard) and self._looking is None:
            at = LookedAt(self._picture, self._keyframe, self._sound, tuple(self._heard))
            self._looking = self._loop.create_task(self._look(at, since, self._watch), name=f"look at {self._name}")
            self._looking.add_done_callback(self._looked)
            self._looking.add_done_callback(partial(log_defect, log, "a stream could not be looked at"))
        self._bytes = self._heard_bytes = 0
        self._keyframe = b""
        self._heard.clear()
        self._owner.judged(self._watch.cause(now))

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._looking = None

    async def _look(self, at: LookedAt, since: int, watch: TriggerWatch) -> None:
        look = await self._asked(at)
        if watch is not self._watch:
            return
        if look == Look():
            self.forget()  # what cannot be looked at is shown
        else:
            watch.looked(look, since)
        self._owner.judged(self._watch.cause(monotonic_ns()))

    async def _asked(self, at: LookedAt) -> Look:
        worker = await self._ready()
        if worker is None:
            return Look()
        try:
            async with asyncio.timeout(_WITHIN_S):
                return await worker.look(at)
        except TimeoutError:
            self._worker = None
            await worker.aclose()
            return Look()

    async def _ready(self) -> Worker | None:
        if self._worker is not None and not self._worker.closed:
            return self._worker
        if self._loop.time() < self._no_worker_until:
            return None
        try:
            self._worker = await self._workers.start(f"{self._name} look")
        except Rejected as refusal:
            self._no_worker_until = self._loop.time() + _AGAIN_S
            words = f"a stream is not looked at for now, so that it is shown whatever it is: {refusal.detail}"
            event(log, logging.WARNING, words, session=self._name)
            return None
        return self._worker
