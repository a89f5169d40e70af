from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

STUBBORN = Path(__file__).parent / "stubborn.h"


@pytest.fixture
def stubborn(built: Callable[..., ModuleType]) -> Callable[..., ModuleType]:
    """The native part over a kernel that refuses: every `every`th message, or only those that it is to cut, with `error`."""

    def of(error: str, every: int = 1, *, runs_alone: bool = False) -> ModuleType:
        return built("-include", str(STUBBORN), f"-DREFUSAL={error}", f"-DEVERY={every}", f"-DRUNS_ALONE={int(runs_alone)}")

    return of
