"""What all fuzz tests stand on: how long, from which seed, and the garbage of other tests is not charged to the parsers."""

import gc
from collections.abc import Iterator
from random import SystemRandom

import pytest


@pytest.fixture
def seconds(pytestconfig: pytest.Config) -> float:
    return float(pytestconfig.getoption("fuzz_seconds"))


@pytest.fixture
def seed(pytestconfig: pytest.Config) -> int:
    """Printed with what a test has said when it fails."""
    given: int | None = pytestconfig.getoption("fuzz_seed")
    seed = SystemRandom().getrandbits(32) if given is None else given
    print(f"--fuzz-seed {seed}")
    return seed


@pytest.fixture(autouse=True)
def unburdened() -> Iterator[None]:
    """A full collection over all that a long test run keeps takes longer than any call here may."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
