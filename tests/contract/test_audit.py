"""The audit of the locks: of our own everything has a hash, and what it says with a database of vulnerabilities and without one."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.audit import NPM, PYTHON, ROOT, locked, main


@asynccontextmanager
async def database(known: dict[str, str]) -> AsyncIterator[str]:
    """OSV's API, with these vulnerabilities by the name of the package."""

    async def answer(request: web.Request) -> web.Response:
        queries: list[dict[str, Any]] = (await request.json())["queries"]
        ids = [known.get(each["package"]["name"]) for each in queries]
        return web.json_response({"results": [{"vulns": [{"id": each}]} if each else {} for each in ids]})

    application = web.Application()
    application.add_routes([web.post("/v1/querybatch", answer)])
    async with TestServer(application) as server:
        yield str(server.make_url("/v1/querybatch"))


def test_everything_that_is_locked_has_a_version_and_a_hash() -> None:
    packages = list(locked())
    assert {each.lock for each in packages} == {*PYTHON, *NPM}
    assert len(packages) > 50
    assert all(each.hashed and each.version for each in packages)
    assert any(each[:2] == ("npm", "hls.js") for each in packages)


async def test_a_known_vulnerability_is_told_with_its_number(capsys: pytest.CaptureFixture[str]) -> None:
    async with database({"aiohttp": "GHSA-xxxx"}) as osv:
        assert await asyncio.to_thread(main, True, ROOT, osv) == 1
        assert await asyncio.to_thread(main, False, ROOT, osv) == 0  # it changes while nothing here does
        assert "deploy/requirements.lock): GHSA-xxxx" in capsys.readouterr().err
    async with database({}) as osv:
        assert await asyncio.to_thread(main, True, ROOT, osv) == 0


async def test_without_the_network_it_says_that_it_did_not_look(capsys: pytest.CaptureFixture[str]) -> None:
    nobody = "http://127.0.0.1:9/v1/querybatch"
    assert await asyncio.to_thread(main, False, ROOT, nobody) == 0
    assert "NOT AUDITED" in capsys.readouterr().err
    assert await asyncio.to_thread(main, True, ROOT, nobody) == 1


async def test_what_has_no_hash_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await asyncio.to_thread(_copied, tmp_path)
    async with database({}) as osv:
        assert await asyncio.to_thread(main, False, tmp_path, osv) == 1
    said = capsys.readouterr().err
    assert "planted (deploy/requirements.lock) has no hash" in said
    assert "planted-too (deploy/web/package-lock.json) has no hash" in said


def test_a_line_that_pins_nothing_is_an_error(tmp_path: Path) -> None:
    _copied(tmp_path)
    (tmp_path / PYTHON[0]).write_text("aiohttp>=3\n")
    with pytest.raises(ValueError, match="pins no version"):
        list(locked(tmp_path))


def _copied(folder: Path) -> None:
    """The locks, with a package each that has no hash."""
    for lock in (*PYTHON, *NPM):
        (folder / lock).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / lock, folder / lock)
    with (folder / PYTHON[0]).open("a") as file:
        file.write("planted==1.0\n")
    npm = json.loads((folder / NPM[0]).read_text())
    npm["packages"]["node_modules/planted-too"] = {"version": "1.0"}
    (folder / NPM[0]).write_text(json.dumps(npm))
