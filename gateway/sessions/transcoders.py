"""The worker processes of one pipeline: one for the tracks that cannot do without it, and one of their own for layers that can be missed.

Keeps true: a worker that fails for good ends the publisher only where a track cannot go on without it; what workers did is counted also
when they are gone.
"""

import logging

from gateway.sessions.counters import PipelineCounters
from gateway.telemetry.log import event
from transcode.adaptation import Effort
from transcode.host.figures import WorkerStats
from transcode.host.pool import Workers
from transcode.host.process import OnFailure, Worker

log = logging.getLogger(__name__)


class Transcoders:
    """Of the publisher with this id."""

    def __init__(self, workers: Workers, publisher: str, fail: OnFailure) -> None:
        """`fail` ends the publisher with a reason."""
        self._workers = workers
        self._publisher = publisher
        self._fail = fail
        self._needed: Worker | None = None
        self._used: list[Worker] = []
        self._gone = WorkerStats()  # what those did that are no longer among them

    async def needed(self) -> Worker:
        """The worker of all tracks that are transcoded; raises `Rejected` where there can be none."""
        if self._needed is None:
            self._needed = await self._start(self._fail)
        return self._needed

    async def spare(self, lost: OnFailure) -> Worker:
        """One for what may be missed; `lost` is told that it has failed. Raises `Rejected` where there can be none."""
        return await self._start(lost)

    @property
    def adaptation(self) -> Effort | None:
        """What the video is encoded with, where that is less than was planned, since the CPU does not suffice."""
        return next((worker.adaptation for worker in self._used if worker.adaptation is not None), None)

    def shed(self) -> bool:
        """Make room for others by a layer less, the top one that is encoded; False where there is none to spare."""
        return any(worker.shed() for worker in self._used)

    def count(self, totals: PipelineCounters) -> None:
        """Put what the workers did into these totals."""
        stats = self._gone.plus(*(worker.stats for worker in self._used))
        totals.worker_restarts = stats.restarts
        totals.charge_worker(stats.cpu_ns)
        totals.worker_dropped, totals.worker_lowered = stats.dropped, stats.lowered

    async def aclose(self) -> None:
        for worker in self._used:
            await worker.aclose()

    async def _start(self, on_failure: OnFailure) -> Worker:
        for worker in [worker for worker in self._used if worker.closed and worker is not self._needed]:
            self._gone = self._gone.plus(worker.stats)
            self._used.remove(worker)
        worker = await self._workers.start(self._publisher)
        worker.on_failure(on_failure)
        worker.on_note(lambda text: event(log, logging.WARNING, text, session=self._publisher))
        self._used.append(worker)
        return worker
