"""What a session's worker did, in plain totals over all its restarts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

from transcode.host.stream import StreamStats
from transcode.messages import StreamReport


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


class CountedStream(Protocol):
    """What is known of one stream: on this side, and by the last report of the present process."""

    stats: StreamStats
    report: StreamReport


class Figures:
    """Of one session's worker: what its streams did, in the present process and in those before it."""

    def __init__(self) -> None:
        self.restarts = 0
        self.cpu_ns = 0
        self.peak_rss = 0
        self._gone = StreamStats()  # of streams that are closed
        self._earlier = StreamReport()  # of those, and of processes that have ended

    def moved(self, streams: Iterable[CountedStream]) -> None:
        """The streams go on in another process."""
        for stream in streams:
            self._earlier = self._earlier.plus(stream.report)
            stream.report = StreamReport()

    def closed(self, stream: CountedStream) -> None:
        self._gone.dropped += stream.stats.dropped
        self._gone.lowered += stream.stats.lowered
        self._earlier = self._earlier.plus(stream.report)

    def stats(self, pid: int, streams: Sequence[CountedStream]) -> WorkerStats:
        """`pid` of the present process, 0 if there is none; `streams` those that are open."""
        counted = [self._gone, *(stream.stats for stream in streams)]
        report = reduce(StreamReport.plus, (stream.report for stream in streams), self._earlier)
        return WorkerStats(
            pid=pid,
            restarts=self.restarts,
            dropped=sum(each.dropped for each in counted) + report.dropped,
            lowered=sum(each.lowered for each in counted),
            decoded=report.decoded,
            encoded=report.encoded,
            errors=report.errors,
            cpu_ns=self.cpu_ns,
            peak_rss=self.peak_rss,
        )
