"""A real PostgreSQL of its own: in a temporary folder, on a socket there, never as root; killed at the end."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

_PATH = os.pathsep.join(
    [os.environ.get("PATH", ""), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))]
)


@dataclass
class Postgres:
    """`url()` is that of a new, empty database."""

    folder: Path
    user: str | None  # whom it runs as; None: as we do
    numbers: Iterator[int] = field(default_factory=count)

    def url(self) -> str:
        name = f"test{next(self.numbers)}"
        self._run("createdb", "-h", str(self.folder), "-U", "gateway", name)
        return f"postgresql+asyncpg://gateway@/{name}?host={self.folder}"

    def start(self) -> None:
        """Returns once it takes connections."""
        options = "-c listen_addresses='' -c max_connections=60 -c shared_buffers=16MB"
        log = str(self.folder / "log")
        where = f"-k {self.folder} {options}"
        self._run("pg_ctl", "start", "-w", "-D", str(self.folder / "data"), "-l", log, "-o", where)

    def kill(self) -> None:
        """As a loss of power would, but for what the kernel has. `start` has it recover."""
        pid_file = self.folder / "data" / "postmaster.pid"
        leader = int(pid_file.read_text().splitlines()[0])
        group = [leader, *_children(leader)]
        for pid in group:
            with suppress(ProcessLookupError):  # its children leave when the leader is gone
                os.kill(pid, signal.SIGKILL)
        while any(Path(f"/proc/{pid}").exists() and _state(pid) != "Z" for pid in group):
            os.sched_yield()
        # Where nobody collects dead processes, their numbers seem to live on, and the next server would believe its locks.
        for lock in (pid_file, self.folder / ".s.PGSQL.5432.lock", self.folder / ".s.PGSQL.5432"):
            lock.unlink(missing_ok=True)

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "-m", "immediate", "-D", str(self.folder / "data"))

    def initialise(self) -> None:
        self._run(
            "initdb", "-D", str(self.folder / "data"), "-U", "gateway", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"
        )

    def _run(self, *command: str) -> None:
        program = shutil.which(command[0], path=_PATH)
        assert program, f"{command[0]} is missing: apt-get install postgresql"
        done = subprocess.run(
            [program, *command[1:]],
            user=self.user,
            group=pwd.getpwnam(self.user).pw_gid if self.user else None,
            extra_groups=[] if self.user else None,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # not a pipe: the server would keep it open
            stderr=subprocess.STDOUT,
            timeout=60,
        )
        assert done.returncode == 0, (
            f"{command[0]} failed: {(self.folder / 'log').read_text() if (self.folder / 'log').exists() else ''}"
        )


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    with tempfile.TemporaryDirectory(prefix="pg-") as directory:
        server = Postgres(Path(directory), "nobody" if os.getuid() == 0 else None)
        if server.user:
            os.chown(directory, pwd.getpwnam(server.user).pw_uid, -1)
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(each) for each in text.split()]


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
