"""Options of a test run; and a test that stands still fails, with where it stood, and does not stop the others."""

import signal
from collections.abc import Iterator

import pytest

STANDS_STILL_S = 300.0
"""Of wall time; what takes longer stands in tests/slow."""
AGAIN_S = 30.0  # for what the test does while it ends


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fuzz")
    group.addoption("--fuzz-seconds", type=float, default=2.0, help="how long each fuzzer runs")
    group.addoption("--fuzz-seed", type=int, default=None, help="repeat the run that a failure gave this seed of")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    def stands_still(*_: object) -> None:
        raise TimeoutError(f"{item.nodeid} has stood still for {STANDS_STILL_S:.0f} s")

    if "slow" in item.path.parts or item.config.getoption("fuzz_seconds") > STANDS_STILL_S / 2:
        yield
        return
    before = signal.signal(signal.SIGALRM, stands_still)
    signal.setitimer(signal.ITIMER_REAL, STANDS_STILL_S, AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
