"""What our streams use, read from the kernel and the workers for `sessions/capacity.py`; the cores and the memory that there are."""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from time import monotonic_ns, process_time_ns, thread_time_ns

from gateway.sessions.capacity import Capacity, Demand, Seen, demand, spare
from gateway.sessions.registry import Registry
from gateway.sessions.seat import Seat
from gateway.telemetry.log import event
from protocols.errors import Rejected
from transcode.plan import Decision

log = logging.getLogger(__name__)

INTERVAL_S = 2.0
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


async def measure(capacity: Capacity, registry: Registry, viewers: Callable[[], int], beside_cpu_ns: Callable[[], int]) -> None:
    """Until cancelled; runs on the event loop's own thread, whose time is the loop's. `beside_cpu_ns`: what processes have used since the
    start that serve viewers or make slates, and are no stream's own."""
    while True:
        seats = list(registry.seats.values())
        optional = {_optional_name(seat): used for seat in seats if (used := seat.optional) is not None}
        capacity.sample(
            monotonic_ns(),
            loop_cpu_ns=thread_time_ns(),
            process_cpu_ns=process_time_ns() + beside_cpu_ns(),
            streams={seat.id: seen(seat) for seat in seats} | optional,
            viewers=viewers(),
        )
        if capacity.strained:
            relieve(registry.seats.values())
        await asyncio.sleep(INTERVAL_S)


def relieve(seats: Iterable[Seat]) -> bool:
    """Leave out one layer of the stream that has most of them; False where none can be spared. Its effect is measured before the next."""
    pipelines = [seat.pipeline for seat in seats if seat.pipeline is not None]
    by_layers = sorted(pipelines, key=lambda pipeline: pipeline.adaptation.shed if pipeline.adaptation else 0)
    return any(pipeline.shed() for pipeline in by_layers)


class CpuRoom:
    """`gateway.sessions.seat.SeatRoom`: the CPU that this gateway may use."""

    def __init__(self, capacity: Capacity, registry: Registry) -> None:
        self._capacity = capacity
        self._registry = registry

    def admit(self, seat: Seat, plans: Sequence[Sequence[Decision]]) -> None:
        """Where none of the plans fits the first one's refusal is raised, and if that keeps the stream out it is counted and logged, with
        what to change."""
        refusals: list[Rejected] = []
        for decisions in plans:
            try:
                self._capacity.admit(seat.id, demand(decisions), spare(decisions))
                return
            except Rejected as refusal:
                refusals.append(refusal)
        first = refusals[0]
        if seat.pipeline is None:
            self._registry.refused[seat.protocol, first.reason.label] += 1
            words = f"refused: {first.detail}"
            event(log, logging.WARNING, words, session=seat.id, protocol=seat.protocol, reason=first.reason.label)
        raise first

    def admit_optional(self, seat: Seat, wanted: Demand) -> None:
        self._capacity.admit_optional(_optional_name(seat), wanted)


def _optional_name(seat: Seat) -> str:
    """Under which capacity knows what the stream can do without."""
    return f"{seat.id} optional"


def seen(seat: Seat) -> Seen:
    pipeline = seat.pipeline
    if pipeline is None:
        return Seen(demand(()), 0)
    decisions = pipeline.staging.decisions
    used = pipeline.gather().worker_cpu_ns.total()
    cheaper = pipeline.adaptation is not None or pipeline.staging.idle
    return Seen(demand(decisions), used, economised=cheaper, spare=spare(decisions))


def available_cores(configured: float = 0, *, own: Path = OWN_CGROUPS, root: Path = CGROUPS) -> float:
    """Those of this machine that this process may run on, or fewer where its cgroup or one above it has a quota (containers do)."""
    if configured:
        return configured
    have = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([float(have), *filter(None, map(_quota, _cgroups("cpu", own, root)))])


def available_memory(*, own: Path = OWN_CGROUPS, root: Path = CGROUPS) -> int:
    """Bytes: this machine's, or fewer where a cgroup has a limit."""
    have = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([have, *filter(None, map(_memory, _cgroups("memory", own, root)))])


def _cgroups(controller: str, own: Path, root: Path) -> Iterator[Path]:
    """The folders of this process's cgroup and of those above it (Linux, admin-guide/cgroup-v2.rst and cgroup-v1/cgroups.rst)."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controllers if controllers else root
        here = base / path.lstrip("/")
        for folder in (here, *here.parents):
            yield folder
            if folder == base:
                break


def _memory(folder: Path) -> int:
    """Bytes that this cgroup may use, 0 for no limit (memory.max; memory.limit_in_bytes)."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        try:
            text = (folder / name).read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() else 0
    return 0


def _quota(folder: Path) -> float:
    """Cores that this cgroup may use, 0 for no limit (cpu.max; cpu.cfs_quota_us)."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        except OSError:
            return 0.0
    return int(quota) / int(period) if quota.isdigit() and int(period) else 0.0
