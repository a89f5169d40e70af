"""What the pages' server gives: fixed files, with headers that keep them to themselves."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from gateway.api.pages import Pages
from gateway.config import CallsConfig, Config


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    application = web.Application()
    application.add_routes(Pages(Config(calls=CallsConfig(public=("livestream:demo", "livestream:b")))).routes())
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
        yield session
    await runner.cleanup()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/watch/livestream:demo", "text/html"),
        ("/watch/livestream%3Ademo", "text/html"),
        ("/web/style.css", "text/css"),
        ("/web/watch.js", "text/javascript"),
        ("/web/whep.js", "text/javascript"),
        ("/web/icon.svg", "image/svg+xml"),
    ],
)
async def test_files_come_with_their_type_and_a_policy(http: aiohttp.ClientSession, path: str, kind: str) -> None:
    async with http.get(path) as response:
        assert response.status == 200
        assert response.content_type == kind
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        text = await response.text()
    assert "http://" not in text.replace("http://www.w3.org/", "")
    assert "https://" not in text
    assert "<script>" not in text
    assert "style=" not in text


async def test_what_is_known_is_not_sent_again(http: aiohttp.ClientSession) -> None:
    async with http.get("/web/watch.js") as response:
        etag = response.headers["ETag"]
    async with http.get("/web/watch.js", headers={"If-None-Match": etag}) as response:
        assert response.status == 304
        assert await response.read() == b""
    async with http.get("/web/watch.js", headers={"If-None-Match": '"other"'}) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/web/",
        "/web/none.js",
        "/web/index.html",
        "/web/..%2Fconfig.py",
        "/web/%2e%2e%2fconfig.py",
        "/watch/demo",
        "/watch/a%2Fb",
        "/watch/a:b%0A",
    ],
)
async def test_nothing_else_is_served(http: aiohttp.ClientSession, path: str) -> None:
    async with http.get(path) as response:
        assert response.status == 404
        assert "import" not in await response.text()


async def test_public_calls_stand_on_the_first_page(http: aiohttp.ClientSession) -> None:
    async with http.get("/") as response:
        assert 'data-public-calls="livestream:demo livestream:b"' in await response.text()
