"""Where the kernel lacks a wall that should stand around workers, a gateway says so at its start; where it is insisted on none starts.

The kernel that lacks it is this one, behind a filter of system calls that answers as an older one does.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.gateway_process import PORTS, ROOT
from transcode.limits import LANDLOCK, WALLS_MENDED

OF_AN_OLDER_KERNEL = """
import ctypes, errno, os, sys
library = ctypes.CDLL("libseccomp.so.2")
library.seccomp_init.restype = ctypes.c_void_p
allow, refuse, create_ruleset = 0x7FFF0000, 0x00050000, 444
filter = ctypes.c_void_p(library.seccomp_init(allow))
assert library.seccomp_rule_add(filter, refuse + errno.ENOSYS, create_ruleset, 0) == 0
assert library.seccomp_load(filter) == 0
os.execv(sys.executable, [sys.executable, "-m", "gateway", "run", *sys.argv[1:]])
"""
MISSING = f"transcoding is not confined here by {LANDLOCK}: {WALLS_MENDED}"


@contextmanager
def started(state: Path, *settings: str) -> Iterator[subprocess.Popen[str]]:
    given = (*PORTS, f"state.directory={state}", "log.format=text", *settings)
    arguments = [part for each in given for part in ("--set", each)]
    command = [sys.executable, "-c", OF_AN_OLDER_KERNEL, *arguments]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_missing_wall_is_told_at_the_start(tmp_path: Path) -> None:
    with started(tmp_path) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if " ready " in line:
                process.terminate()
        assert process.wait() == 0
    assert len([line for line in said if " warning " in line and MISSING in line]) == 1, said


def test_where_the_walls_are_insisted_on_no_gateway_starts_without_them(tmp_path: Path) -> None:
    with started(tmp_path, "transcode.sandbox=required") as process:
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert [line for line in errors.splitlines() if "transcode.sandbox" in line and MISSING in line], errors
    assert "Traceback" not in errors
