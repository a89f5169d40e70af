"""One fan-out process as the gateway sees it, from its start to its end, and the viewers that it has.

Keeps true: nothing here waits for the process but who asked it something, and they not for ever; what it does not read in time is left
out, so that it holds up nobody else; when it ends, its viewers are told at once; what it says is read as from a stranger.
"""

import asyncio
import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Protocol

from gateway.outputs.fanout import messages
from gateway.outputs.fanout.messages import (
    NO_FIGURES,
    Answered,
    FanoutMessage,
    ProcessFigures,
    ProcessSettings,
    Restarted,
    Sent,
)
from gateway.outputs.fanout.unit_pipe import MOST_BACKLOG, UnitPipe
from protocols.errors import ProtocolError, Reason, Rejected
from protocols.media import Codec
from protocols.webrtc.sdp.description import Fragment
from protocols.webrtc.send.simulcast import Wish
from protocols.webrtc.transport.places import Place
from protocols.whep.fanout import ViewerOffer, ViewerState
from protocols.whep.watchers import Watchers
from transcode.host.pool import Said, passed_on
from transcode.messages import MessageFrame, pack, read_text

_SOCKET_BUFFER = 1 << 19  # bytes: a key frame at once
_BOOT_S = 30.0  # to load everything: generous, since a machine may be busy
_SILENCE_S = 5.0  # after which a process hangs: it says something every second
_END_S = 3.0
_ANSWER_S = 10.0  # for what it is asked: it reads in time, or is ended, so what takes longer has met a defect and will not come

log = logging.getLogger(__name__)


class ViewerPlaces(Protocol):
    """Where the viewers' places are counted, for all processes together (`protocols.webrtc.transport.turns.Turns`)."""

    def connect(self, place: Place) -> None: ...

    def give_back(self, place: Place) -> None: ...


class SourceEnd(Protocol):
    """What a process says of a source that it has."""

    def keyframe_wanted(self) -> None: ...

    def bitrate(self, bits_per_second: int) -> None: ...

    def sent(self, sent: Sent) -> None: ...


class RemoteViewer:
    """A viewer that a process serves (`protocols.whep.fanout.CallViewer` and its `ViewerConnection`)."""

    def __init__(self, process: "FanoutProcess", number: int, place: Place) -> None:
        self.process = process
        self.number = number
        self.place = place
        self.answered: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self.closed = asyncio.Event()
        self.lost = False
        self.why = ""
        self.state = ViewerState("", "")
        self._ice = ("", "")  # the ETag, and whose fragments go with it
        self._asked: deque[asyncio.Future[Restarted | list[str] | None]] = deque()
        self._watchers = Watchers()

    @property
    def viewer(self) -> "RemoteViewer":
        return self

    @property
    def takes(self) -> frozenset[Codec]:
        return self.answered.result().takes

    @property
    def leaving(self) -> bool:
        return bool(self.why)

    @property
    def answer(self) -> str:
        return self.answered.result().answer

    @property
    def etag(self) -> str:
        return self._ice[0] or self.answered.result().etag

    @property
    def remote_ufrag(self) -> str:
        return self._ice[1] or self.answered.result().remote_ufrag

    def close(self, why: str) -> None:
        self.why = self.why or why
        if not self.closed.is_set():
            self.process.send(messages.text(FanoutMessage.CLOSE, self.number, why))

    async def restart(self, fragment: Fragment) -> str:
        restarted = await self._ask(messages.pack_restart(self.number, fragment.ice))
        assert isinstance(restarted, Restarted)
        self._ice = restarted.etag, restarted.remote_ufrag
        return restarted.text

    async def wish(self, media: str | None, wish: Wish) -> list[str] | None:
        layers = await self._ask(messages.pack_wish(self.number, media, wish))
        assert not isinstance(layers, Restarted)
        return layers

    def watching(self) -> AbstractContextManager[asyncio.Event | None]:
        return self._watchers.watching()

    async def run(self) -> None:
        try:
            await self.closed.wait()
        finally:
            self.close("")

    async def _ask(self, question: bytes) -> Restarted | list[str] | None:
        if self.closed.is_set():
            raise _ended()
        asked: asyncio.Future[Restarted | list[str] | None] = asyncio.get_running_loop().create_future()
        self._asked.append(asked)
        self.process.send(question)
        try:
            async with asyncio.timeout(self.process.answer_s):
                return await asked
        except TimeoutError:
            self.close("its process does not answer")  # whose answer comes next could not be told
            raise _unanswered() from None

    # What the process says

    def on_state(self, state: ViewerState) -> None:
        self.state = state
        self._watchers.tell()

    def on_reply(self, reply: Restarted | list[str] | None) -> None:
        if not self._asked:
            raise ProtocolError("an answer that nobody asked for")
        asked = self._asked.popleft()
        if not asked.done():
            asked.set_result(reply)

    def on_gone(self, why: str, *, lost: bool) -> None:
        self.why = self.why or why or "it has gone"
        self.lost = lost
        if not self.answered.done():
            self.answered.set_exception(Rejected(Reason.OVERLOADED, "the viewers' process has just ended: try again", 1))
        for asked in self._asked:
            if not asked.done():
                asked.set_exception(_ended())
        self._asked.clear()
        self.closed.set()
        self._watchers.tell()


class FanoutProcess:
    """One process. `up` from when it is ready until it ends, which `ended` tells."""

    def __init__(self, index: int, places: ViewerPlaces, on_connected: Callable[[], None], answer_s: float = _ANSWER_S) -> None:
        """`index` tells processes apart in the log; `on_connected` is told that it is ready; `answer_s` is how long who asks it something
        waits for the answer."""
        self.index = index
        self.answer_s = answer_s
        self.port = 0
        self.up = False
        self.ended = asyncio.Event()
        self.viewers: dict[int, RemoteViewer] = {}
        self.sources: dict[int, SourceEnd] = {}
        self.figures: ProcessFigures = NO_FIGURES
        self._places = places
        self._on_connected = on_connected
        self._process: asyncio.subprocess.Process | None = None
        self._pipe: UnitPipe | None = None
        self._heard = asyncio.Event()
        self._fault = ""
        self._next = {"viewer": 0, "source": 0}

    @property
    def exit(self) -> str:
        """How it has ended, in words; empty while it runs."""
        code = self._process.returncode if self._process is not None else None
        if self._fault:
            return self._fault
        return "" if code is None else f"signal {-code}" if code < 0 else f"exit {code}"

    @property
    def pid(self) -> int:
        """0 while there is no process."""
        return self._process.pid if self._process is not None and self._process.returncode is None else 0

    @property
    def left_out(self) -> int:
        """Units that were not given to it, since it was not reading."""
        return self._pipe.left_out if self._pipe is not None else 0

    async def run(self, settings: ProcessSettings) -> None:
        """Its life. Raises `OSError` where it cannot be started."""
        try:
            await self._start(settings)
            await self._listen()
        finally:
            self._end("")
            await self._reap()

    async def offer(self, offer: ViewerOffer, place: Place) -> RemoteViewer:
        """As `protocols.whep.fanout.Fanout.offer`; `Rejected` too where no answer comes."""
        if self.pipe.backlog > MOST_BACKLOG:
            raise Rejected(Reason.OVERLOADED, "the viewers' process is too busy: try again in a moment", 1)
        number = self._number("viewer", self.viewers)
        viewer = self.viewers[number] = RemoteViewer(self, number, place)
        self.send(messages.pack_offer(number, offer, place.standing))
        try:
            async with asyncio.timeout(self.answer_s):
                await viewer.answered
        except asyncio.CancelledError:
            viewer.close("its client did not wait for the answer")
            raise
        except TimeoutError:
            viewer.close("its client has waited for too long")
            if not place.used:  # else it has just been answered, and its end will be told
                self.viewers.pop(number, None)
            raise _unanswered() from None
        return viewer

    def open(self, end: SourceEnd) -> int:
        """A number for a source, whose feedback goes to `end`."""
        number = self._number("source", self.sources)
        self.sources[number] = end
        return number

    def close(self, number: int) -> None:
        """Of a source: it has ended."""
        if self.sources.pop(number, None) is not None:
            self.send(pack(FanoutMessage.END, number))

    def send(self, message: bytes) -> None:
        if self._pipe is not None:
            self._pipe.write(message)

    @property
    def pipe(self) -> UnitPipe:
        """Where units are given. It is closed once the process has ended."""
        assert self._pipe is not None
        return self._pipe

    def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    # Inside

    def _number(self, kind: str, taken: dict[int, RemoteViewer] | dict[int, SourceEnd]) -> int:
        if len(taken) >= messages.MOST_NUMBERS:
            raise Rejected(Reason.OVERLOADED, "the viewers' process has as much as it takes")
        while self._next[kind] in taken:
            self._next[kind] = (self._next[kind] + 1) % messages.MOST_NUMBERS
        number = self._next[kind]
        self._next[kind] = (number + 1) % messages.MOST_NUMBERS
        return number

    async def _start(self, settings: ProcessSettings) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
        reading, writing = os.pipe()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: Said("a fan-out process"), os.fdopen(reading, "rb", buffering=0))
        kind = type(loop)
        with theirs, os.fdopen(writing, "wb", buffering=0) as saying:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "gateway.outputs.fanout.process", str(theirs.fileno()), f"{kind.__module__}:{kind.__qualname__}"),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=saying,
                env=passed_on(),
            )
        self._pipe = UnitPipe(ours, self._take, self._end)
        self._pipe.write(messages.pack_start(settings))

    async def _listen(self) -> None:
        """Until it ends; one that says nothing for too long is ended."""
        patience = _BOOT_S
        while not self.ended.is_set():
            self._heard.clear()
            try:
                async with asyncio.timeout(patience):
                    await self._heard.wait()
            except TimeoutError:
                if not self._heard.is_set():  # it has not been us who were late
                    log.error("fan-out process %d has said nothing for %.0f s, and is ended", self.index, patience)
                    return
            patience = _SILENCE_S if self.up else _BOOT_S

    def _end(self, fault: str) -> None:
        """Its socket is closed, or will not be used any more."""
        if self.ended.is_set():
            return
        if fault:
            log.error("fan-out process %d is ended for what it sent: %s", self.index, fault)
        self.up = False
        self.ended.set()
        self._heard.set()
        if self._pipe is not None:
            self._pipe.close()
        for viewer in list(self.viewers.values()):
            self._gone(viewer, "its process has ended", lost=True)
        self.sources.clear()

    async def _reap(self) -> None:
        """By now its socket is closed, by which it ends."""
        if self._process is None:
            return
        try:
            async with asyncio.timeout(_END_S):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()
        except asyncio.CancelledError:
            self.kill()
            raise

    def _gone(self, viewer: RemoteViewer, why: str, *, lost: bool = False) -> None:
        del self.viewers[viewer.number]
        viewer.on_gone(why, lost=lost)
        if viewer.place.used:
            self._places.give_back(viewer.place)

    def _take(self, frame: MessageFrame) -> None:
        self._heard.set()
        number, body = frame.stream, frame.body
        match frame.kind:
            case FanoutMessage.SENT if (source := self.sources.get(number)) is not None:
                for sent in messages.read_sent(body):
                    source.sent(sent)
            case FanoutMessage.KEYFRAME if (source := self.sources.get(number)) is not None:
                source.keyframe_wanted()
            case FanoutMessage.BITRATE if (source := self.sources.get(number)) is not None:
                source.bitrate(messages.read_bitrate(body))
            case FanoutMessage.FIGURES:
                self.figures = messages.read_figures(body)
            case FanoutMessage.FAULT:
                self._fault = read_text(body)
            case FanoutMessage.READY:
                self.port = messages.read_port(body)
                self.up = True
                self._on_connected()
            case _ if (viewer := self.viewers.get(number)) is not None:
                self._take_of_viewer(frame, viewer)

    def _take_of_viewer(self, frame: MessageFrame, viewer: RemoteViewer) -> None:
        match frame.kind:
            case FanoutMessage.STATE:
                viewer.on_state(messages.read_state(frame.body))
            case FanoutMessage.ANSWER if not viewer.answered.done():
                answered = messages.read_answer(frame.body)
                viewer.place.used = True
                viewer.answered.set_result(answered)
            case FanoutMessage.REFUSED:
                if viewer.place.used:
                    raise ProtocolError("a viewer that was answered is refused")
                del self.viewers[viewer.number]
                if not viewer.answered.done():
                    viewer.answered.set_exception(messages.read_refused(frame.body))
            case FanoutMessage.CONNECTED:
                if viewer.place.used:
                    self._places.connect(viewer.place)
            case FanoutMessage.GONE:
                self._gone(viewer, messages.read_words(frame.body))
            case FanoutMessage.WISHED:
                viewer.on_reply(messages.read_wished(frame.body))
            case FanoutMessage.RESTARTED:
                viewer.on_reply(messages.read_restarted(frame.body))


def _ended() -> Rejected:
    return Rejected(Reason.NOT_FOUND, "there is no such session, or it has ended")


def _unanswered() -> Rejected:
    return Rejected(Reason.OVERLOADED, "the viewers' process does not answer: try again in a moment", 1)
