import shutil
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from protocols.webrtc.native.build import MODULE, build

STUBBORN = Path(__file__).parent / "stubborn.h"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ModuleType]:
    """Builds the native part with these flags of the compiler, once each."""
    if sys.platform != "linux" or shutil.which("cc") is None:
        pytest.skip("no Linux, or no compiler: the native part is not there")
    modules: dict[tuple[str, ...], ModuleType] = {}

    def of(*flags: str) -> ModuleType:
        if flags not in modules:
            spec = spec_from_file_location(MODULE, build(tmp_path_factory.mktemp("native"), flags))
            assert spec is not None
            assert spec.loader is not None
            modules[flags] = module_from_spec(spec)
            spec.loader.exec_module(modules[flags])
        return modules[flags]

    return of


@pytest.fixture
def module(built: Callable[..., ModuleType]) -> ModuleType:
    return built()


@pytest.fixture
def stubborn(built: Callable[..., ModuleType]) -> Callable[..., ModuleType]:
    """The native part over a kernel that refuses: every `every`th message, or only those that it is to cut, with `error`."""

    def of(error: str, every: int = 1, *, runs_alone: bool = False) -> ModuleType:
        return built("-include", str(STUBBORN), f"-DREFUSAL={error}", f"-DEVERY={every}", f"-DRUNS_ALONE={int(runs_alone)}")

    return of
