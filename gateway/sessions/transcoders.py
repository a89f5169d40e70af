"""The workers of one stream: one for its pictures, one for its sound, in a process that makes the sound of other streams too, one for
layers below a picture that passes, and one for what it can do without.

Kept true: a worker that fails for good ends the publisher only where the stream cannot go on without it; what workers did is counted also
when they are gone.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Sequence

from gateway.sessions.counters import PipelineCounters
from gateway.telemetry.log import event
from protocols.media import EncodedPacket, Kind, Track
from transcode.adaptation import Effort
from transcode.host.figures import WorkerStats
from transcode.host.fragments import Done
from transcode.host.pool import Workers
from transcode.host.process import OnFailure, Worker

log = logging.getLogger(__name__)

_DRAIN_S = 2.0  # for the last parts that a spare worker has in hand


class Transcoders:
    """Of the publisher with this id."""

    def __init__(self, workers: Workers, publisher: str, fail: OnFailure) -> None:
        """`fail` ends the publisher with a reason."""
        self._workers = workers
        self._publisher = publisher
        self._fail = fail
        self._needed: dict[Kind, Worker] = {}
        self._used: dict[Kind, list[Worker]] = {kind: [] for kind in Kind}
        self._gone = {kind: WorkerStats() for kind in Kind}  # what those did that are no longer among them

    async def needed(self, kind: Kind) -> Worker:
        """The worker of all of this kind that cannot be done without; raises `Rejected` where there can be none."""
        if kind not in self._needed:
            self._needed[kind] = await self._start(kind, self._fail)
        return self._needed[kind]

    async def below(self, on_lost: OnFailure) -> Worker:
        """One for layers; `on_lost` is told that it has failed. Raises `Rejected` where there can be none."""
        return await self._start(Kind.VIDEO, on_lost)

    @property
    def adaptation(self) -> Effort | None:
        """What the video is encoded with, where that is less than was planned, since the CPU does not suffice."""
        return next((worker.adaptation for worker in self._used[Kind.VIDEO] if worker.adaptation is not None), None)

    def shed(self) -> bool:
        """Make room for others by a layer less, the top one that is encoded; False where there is none to spare."""
        return any(worker.shed() for worker in self._used[Kind.VIDEO])

    def count(self, totals: PipelineCounters) -> None:
        """Put what the workers did into these totals."""
        by_kind = {kind: self._gone[kind].plus(*(worker.stats for worker in used)) for kind, used in self._used.items()}
        totals.worker_cpu_ns = Counter({kind: stats.cpu_ns for kind, stats in by_kind.items()})
        stats = WorkerStats().plus(*by_kind.values())
        totals.worker_restarts = stats.restarts
        totals.worker_dropped, totals.worker_lowered = stats.dropped, stats.lowered

    async def keep(self, kinds: Collection[Kind]) -> None:
        """Nothing needs those of other kinds any more."""
        for kind in self._needed.keys() - kinds:
            await self._needed.pop(kind).aclose()

    async def aclose(self) -> None:
        for used in self._used.values():
            for worker in used:
                await worker.aclose()

    async def _start(self, kind: Kind, on_failure: OnFailure) -> Worker:
        used = self._used[kind]
        for worker in [worker for worker in used if worker.closed and worker is not self._needed.get(kind)]:
            self._gone[kind] = self._gone[kind].plus(worker.stats)
            used.remove(worker)
        start = self._workers.sound if kind is Kind.AUDIO else self._workers.start
        worker = await start(self._publisher)
        worker.on_failure(on_failure)
        worker.on_note(lambda text: event(log, logging.WARNING, text, session=self._publisher))
        used.append(worker)
        return worker


class SpareWorker:
    """The worker of a seat for what its stream can do without: forms that only optional outputs take, and muxing (it is their `Muxer`).
    It is there while something is made in it, over all of the seat's publishers."""

    def __init__(self, workers: Workers, seat: str, on_lost: Callable[[], None]) -> None:
        """`on_lost` is told that it has failed: what was made in it is to be made anew."""
        self._workers = workers
        self._seat = seat
        self._on_lost = on_lost
        self._worker: Worker | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    async def needed(self) -> Worker:
        """Raises `Rejected` where there can be none."""
        if self._worker is None:
            worker = self._worker = await self._workers.start(f"{self._seat} spare")
            worker.on_failure(self._failed)
            worker.on_note(lambda text: event(log, logging.WARNING, text, session=self._seat))
        return self._worker

    @property
    def cpu_ns(self) -> int:
        """Used by the present process; 0 where there is none."""
        return self._worker.stats.cpu_ns if self._worker is not None else 0

    @property
    def adaptation(self) -> Effort | None:
        return self._worker.adaptation if self._worker is not None else None

    def make(self, track: Track, packets: Sequence[EncodedPacket], durations: Sequence[int], index: int, done: Done) -> None:
        if self._worker is None:
            done(b"", b"")
        else:
            self._worker.fragments.make(track, packets, durations, index, done)

    def then(self, done: Callable[[], None]) -> None:
        if self._worker is None:
            done()
        else:
            self._worker.fragments.then(done)

    def release(self) -> None:
        """Nothing is made in it any more; what it has in hand is still good."""
        worker, self._worker = self._worker, None
        if worker is not None:
            task = asyncio.create_task(self._drain(worker), name=f"spare worker of {self._seat}")
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def aclose(self) -> None:
        self.release()
        if self._leaving:
            await asyncio.wait(list(self._leaving))

    async def _drain(self, worker: Worker) -> None:
        answered = asyncio.Event()
        worker.fragments.then(answered.set)
        try:
            async with asyncio.timeout(_DRAIN_S):
                await answered.wait()
        except TimeoutError:
            event(log, logging.WARNING, "the last parts were not muxed in time", session=self._seat)
        finally:
            await worker.aclose()

    def _failed(self, why: str) -> None:
        event(log, logging.WARNING, f"what the stream can do without starts anew: {why}", session=self._seat)
        self.release()
        self._on_lost()
