"""The pages for people: live streams at `/`, one call at `/watch/{call}` and for who publishes at
`/host/{call}`, and the files of all under `/web/`.

Kept true: nothing is loaded from elsewhere and nothing runs inline (a Content Security Policy holds the browser to it); what is served
is a fixed table read at the start, so that no path of a request ever reaches the file system.
"""

import hashlib
import html
import re
from collections.abc import Awaitable, Callable
from importlib.resources import files

from aiohttp import web

from gateway.config import CALL_ID, Config

_TYPES = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "media-src 'self' blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # kept, but asked for by ETag: a new version is seen at once
}


class Pages:
    """The routes of the pages."""

    def __init__(self, config: Config) -> None:
        folder = files("gateway") / "web"
        self._files = {file.name: file.read_bytes() for file in folder.iterdir() if file.name.rpartition(".")[2] in _TYPES}
        # Text in an attribute, not a script: the policy allows none inline.
        calls = html.escape(" ".join(config.calls.public))
        self._files["index.html"] = self._files["index.html"].replace(
            b"<html ", f'<html data-public-calls="{calls}" '.encode(), 1
        )
        self._etags = {name: hashlib.sha256(body).hexdigest()[:16] for name, body in self._files.items()}

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", self._index),
            web.get("/watch/{call}", self._of_call("watch.html")),
            web.get("/host/{call}", self._of_call("host.html")),
            web.get("/web/{name}", self._file),
        ]

    async def _index(self, request: web.Request) -> web.Response:
        return self._answer(request, "index.html")

    def _of_call(self, name: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def page(request: web.Request) -> web.Response:
            if not re.fullmatch(CALL_ID, request.match_info["call"]):
                raise web.HTTPNotFound(text="There is no such call: a call is named like livestream:demo\n")
            return self._answer(request, name)

        return page

    async def _file(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self._files or name.endswith(".html"):
            raise web.HTTPNotFound
        return self._answer(request, name)

    def _answer(self, request: web.Request, name: str) -> web.Response:
        etag = self._etags[name]
        if any(known.value in (etag, "*") for known in request.if_none_match or ()):
            return web.Response(status=304, headers=_HEADERS | {"ETag": f'"{etag}"'})
        return web.Response(
            body=self._files[name],
            content_type=_TYPES[name.rpartition(".")[2]],
            charset="utf-8",
            headers=_HEADERS | {"ETag": f'"{etag}"'},
        )
