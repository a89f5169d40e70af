"""Where the kernel lacks a wall that should stand around workers, a gateway says so at its start; where it is insisted on none starts.

The kernel that lacks it is this one, behind a filter of system calls that answers as an older one does.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.support.encoders import ffmpeg
from tests.support.gateway_process import PORTS, ROOT, running_gateway
from tests.support.viewer import watching
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


def status_of(process: int) -> dict[str, str]:
    """As proc_pid_status(5) has it."""
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())


async def test_a_worker_stands_within_them_and_is_told_no_secret() -> None:
    sound = ("-re", "-f", "lavfi", "-i", "sine", "-c:a", "aac", "-f", "flv")
    async with (
        running_gateway() as gateway,
        ffmpeg(*sound, gateway.rtmp()),
        watching(gateway.url("/whep/livestream:demo")) as viewer,
    ):
        await viewer.until(audio=10)  # Opus, of AAC
        (worker,) = gateway.workers()
        status = status_of(worker)
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), "the second mode: a filter"
        assert int(status["CapEff"], 16) == 0
        assert not [name for name in psutil.Process(worker).environ() if name.startswith(("GATEWAY_", "AWS_"))]
