"""A wheel is for all platforms and can build the native sender; with `GATEWAY_NATIVE` it holds that, and is for this platform alone."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.support.gateway_process import ROOT

NATIVE = "protocols/webrtc/native/"


def names_in_wheel(folder: Path, **environment: str) -> tuple[str, list[str]]:
    """Its file's name, and those in it."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, env=os.environ | environment, check=True, capture_output=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    return wheel.name, zipfile.ZipFile(wheel).namelist()


def test_it_holds_what_the_native_sender_is_built_from(tmp_path: Path) -> None:
    wheel, names = names_in_wheel(tmp_path)
    assert wheel.endswith("-py3-none-any.whl")
    assert {f"{NATIVE}{name}" for name in ("build.py", "runs.c", "runs.h", "runs.py")} <= set(names)
    assert not [name for name in names if name.endswith(".so")]


def test_where_that_is_wanted_it_holds_it_built(tmp_path: Path) -> None:
    wheel, names = names_in_wheel(tmp_path, GATEWAY_NATIVE="1")
    assert "none-any" not in wheel
    assert [name for name in names if name.endswith(".so")] == [
        next(name for name in names if name.startswith(f"{NATIVE}_runs."))
    ]
