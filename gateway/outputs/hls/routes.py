"""HLS over HTTP: playlists that wait for what is asked of them, parts and segments (RFC 8216bis §6.2.5).

    /hls/{call}                                      the address of the call's playlist, for who may watch (JSON)
    /hls/{call}/{permit}/index.m3u8                  the first live participant: multivariant playlist
    /hls/{call}/{permit}/{stream}/index.m3u8         one participant: multivariant playlist
    /hls/{call}/{permit}/{stream}/{rendition}/...    a rendition: index.m3u8, init*.mp4, parts and segments *.m4s

Kept true: what a CDN may keep, and how long, is in every answer: parts and segments for ever, a playlist that was waited for as long as its
address is asked for, any other for a moment. No request waits longer than its bound, and so many at most wait at once.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from aiohttp import web

from gateway.access.credentials import Identity
from gateway.outputs.hls.broadcasts import HlsBroadcasts
from gateway.outputs.hls.rendition import Rendition
from gateway.outputs.hls.signed_urls import PLAYLIST
from gateway.outputs.hls.stream import HlsStream
from protocols.errors import Reason, Rejected
from protocols.hls.segmenter import SECOND
from protocols.webrtc.http import bearer

_PLAYLIST_TYPE = "application/vnd.apple.mpegurl"
_TYPES = {"m4s": "video/iso.segment", "mp4": "video/mp4"}
_FOR_EVER = "public, max-age=31536000, immutable"
_A_MOMENT = "public, max-age=1"
_NOT_AT_ALL = "no-store"
_MOST_WAITING = 20_000
_START_S = 10.0  # that the first playlist of a stream may take
_WAITS_TARGETS = 3  # target durations: §6.2.5.2 asks for an answer within these
# One spelling for each, as of permits: no zeros before a number
_NUMBER = re.compile(r"0|[1-9][0-9]{0,11}")
_NAME = re.compile(rf"(init({_NUMBER.pattern})\.mp4|({_NUMBER.pattern})(\.({_NUMBER.pattern}))?\.m4s)")

Watch = Callable[[str, str | None, str], Awaitable[Identity]]
"""(call, token, address) -> who that is; raises `Rejected` where who shows this token may not watch this call."""


class HlsRoutes:
    def __init__(self, output: HlsBroadcasts, watch: Watch, cors_origins: tuple[str, ...]) -> None:
        self._output = output
        self._watch = watch
        self._cors = cors_origins
        self._waiting = 0

    def routes(self) -> list[web.RouteDef]:
        call = "/hls/{call}"
        return [
            web.get(call, self._address),
            web.get(f"{call}/{{permit}}/{PLAYLIST}", self._of_call),
            web.get(f"{call}/{{permit}}/{{stream}}/{PLAYLIST}", self._of_stream),
            web.get(f"{call}/{{permit}}/{{stream}}/{{rendition}}/{PLAYLIST}", self._media_playlist),
            web.get(f"{call}/{{permit}}/{{stream}}/{{rendition}}/{{file}}", self._file),
        ]

    async def _address(self, request: web.Request) -> web.Response:
        cid = request.match_info["call"]
        identity = await self._watch(cid, bearer(request), request.remote or "")
        url = self._output.playlist_url(cid, identity)
        if not url:
            raise Rejected(Reason.NOT_FOUND, "This call is not broadcast as HLS")
        return self._answer(request, "address", web.json_response({"playlist_url": url}), _NOT_AT_ALL)

    async def _of_call(self, request: web.Request) -> web.Response:
        cid = await self._admitted(request)
        try:
            stream = await self._first_ready(cid)
        except TimeoutError:
            raise self._unavailable("multivariant", "Nobody is live in this call yet") from None
        return self._playlist(request, "multivariant", stream.multivariant(f"{stream.id}/").encode(), None, _A_MOMENT)

    async def _first_ready(self, cid: str) -> HlsStream:
        """Waits, since players that are told "not yet" do not come back."""
        with self._waiter():
            async with asyncio.timeout(_START_S):
                while (ready := next((stream for stream in self._output.live(cid) if stream.ready), None)) is None:
                    await self._output.changed.wait()
                return ready

    async def _of_stream(self, request: web.Request) -> web.Response:
        await self._admitted(request)
        stream = self._stream(request)
        await self._back(lambda: stream.ready or stream.ended or not stream.left)
        return self._playlist(request, "multivariant", stream.multivariant().encode(), None, _A_MOMENT)

    async def _media_playlist(self, request: web.Request) -> web.Response:
        await self._admitted(request)
        stream, name = self._stream(request), request.match_info["rendition"]
        await self._back(lambda: not stream.awaits(name))
        if name not in stream.renditions and (end := stream.farewell(name)) is not None:
            return self._playlist(request, "playlist", end.encode(), None, _A_MOMENT)
        rendition = self._rendition(request)
        segment, part = _directive(request, "_HLS_msn"), _directive(request, "_HLS_part")
        skip = request.query.get("_HLS_skip", "") in ("YES", "v2")
        if segment is None:
            if part is not None:
                raise self._bad("_HLS_part is asked for without _HLS_msn")
        elif not await self._in_time(rendition, segment, part):
            raise self._bad("The playlist does not go that far: load it anew without _HLS_msn")
        text = rendition.text(skip=skip)
        # §6.2.5.2: an answer to a request that names what it waits for stays true
        kept = _A_MOMENT if segment is None else f"public, max-age={6 * rendition.playlist.timing.target // SECOND}"
        return self._playlist(request, "playlist", text.plain, text.gzip, kept)

    async def _back(self, there: Callable[[], bool]) -> None:
        """Waits for the encoder of a stream that goes on after a restart of the gateway."""
        if there():
            return
        with self._waiter():
            try:
                async with asyncio.timeout(_START_S):
                    while not there():
                        await self._output.changed.wait()
            except TimeoutError:
                raise self._unavailable("playlist", "The stream pauses: its encoder is not back yet") from None

    async def _in_time(self, rendition: Rendition, segment: int, part: int | None) -> bool:
        limit = _WAITS_TARGETS * rendition.playlist.timing.target / SECOND
        with self._waiter():
            try:
                async with asyncio.timeout(limit):
                    return await rendition.reached(segment, part)
            except TimeoutError:
                raise self._unavailable("playlist", "The stream pauses: nothing new has come") from None

    async def _file(self, request: web.Request) -> web.Response:
        await self._admitted(request)
        name = request.match_info["file"]
        if not _NAME.fullmatch(name):
            raise Rejected(Reason.NOT_FOUND, "There is no such file")
        rendition = self._rendition(request)
        kind = "init" if name.startswith("init") else "part" if name.count(".") == 2 else "segment"
        with self._waiter():
            try:
                async with asyncio.timeout(_WAITS_TARGETS * rendition.playlist.timing.target / SECOND):
                    body = await rendition.file(name)
            except TimeoutError:
                body = None
        if body is None:
            self._count(kind, "missing")
            raise web.HTTPNotFound(text="It is not there, or not any more\n", headers=self._headers(request, _A_MOMENT))
        response = web.Response(body=bytes(body), content_type=_TYPES[name.rpartition(".")[2]])
        return self._answer(request, kind, response, _FOR_EVER)

    # What they share

    async def _admitted(self, request: web.Request) -> str:
        cid, permit = request.match_info["call"], request.match_info["permit"]
        stream = self._output.streams.get(request.match_info.get("stream", ""))
        at_its_end = stream is not None and stream.cid == cid and stream.ended
        await self._output.links.check(cid, permit, to_the_end=at_its_end)
        return cid

    def _stream(self, request: web.Request) -> HlsStream:
        stream = self._output.streams.get(request.match_info["stream"])
        if stream is None or stream.cid != request.match_info["call"]:
            raise Rejected(Reason.NOT_FOUND, "There is no such stream, or not any more: load the call's playlist again")
        return stream

    def _rendition(self, request: web.Request) -> Rendition:
        rendition = self._stream(request).renditions.get(request.match_info["rendition"])
        if rendition is None:
            raise Rejected(Reason.NOT_FOUND, "The stream has no such rendition")
        return rendition

    def _playlist(
        self, request: web.Request, kind: str, plain: bytes, packed: Callable[[], bytes] | None, kept: str
    ) -> web.Response:
        response = web.Response(body=plain, content_type=_PLAYLIST_TYPE, headers={"Vary": "Accept-Encoding"})
        if packed is not None and "gzip" in request.headers.get("Accept-Encoding", ""):
            response.body = packed()
            response.headers["Content-Encoding"] = "gzip"
        return self._answer(request, kind, response, kept)

    def _answer(self, request: web.Request, kind: str, response: web.Response, kept: str) -> web.Response:
        self._count(kind, "ok")
        response.headers.update(self._headers(request, kept))
        return response

    def _headers(self, request: web.Request, kept: str) -> dict[str, str]:
        headers = {"Cache-Control": kept}
        if "*" in self._cors:
            headers["Access-Control-Allow-Origin"] = "*"
        elif (origin := request.headers.get("Origin")) in self._cors:
            assert origin is not None
            headers |= {"Access-Control-Allow-Origin": origin, "Vary": "Origin, Accept-Encoding"}
        return headers

    @contextmanager
    def _waiter(self) -> Iterator[None]:
        if self._waiting >= _MOST_WAITING:
            raise Rejected(Reason.OVERLOADED, "Too many requests wait for HLS here")
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    def _count(self, kind: str, result: str) -> None:
        self._output.totals.requests[kind, result] += 1

    def _bad(self, words: str) -> Rejected:
        self._count("playlist", "bad_request")
        return Rejected(Reason.BAD_REQUEST, words)

    def _unavailable(self, kind: str, words: str) -> Rejected:
        self._count(kind, "timeout")
        return Rejected(Reason.OVERLOADED, words)


def _directive(request: web.Request, name: str) -> int | None:
    """A delivery directive (§6.2.5): a decimal number; raises `Rejected`."""
    text = request.query.get(name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise Rejected(Reason.BAD_REQUEST, f"{name} must be a decimal number")
    return int(text)
