"""What the gateway's process holds in memory and environment is not for other processes of its user."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]
PROGRAM = """
import ctypes, sys
from gateway.__main__ import main

GET_DUMPABLE = 3  # prctl(2)
assert ctypes.CDLL(None).prctl(GET_DUMPABLE) == 1
assert main(["run", "--set", "http.port=" + sys.argv[1]]) == 1  # the port is taken
print(ctypes.CDLL(None).prctl(GET_DUMPABLE))
"""


def test_nobody_else_reads_a_gateway_that_runs(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, "-c", PROGRAM, str(taken.getsockname()[1])]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            timeout=60,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.stdout.splitlines()[-1:] == ["0"], done.stderr
