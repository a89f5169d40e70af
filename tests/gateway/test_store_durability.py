"""Processes are killed in the middle of writing, again and again: the store opens, and nothing that was acknowledged is lost."""

import asyncio
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import text

from gateway.store.database import Database
from gateway.store.store import Store
from tests.support.postgres import Postgres, running_postgres

ROOT = Path(__file__).parents[2]
KILLS = 6
SERVER_EVERY = 5  # kills of writers: PostgreSQL itself is killed too


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


async def writers_are_killed(url: str, kills: int, strike: Callable[[int, int], None]) -> list[str]:
    """All that was acknowledged; `strike` gets the round and the writer. Each writer checks what the one before it had acknowledged."""
    chance = random.Random(6)
    everything: list[str] = []
    last: list[str] = []
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.durable_writer",
        url,
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        for n in range(kills):
            process.stdin.write(f"{','.join([f'w{n}', *last])}\n".encode())
            pid, wanted, last = 0, chance.randrange(12), []  # 0: while it opens the store or begins
            async with asyncio.timeout(60):
                while (line := (await process.stdout.readline()).decode().strip()) != "gone":
                    kind, _, value = line.partition(" ")
                    assert kind in ("pid", "checked", "created", "live"), f"round {n}: {line}"
                    if kind == "pid":
                        pid = int(value)
                    elif kind != "checked":
                        last.append(line)
                    if pid and len(last) >= wanted and (wanted or kind == "checked"):
                        strike(n, pid)
                        pid = 0
            everything += last
    finally:
        process.stdin.close()
        await process.wait()
    return everything


def kill(n: int, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


async def all_there(url: str, acknowledged: list[str]) -> None:
    live = {each.partition(" ")[2] for each in acknowledged if each.startswith("live ")}
    created = {each.partition(" ")[2] for each in acknowledged}
    found: dict[str, bool] = {}
    async with Store.open(url) as store:
        cursor: str | None = None
        while True:
            page = await store.calls.query(limit=100, cursor=cursor)
            found |= {call.cid: call.live for call in page.items}
            if (cursor := page.next) is None:
                break
        for cid in live:
            assert len(await store.stream_keys.of_call(cid)) == 1
    assert created <= found.keys()
    assert all(found[cid] for cid in live)


async def sqlite_loses_nothing(folder: Path, kills: int) -> None:
    url = f"sqlite+aiosqlite:///{folder}/gateway.db"
    acknowledged = await writers_are_killed(url, kills, kill)
    assert len(acknowledged) > 2 * kills
    await all_there(url, acknowledged)
    async with Database.open(url) as database, database.read() as connection:
        assert (await connection.execute(text("PRAGMA integrity_check"))).scalar_one() == "ok"


async def postgresql_loses_nothing(postgres: Postgres, kills: int) -> None:
    def strike(n: int, pid: int) -> None:
        if (n + 1) % SERVER_EVERY:
            kill(n, pid)
        else:
            postgres.kill()
            with suppress(ProcessLookupError):  # it may have noticed that the server is gone, and ended
                kill(n, pid)
            postgres.start()

    url = postgres.url()
    acknowledged = await writers_are_killed(url, kills, strike)
    assert len(acknowledged) > 2 * kills
    await all_there(url, acknowledged)


async def test_sqlite_loses_nothing_when_writers_are_killed(tmp_path: Path) -> None:
    await sqlite_loses_nothing(tmp_path, KILLS)


async def test_postgresql_loses_nothing_when_writers_and_the_server_are_killed(postgres: Postgres) -> None:
    await postgresql_loses_nothing(postgres, KILLS)
