"""What a session's worker did, in plain totals over all its restarts."""

from collections.abc import Iterable
from dataclasses import dataclass

from transcode.host.stream import StreamStats
from transcode.messages import WorkerReport


@dataclass(frozen=True, slots=True)
class WorkerStats:
    pid: int = 0
    restarts: int = 0
    dropped: int = 0  # packets, before the worker or in it
    lowered: int = 0  # steps down to cheaper encoding, since it could not keep up
    decoded: int = 0
    encoded: int = 0
    errors: int = 0
    cpu_ns: int = 0  # as last reported, at most about 1 s old
    peak_rss: int = 0  # bytes

    def plus(self, *others: "WorkerStats") -> "WorkerStats":
        """The totals of several workers, with the pid of none and the peak of the largest."""
        each = (self, *others)
        sums = {name: sum(getattr(one, name) for one in each) for name in _SUMMED}
        return WorkerStats(**sums, peak_rss=max(one.peak_rss for one in each))


_SUMMED = ("restarts", "dropped", "lowered", "decoded", "encoded", "errors", "cpu_ns")


class Figures:
    """Of one session's worker: its processes, each with its last report, and its streams."""

    def __init__(self) -> None:
        self.restarts = 0
        self.report = WorkerReport()
        """The last one of the present process."""
        self._earlier: list[WorkerReport] = []
        self._gone = StreamStats()  # of streams that are closed

    def restarted(self) -> None:
        self.restarts += 1
        self._earlier.append(self.report)
        self.report = WorkerReport()

    def closed(self, stream: StreamStats) -> None:
        self._gone.dropped += stream.dropped
        self._gone.lowered += stream.lowered

    def stats(self, pid: int, streams: Iterable[StreamStats]) -> WorkerStats:
        """`pid` of the present process, 0 if there is none; `streams` those that are open."""
        reports = [*self._earlier, self.report]
        streams = [self._gone, *streams]
        return WorkerStats(
            pid=pid,
            restarts=self.restarts,
            dropped=sum(stream.dropped for stream in streams) + sum(report.dropped for report in reports),
            lowered=sum(stream.lowered for stream in streams),
            decoded=sum(report.decoded for report in reports),
            encoded=sum(report.encoded for report in reports),
            errors=sum(report.errors for report in reports),
            cpu_ns=sum(report.cpu_ns for report in reports),
            peak_rss=self.report.peak_rss,
        )
