"""What all fuzz tests stand on: the garbage of other tests is not charged to the parsers."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def unburdened() -> Iterator[None]:
    """A full collection over all that a long test run keeps takes longer than any call here may."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
