"""Builds the C part beside this file: `python -m protocols.webrtc.native.build`. It needs a C compiler and Python's headers. Where it
cannot be built the gateway sends in Python, which costs more CPU for each viewer and nothing else."""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from cffi import FFI  # type: ignore[import-untyped]

HERE = Path(__file__).parent
MODULE = f"{__package__}._runs"
NAME = "_runs" + (sysconfig.get_config_var("EXT_SUFFIX") or ".so")
FLAGS = ("-O2", "-fPIC", "-shared", "-Wall")


class CannotBuild(Exception):
    """Why, as the compiler says it."""


def build(folder: Path = HERE, flags: Sequence[str] = ()) -> Path:
    """The module, made in `folder`; `flags` are more for the compiler, which is that of the environment's `CC` or else of Python itself.
    Raises `CannotBuild`."""
    own = sysconfig.get_config_var("CC") or "cc"
    compiler = shlex.split(os.environ.get("CC") or (own if shutil.which(shlex.split(own)[0]) else "cc"))
    ffi = FFI()
    ffi.cdef((HERE / "runs.h").read_text())
    ffi.set_source(MODULE, '#include "runs.c"')
    with tempfile.TemporaryDirectory(dir=folder) as making:
        source, target = Path(making, "_runs.c"), Path(making, NAME)
        with redirect_stdout(None):  # where cffi says what it does
            ffi.emit_c_code(str(source))
        command = [*compiler, *FLAGS, *flags, f"-I{sysconfig.get_path('include')}", f"-I{HERE}", str(source), "-o", str(target)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            raise CannotBuild(f"there is no {compiler[0]}") from None
        except subprocess.CalledProcessError as error:
            raise CannotBuild(error.stderr.strip()) from None
        return target.replace(folder / NAME)  # in one step: a gateway that runs keeps the one that it has loaded


def made() -> Path | None:
    """What was built before, where that is newer than what it is built from."""
    there = HERE / NAME
    newest = max((HERE / source).stat().st_mtime for source in ("runs.c", "runs.h", "build.py"))
    return there if there.exists() and there.stat().st_mtime > newest else None


def main() -> int:
    try:
        print(made() or build())
    except (CannotBuild, OSError) as error:
        print(f"The native sender cannot be built, so packets are sent in Python: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
