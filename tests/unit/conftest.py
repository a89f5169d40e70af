"""What holds for all unit tests: nothing holds up the event loop."""

from collections.abc import Iterator

import pytest

from tests.support.loop_watch import unblocked_loop


@pytest.fixture(autouse=True)
def _unblocked_loop() -> Iterator[None]:
    with unblocked_loop():
        yield
