"""Options of a test run, and its order; and a test that stands still fails, with where it stood, and does not stop the others."""

import signal
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.room import Room

STANDS_STILL_S = 300.0
"""Of wall time; what takes longer is slow."""
AGAIN_S = 30.0  # for what the test does while it ends
TESTS = Path(__file__).parent
SLOW = TESTS / "slow"
LIVE = ("browser", "gateway", "peers")
"""Folders of tests that wait for media more than they compute."""
ALONE = (
    "test_network",
    "test_simulcast",
    "test_rtmp_faults",
    "test_rtmp_clocks",
    "test_srt_faults",
    "test_whip_remb",
    "test_lip_sync",
    "test_primary_and_backup",
    "test_whip_chromium",
)
"""Modules that have the machine for themselves, after all others: what they judge is how fast it is, or they send many streams at once."""
ROOM: pytest.StashKey[Room | None] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fuzz")
    group.addoption("--fuzz-seconds", type=float, default=2.0, help="how long each fuzzer runs")
    group.addoption("--fuzz-seed", type=int, default=None, help="repeat the run that a failure gave this seed of")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Folders of live media are mixed evenly: at no time do only browsers run, which leave no core idle; then come those that are alone.
    Modules stay together, and in their order."""
    modules: defaultdict[str, list[Path]] = defaultdict(list)
    for path in dict.fromkeys(item.path for item in items):
        modules[path.relative_to(TESTS).parts[0]].append(path)
    places = {
        path: (folder not in LIVE, path.stem in ALONE, number / len(paths) if folder in LIVE else 0)
        for folder, paths in modules.items()
        for number, path in enumerate(paths)
    }
    items.sort(key=lambda item: places[item.path])
    for item in items:
        if SLOW in item.path.parents:
            item.add_marker("slow")


def pytest_configure(config: pytest.Config) -> None:
    worker = getattr(config, "workerinput", None)
    config.stash[ROOM] = Room(worker["testrunuid"]) if worker else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Where several processes share a run, tests of live media begin when there is room for one more."""
    room = item.config.stash[ROOM]
    if room is None or item.path.relative_to(TESTS).parts[0] not in LIVE:
        return (yield)
    with room.taken(alone=item.path.stem in ALONE):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    def stands_still(*_: object) -> None:
        raise TimeoutError(f"{item.nodeid} has stood still for {STANDS_STILL_S:.0f} s")

    if item.get_closest_marker("slow") or item.config.getoption("fuzz_seconds") > STANDS_STILL_S / 2:
        yield
        return
    before = signal.signal(signal.SIGALRM, stands_still)
    signal.setitimer(signal.ITIMER_REAL, STANDS_STILL_S, AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
