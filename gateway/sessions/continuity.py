"""What becomes of a seat while its encoder is silent or away: it stalls, is shown to be away, and goes on.

Kept true: an interruption lasts from the encoder's last media to the next, whatever becomes of connections meanwhile; what our own side
makes wait (back-pressure, a busy machine) is none. Media that are as good as none (`triggers.py`) are an interruption of their own, which
is over when they are better, or when others come.
"""

import asyncio
from time import monotonic_ns
from typing import Final, Protocol

from gateway.sessions.inspection import Inspection
from gateway.sessions.routes import Routes
from gateway.sessions.seat_state import Interruption, InterruptionCause, SeatChange
from gateway.sessions.silence import SilenceWatch
from gateway.sessions.slate import ShownSeat, Slate, SlatePolicy
from protocols.media import EncodedPacket, Track
from protocols.publisher import Publisher

_BUSY_NS: Final = 20_000_000  # a timer that is later than this: what came meanwhile has not been read yet
_LOOK_AGAIN_NS: Final = 50_000_000


class Interrupted(Protocol):
    """Whose media they are. Nothing here blocks or raises."""

    @property
    def paused(self) -> bool:
        """The encoder is not read just now, by our own will."""

    @property
    def publisher(self) -> Publisher | None:
        """Whoever gives them just now."""

    def stands_in(self) -> bool:
        """Nothing comes of the encoder: whether another one goes on in its place."""

    def interrupted(self, interruption: Interruption, change: SeatChange) -> None:
        """It has begun (STALLED, or SLATE at once), has become a long one (SLATE), or is over (RESUMED)."""


class Continuity:
    """Of one seat, over all of its publishers."""

    def __init__(self, owner: Interrupted, interruption: Interruption | None = None) -> None:
        self.slate: Slate | None = None
        """What viewers are shown meanwhile, once there is anything to stand in for."""
        self.interruption = interruption
        """The present one."""
        self._inspection: Inspection | None = None
        self._held = False  # media come, and are not shown
        self._owner = owner
        self._watch = SilenceWatch()
        self._long_at: int | None = None  # when the present one becomes a long one; None: it has, or there is none
        self._due = 0  # what the timer is set for, monotonic ns
        self._looked_again = False
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, policy: SlatePolicy, seat: ShownSeat, routes: Routes) -> None:
        """There is something to stand in for."""
        self.slate = policy.slate(seat, routes, self.returned)
        self._inspection = policy.inspection(seat.id, self)

    def expect(self, tracks: tuple[Track, ...]) -> None:
        """The publisher's tracks are these from here on."""
        self._watch.keep(frozenset(track.id for track in tracks))
        if self.slate is not None:
            self.slate.expect(frozenset(track.kind for track in tracks))
        if self._inspection is not None:
            self._inspection.expect(tracks)

    def heard(self, packet: EncodedPacket) -> None:
        """The publisher gave this."""
        self._watch.heard(packet.track, packet.dts, packet.arrival)
        if self._inspection is not None:
            self._inspection.take(packet)
        if self.interruption is not None:
            if not self._held and (self.slate is None or not self.slate.stands_in):
                self.returned()
        elif self._timer is None:
            self._arm(monotonic_ns())

    def ending(self) -> None:
        """The publisher gives nothing more: what it gave is still on its way, and that it is silent now means nothing."""
        self._disarm()

    def gone(self, *, replaced: bool) -> None:
        """The publisher's connection has ended, after its media were in the call. `replaced`: another one goes on at once, and viewers see
        nothing of it unless that takes as long as a silence that is noticed."""
        now = monotonic_ns()
        self._anew()
        self._watch = SilenceWatch(self._watch.last if self._watch.last is not None else now)
        if not replaced and (self.interruption is None or self._long_at is not None):
            self._show(self.interruption or Interruption(InterruptionCause.CLOSED, self._watch.last or now))
        elif self.interruption is not None and self.slate is not None:
            self.slate.again()
        self._arm(now)

    def close(self) -> None:
        """The seat ends."""
        self._disarm()
        if self._inspection is not None:
            self._inspection.close()
        if self.slate is not None:
            self.slate.close()

    @property
    def paused(self) -> bool:
        return self._owner.paused

    def ask_keyframe(self, layer: str) -> None:
        if self._owner.publisher is not None:
            self._owner.publisher.request_keyframe(layer)

    def judged(self, cause: InterruptionCause | None) -> None:
        """Told by its `Inspection`."""
        if cause is None:
            self._release()
        elif self.interruption is None and self.slate is not None:
            self._held = True
            self.slate.hold()
            self._show(Interruption(cause, monotonic_ns()))

    def _release(self) -> None:
        if self._held and self.slate is not None:
            self._held = False
            self.slate.release()

    def _anew(self) -> None:
        """What was noticed of media before is of no interest any more."""
        self._release()
        if self._inspection is not None:
            self._inspection.forget()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stall(self, now: int) -> None:
        watch = self._watch
        self._anew()
        self.interruption = Interruption(InterruptionCause.SILENT, now if watch.last is None else watch.last)
        self._long_at = watch.slate_at
        if self.slate is not None:
            self.slate.cover()
        self._owner.interrupted(self.interruption, SeatChange.STALLED)

    def _show(self, interruption: Interruption) -> None:
        self.interruption, self._long_at = interruption, None
        if self.slate is not None:
            self.slate.show()
        self._owner.interrupted(interruption, SeatChange.SLATE)

    def returned(self) -> None:
        """Media of an encoder are in the call again."""
        interruption, now = self.interruption, monotonic_ns()
        if interruption is None:
            return
        self._anew()
        interruption.gap = now - interruption.since
        self._owner.interrupted(interruption, SeatChange.RESUMED)
        self.interruption = self._long_at = None
        self._arm(now)

    @property
    def _next(self) -> int | None:
        """When something is to be told if nothing comes, in monotonic ns."""
        return self._watch.stalled_at if self.interruption is None else self._long_at

    def _arm(self, now: int, least: int = 0) -> None:
        """Look when something is to be told if nothing comes, and in `least` ns at the soonest."""
        self._disarm()
        if (due := self._next) is not None:
            self._due = max(due, now + least)
            self._timer = asyncio.get_running_loop().call_later((self._due - now) / 1e9, self._look)

    def _look(self) -> None:
        now = monotonic_ns()
        if now - self._due > _BUSY_NS and not self._looked_again:
            self._looked_again = True
            self._arm(now, _LOOK_AGAIN_NS)
            return
        self._looked_again = False
        if self._owner.paused:
            self._watch.excuse(now)
        due = self._next
        if due is not None and now >= due:
            if self.interruption is None:
                if self._owner.stands_in():
                    self._watch = SilenceWatch(now)
                else:
                    self._stall(now)
            else:
                self._show(self.interruption)
        self._arm(now)
