"""Cases that take longer than a run of everything has for them, beside those of their kind that it has time for."""

from typing import Any

import pytest


def slow(*values: Any, id: str | None = None) -> Any:
    """A case of `pytest.mark.parametrize` that only `tests/run slow` runs."""
    return pytest.param(*values, id=id, marks=pytest.mark.slow)
