"""The inputs of one seat: encoders that are connected, of which one is forwarded; who comes takes the place of one, or stands by.

Kept true: each has its own task, so that what is wrong with one that stands by reaches nobody; one is forwarded after the other, never two
at once; where nobody can stand in (`succession.py`), the place of the last one is kept for it for a while.
"""

import asyncio
import logging
from collections.abc import Sequence
from time import monotonic_ns
from typing import NamedTuple, Protocol

from gateway.sessions.input import Input, InputOwner, InputPolicy
from gateway.sessions.rivals import Rivals
from gateway.sessions.succession import Succession, SwitchCause
from gateway.telemetry.log import SESSION
from protocols.defects import log_defect
from protocols.errors import Reason, Rejected
from protocols.media import Kind
from protocols.publisher import Publisher

log = logging.getLogger(__name__)

TAKEN_OVER = "another encoder with the same key took over"
OUTRANKED = "an encoder with a key of a better rank took over"
_AT_ONCE = Rejected(Reason.CONFLICT, "another encoder with the same key connected at the same moment")
_CLOSING = Rejected(Reason.CONFLICT, "the stream is just being closed: try again")


class Switch(NamedTuple):
    """Another input is forwarded than before, by rank: of the same, where one took the other's place."""

    before: int
    after: int
    cause: SwitchCause

    @property
    def taken_over(self) -> bool:
        """It came and took the other's place; else it stood by."""
        return self.cause is SwitchCause.TAKEN_OVER


class InputsOwner(InputOwner, Protocol):
    """Whose inputs they are."""

    @property
    def left_s(self) -> float:
        """For so many seconds it is still kept without an encoder."""

    def waits(self) -> None:
        """Nobody can go on: the place is kept."""

    def forwards(self, input: Input, switch: Switch | None) -> None:
        """From here on this one is forwarded, in place of another that was; None: it comes in the place of its own kind."""

    def held(self) -> None:
        """The inputs have changed too often: the one that is forwarded stays for a while."""

    def end(self, why: str) -> None:
        """For good."""


class Inputs:
    """See the file."""

    def __init__(
        self,
        first: Publisher,
        rank: int,
        barred: frozenset[Kind],
        owner: InputsOwner,
        policy: InputPolicy,
        succession: Succession,
    ) -> None:
        self._owner = owner
        self._policy = policy
        self._succession = succession
        self._rivals: dict[int, Rivals] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._next: tuple[Input, SwitchCause | None] | None = None  # to be forwarded, and why if it is a switch
        self._defect: BaseException | None = None
        self._closing = False
        self.live = self._made(first, rank, barred)
        """The one that is forwarded, or was last."""
        self.connected = [self.live]

    def rivals(self, rank: int) -> Rivals:
        """Those for the place of this rank."""
        return self._rivals.setdefault(rank, Rivals(monotonic_ns()))

    def held(self, now: int) -> bool:
        """The inputs have changed too often: the one that is forwarded stays for a while."""
        return self._succession.holds(now)

    @property
    def standing_by(self) -> Sequence[Input]:
        return [each for each in self.connected if each is not self.live]

    @property
    def waiting(self) -> bool:
        """Another one is about to be forwarded."""
        return self._next is not None

    async def run(self) -> None:
        """From the first one to the end of the last one's place."""
        self._start(self.live, ())
        while True:
            await self._forward(self.live)
            if self._closing or not await self._another():
                break
        self._closing = True
        await self.aclose()
        if self._defect is not None:
            raise self._defect

    async def come(self, publisher: Publisher, rank: int, barred: frozenset[Kind], *, alone: bool) -> None:
        """Another connection: it takes the place of the one with its rank, or stands by; `alone`: it takes the place of any. Raises
        `Rejected` when the seat is ending."""
        if self._closing:
            raise _CLOSING
        replaced = [each for each in self.connected if alone or each.rank == rank]
        waiting = [each for each in replaced if not each.begun]
        held = self._note_change(replaced, rank, contested=not waiting)
        input = self._made(publisher, rank, barred)
        if held:
            self._owner.held()
        if self.live.over.is_set() and self._next is None:
            self._choose(input, SwitchCause.CLOSED if rank != self.live.rank else None)
        elif self.live in replaced or (self._next is not None and self._next[0] in replaced):
            self._choose(input, SwitchCause.TAKEN_OVER)
        else:
            input.turn.set()
        for each in waiting:
            self.connected.remove(each)
        self.connected.append(input)
        for each in replaced:
            if not each.ended:
                each.abort(TAKEN_OVER if each.rank == rank else OUTRANKED)
        self._start(input, replaced)
        for each in waiting:
            await each.publisher.reject(_AT_ONCE)

    def _note_change(self, replaced: Sequence[Input], rank: int, *, contested: bool) -> bool:
        """True: there are to be no more changes for a while."""
        same = next((each for each in replaced if each.rank == rank), None)
        rival = same.publisher if same is not None and contested and not same.ended else None
        held = self.rivals(rank).taken_over(rival, monotonic_ns())
        if self.live in replaced and same is None:
            held = self._succession.switched(SwitchCause.TAKEN_OVER, monotonic_ns())
        return held

    def switch(self, rank: int | None) -> None:
        """By hand: the one of this rank, or None: the best that stands by, is forwarded from here on, for as long as it is up. Raises
        `Rejected` (CONFLICT) where there is none that is up."""
        now = monotonic_ns()
        if rank == self.live.rank and not self.live.over.is_set():
            self._succession.switched(SwitchCause.MANUAL, now)
            return
        there = [each for each in self.standing_by if rank is None or each.rank == rank]
        up = [each for each in there if each.well_since(now) is not None]
        if not up or self._closing:
            which = "another encoder of the stream" if rank is None else f"an encoder with a key of rank {rank}"
            words = f"nothing comes of {which}: see whether it sends" if there else f"{which} is not connected"
            raise Rejected(Reason.CONFLICT, words)
        self._choose(min(up, key=lambda each: each.rank), SwitchCause.MANUAL)

    def stalled(self) -> bool:
        """Nothing comes of the one that is forwarded. True: another goes on in its place."""
        return self._stand_in(SwitchCause.SILENT)

    def changed(self) -> None:
        """Media come of one of them, for the first time or again."""
        if self.live.over.is_set() or self.live.well_since(monotonic_ns()) is None:
            self._stand_in(SwitchCause.CLOSED if self.live.over.is_set() else SwitchCause.SILENT)
        else:
            self._look()

    def ended(self, input: Input) -> None:
        """Nothing more comes of this one."""
        if input in self.connected:
            self.connected.remove(input)
        if self._next is not None and self._next[0] is input:
            self._next = None
        if input is self.live or self.live.over.is_set():
            self._stand_in(SwitchCause.CLOSED)
        self._wake.set()

    def goes_on(self) -> bool:
        """The one that was forwarded is about to end. True: another goes on at once."""
        return self.waiting or self._stand_in(SwitchCause.CLOSED)

    def bar(self, rank: int, barred: frozenset[Kind]) -> None:
        """What comes with credentials of this rank may not be sent with them."""
        for each in (*self.connected, self.live):
            if each.rank == rank:
                each.barred = barred

    def end_rank(self, rank: int, why: str) -> None:
        """What comes with credentials of this rank, and all where there is nothing else."""
        if any(each.rank != rank for each in self.connected):
            for each in self.connected:
                if each.rank == rank:
                    each.abort(why)
        elif self.live.rank == rank:
            self._owner.end(why)

    def end(self, why: str) -> None:
        """All of them, for good: the encoders are told why."""
        self._closing = True
        for each in (*self.connected, self.live):
            each.abort(why)
        self._wake.set()

    async def aclose(self) -> None:
        """Waits for that."""
        if self._timer is not None:
            self._timer.cancel()
        waiting = [each for each in self.connected if not each.begun]
        self.connected = [each for each in self.connected if each.begun]
        for each in waiting:
            each.turn.set()
            await each.publisher.reject(_CLOSING)
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _made(self, publisher: Publisher, rank: int, barred: frozenset[Kind]) -> Input:
        return Input(publisher, self._owner, self._policy, self.rivals(rank), rank, barred)

    def _start(self, input: Input, replaced: Sequence[Input]) -> None:
        task = asyncio.create_task(self._run(input, replaced), name=f"input {input.publisher.id}")
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._done(input, task))

    async def _run(self, input: Input, replaced: Sequence[Input]) -> None:
        """Once those are over whose place it takes, and if it is to be forwarded at once, once that is so."""
        SESSION.set(self._owner.id)
        for each in replaced:
            if each.begun:
                await each.over.wait()
        await input.turn.wait()
        if input in self.connected:
            await input.run()

    def _done(self, input: Input, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if input is not self.live:
            log_defect(log, "an encoder that stood by was lost", task)
        elif not task.cancelled() and self._defect is None:
            self._defect = task.exception()
        self._wake.set()

    # Which is forwarded

    def _choose(self, input: Input, cause: SwitchCause | None) -> None:
        """This one is forwarded next."""
        if self._next is not None:
            self._next[0].turn.set()
        self._next = input, cause
        self._wake.set()

    async def _forward(self, input: Input) -> None:
        """Until another one is to be, or it ends."""
        await input.forward()
        self._look()
        while not input.over.is_set() and (self._next is None or input.aborted):
            await self._woken()
        if not input.over.is_set():
            await input.stand_by()

    async def _another(self) -> bool:
        """The next one is forwarded; False: nobody comes within the time for which the place is kept."""
        if self._next is None and not self.live.over.is_set():
            self._next = self.live, None  # the one that was to be forwarded has ended meanwhile
        if self._next is None and self._owner.left_s > 0:
            self._owner.waits()
        try:
            async with asyncio.timeout(self._owner.left_s if self._next is None else None):
                while self._next is None:
                    await self._woken()
                    if self._closing:
                        return False
        except TimeoutError:
            self._next = self._left_over()
        if self._next is None:
            return False
        (self.live, cause), before, self._next = self._next, self.live, None
        switch = Switch(before.rank, self.live.rank, cause) if cause is not None else None
        if cause is not None and cause is not SwitchCause.TAKEN_OVER and self._succession.switched(cause, monotonic_ns()):
            self._owner.held()
        self._owner.forwards(self.live, switch)
        return True

    def _left_over(self) -> tuple[Input, SwitchCause] | None:
        """Who is there once no place is kept any more: whoever it is, it is better than nobody."""
        others = self.standing_by
        best = self._succession.in_place_of_down(None, others, monotonic_ns()) or min(
            others, key=lambda each: each.rank, default=None
        )
        return None if best is None else (best, SwitchCause.CLOSED)

    def _stand_in(self, cause: SwitchCause) -> bool:
        """One that is up is to be forwarded in place of the one that is down, if there is any."""
        if self._next is None and not self._closing:
            found = self._succession.in_place_of_down(self.live.rank, self.standing_by, monotonic_ns())
            if found is not None:
                self._choose(found, cause)
        return self._next is not None

    def _look(self) -> None:
        """Whether a better one is to have its place back, now or later."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._next is not None or self._closing:
            return
        now, rank, others = monotonic_ns(), self.live.rank, self.standing_by
        found = self._succession.in_place_of_worse(rank, others, now)
        if found is not None:
            self._choose(found, SwitchCause.RETURNED)
        elif (when := self._succession.again(rank, others, now)) is not None:
            self._timer = asyncio.get_running_loop().call_later((when - now) / 1e9, self._look)

    async def _woken(self) -> None:
        self._wake.clear()
        await self._wake.wait()
        if self._defect is not None:
            raise self._defect
