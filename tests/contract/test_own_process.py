"""What the gateway's own process has loaded, however long it runs: all modules of the product but the workers'."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from tests.test_architecture import ROOT, WORKER, module_of, product

LOADED = """
import importlib, json, sys
for name in json.load(sys.stdin):
    importlib.import_module(name)
print(json.dumps([sorted(sys.modules), open("/proc/self/maps").read()]))
"""


def loaded(modules: list[str]) -> tuple[set[str], str]:
    """The modules and the memory map of a process that has imported these."""
    given = json.dumps(modules)
    ended = subprocess.run(
        [sys.executable, "-c", LOADED], cwd=ROOT, input=given, stdout=subprocess.PIPE, text=True, timeout=60, check=True
    )
    names, maps = json.loads(ended.stdout)
    return set(names), maps


def test_no_byte_can_reach_libav_in_the_gateways_own_process() -> None:
    run = ("/__main__.py", "/migrations/env.py")  # by what has loaded the rest
    own = [module_of(file) for file in product() if not file.startswith(WORKER) and not file.endswith(run)]
    names, maps = loaded(own)
    assert {"gateway.app", "protocols.webrtc.transport.dtls"} <= names
    assert not {name for name in names if name.partition(".")[0] in ("av", "aiortc", "aioice")}
    assert "libavcodec" not in maps


def test_a_worker_shows_what_would_be_found() -> None:
    names, maps = loaded(["transcode.worker.decoder"])
    assert "av" in names
    assert "libavcodec" in maps


def test_what_a_start_may_not_need_is_not_loaded() -> None:
    names, _ = loaded(["gateway.__main__", "gateway.app"])
    assert not {name.partition(".")[0] for name in names} & {"alembic", "asyncpg", "mako", "obstore", "opentelemetry"}


OPENED = """
import asyncio, sys
from pathlib import Path
from gateway.store.database import Database, sqlite

async def opened():
    async with Database.open(sqlite(Path(sys.argv[1]))):
        pass

asyncio.run(opened())
sys.exit("alembic" in sys.modules)
"""


def test_alembic_is_loaded_for_a_store_of_before_alone(tmp_path: Path) -> None:
    file = tmp_path / "gateway.db"

    def opening() -> int:
        return subprocess.run([sys.executable, "-c", OPENED, file], cwd=ROOT, timeout=60, check=False).returncode

    assert opening() == 0, "it is new"
    assert opening() == 0, "it has the newest tables"
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("DROP TABLE seats")
        database.execute("UPDATE alembic_version SET version_num = '0005'")
    assert opening() == 1, "it is of a gateway of before"
    assert opening() == 0, "and was brought up to date"
