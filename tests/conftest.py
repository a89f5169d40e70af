"""Options of a test run."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fuzz")
    group.addoption("--fuzz-seconds", type=float, default=5.0, help="how long each fuzzer runs")
    group.addoption("--fuzz-seed", type=int, default=None, help="repeat the run that a failure gave this seed of")
