"""The store over many more kills."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.test_store_durability import postgresql_loses_nothing, sqlite_loses_nothing
from tests.support.postgres import Postgres, running_postgres

KILLS = 50


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


async def test_sqlite_loses_nothing_over_50_kills(tmp_path: Path) -> None:
    await sqlite_loses_nothing(tmp_path, KILLS)


async def test_postgresql_loses_nothing_over_50_kills_of_writers_and_10_of_the_server(postgres: Postgres) -> None:
    await postgresql_loses_nothing(postgres, KILLS)
