"""How much of a programme must have come out at its other end.

A machine that has other work to do makes the gateway drop what it cannot handle in time, and the kernel what nobody reads in time; both
count it. So much is excused: such a machine slows a test and does not fail it. But it is excused up to a ceiling: a stream of which most is
lost does not pass, whoever lost it.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from tests.support.gateway_process import GatewayProcess
from tests.support.viewer import Viewer

SHARE = 0.98
"""Of the pictures, at least; the rest may be on its way where something begins or ends."""
FLOOR = 0.5
"""Of the pictures, at least, whatever the machine dropped."""
DROPS = (
    "ingress_frames_dropped_total",  # too late, or too many at once
    "ingress_worker_dropped_total",  # transcoding does not keep up
    "ingress_udp_dropped_total",  # the kernel, before the gateway
    "ingress_srt_packets_dropped_total",  # libsrt, as too late
    "ingress_viewer_dropped_total",  # too late for a viewer
)


def total(exposition: str, families: Iterable[str]) -> float:
    """The sum of all series of these families in a text of the Prometheus exposition format."""
    lines = (line for line in exposition.splitlines() if not line.startswith("#"))
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.partition(" ")[0].partition("{")[0] in families)


async def dropped(gateway: GatewayProcess, *viewers: Viewer) -> float:
    """What was dropped since the gateway started, by it or before these viewers: access units and datagrams."""
    return total(await gateway.text("/metrics"), DROPS) + sum(viewer.lost() for viewer in viewers)


def assert_delivered(expected: int, got: int, dropped: float, *, share: float = SHARE, floor: float = FLOOR) -> None:
    """Of `expected` pictures `got` came, and the machine has `dropped` so many.

    Raises:
        AssertionError: the rest is more than what may be missing.
    """
    least = max(share * expected - dropped, floor * expected)
    assert got >= least, f"{got} of {expected} came, {dropped:.0f} were dropped by the machine"


def assert_shown(numbers: Sequence[int], first: int, last: int, dropped: float, *, share: float = SHARE) -> None:
    """As `assert_delivered`, of the pictures `first` to `last`; and those that were shown came in order, none twice."""
    assert all(earlier < later for earlier, later in pairwise(numbers)), numbers
    wanted = range(first, last + 1)
    missing = sorted(set(wanted) - set(numbers))
    assert_delivered(len(wanted), len(wanted) - len(missing), dropped, share=share)
