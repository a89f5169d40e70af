"""A fan-out process (`python -m gateway.outputs.fanout.process FD LOOP`): the viewers that the gateway gives it, on a UDP port of its own.

Keeps true: it decides nothing but how a viewer is served; it has no file, no secret but its own DTLS key, and ends with the gateway, by the
end of their socket. The signals that a terminal or a supervisor sends to the whole group are not for it: the gateway drains first.
"""

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from pkgutil import resolve_name
from typing import Any

from gateway.outputs.fanout import messages
from gateway.outputs.fanout.messages import FanoutMessage, ProcessFigures, ProcessSettings, PushedUnit, Sent
from protocols.defects import log_defect
from protocols.errors import ProtocolError, Rejected
from protocols.media import EncodedPacket, Track
from protocols.webrtc.send.source import Source
from protocols.webrtc.transport.peer import Limits
from protocols.webrtc.transport.places import Standing
from protocols.webrtc.transport.udp_mux import UdpMux
from protocols.whep.fanout import ViewerOffer
from protocols.whep.local_fanout import LocalCall, LocalFanout, LocalViewer
from transcode.host.pipe import Pipe
from transcode.messages import MessageFrame, pack

FIGURES_S = 1.0
_GATHER_S = 0.1  # for which what the gateway does not wait for may wait for more of it
_MOST_BACKLOG = 1 << 20  # bytes: beyond it, what can be left out is

log = logging.getLogger(__name__)


class ParticipantClock:
    """Of one participant of a call, as the gateway told it with the newest unit. Two sources of one participant have the same `now`."""

    def __init__(self) -> None:
        self.wall = 0
        self.media = 0

    def now(self, now: int) -> tuple[int, int]:
        """Wall clock and media time at monotonic `now`, all in ns."""
        return now + self.wall, now + self.media


class ServedSource:
    """One source, and what is said of it to the gateway (`protocols.whep.fanout.TrackFeedback`)."""

    def __init__(
        self, number: int, call: LocalCall, participant: str, track: Track, clock: ParticipantClock, pipe: Pipe
    ) -> None:
        self._number = number
        self._pipe = pipe
        self._clock = clock
        self._keyframes = False  # whether one comes where it is asked for, as the gateway said last
        self.source: Source = call.publish(participant, track, clock.now, self)

    def push(self, unit: PushedUnit) -> None:
        self._clock.wall, self._clock.media = unit.wall, unit.media
        self.source.push(unit.packet, unit.pushed if unit.cached else time.monotonic_ns())

    def keyframe(self) -> bool | None:
        """That none comes may be so no more: the gateway is heard first."""
        self._pipe.write(pack(FanoutMessage.KEYFRAME, self._number))
        return True if self._keyframes else None

    def answered(self, comes: bool) -> None:
        self._keyframes = comes
        self.source.answered(comes, time.monotonic_ns())

    def bitrate(self, bits_per_second: int) -> None:
        self._pipe.write(messages.pack_bitrate(self._number, bits_per_second))

    def sent(self, packet: EncodedPacket, ready: int, sent: int) -> None:
        if self._pipe.backlog < _MOST_BACKLOG:
            self._pipe.write(messages.pack_sent(self._number, (Sent(packet.pts, ready, sent),)), within=_GATHER_S)


class ServedViewer:
    """One viewer, with the tasks that go on for it."""

    def __init__(self, number: int, connection: LocalViewer, pipe: Pipe) -> None:
        self.connection = connection
        self.cid = ""
        """Of the call that it watches; empty: of none yet."""
        self._number = number
        self._pipe = pipe
        self._untold = False  # its newest state
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, task: Coroutine[Any, Any, None]) -> None:
        started = asyncio.get_running_loop().create_task(task)
        self._tasks.add(started)
        started.add_done_callback(self._tasks.discard)
        started.add_done_callback(partial(log_defect, log, "a viewer was served"))

    async def live(self, on_gone: Callable[[int], None]) -> None:
        try:
            await self.connection.run()
        finally:
            for task in self._tasks - {asyncio.current_task()}:
                task.cancel()
            self._pipe.write(messages.text(FanoutMessage.GONE, self._number, self.connection.peer.why))
            on_gone(self._number)

    async def connect(self) -> None:
        await self.connection.peer.connected.wait()
        self._pipe.write(pack(FanoutMessage.CONNECTED, self._number))

    async def tell(self) -> None:
        """Its state whenever that changes: the newest, where the gateway is slow to read."""
        with self.connection.watching() as changed:
            assert changed is not None
            while not self.connection.closed.is_set():
                await changed.wait()
                changed.clear()
                self._untold = True
                self.tell_untold()

    def tell_untold(self) -> None:
        """What the gateway has not been told, once it reads."""
        if self._untold and self._pipe.backlog < _MOST_BACKLOG:
            self._untold = False
            self._pipe.write(messages.pack_state(self._number, self.connection.state))


class FanoutServer:
    """What the process does, message by message."""

    def __init__(self, sock: socket.socket, ended: asyncio.Event) -> None:
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._pipe = Pipe(sock, self._take, self._end)
        self._settings: asyncio.Future[ProcessSettings] = self._loop.create_future()
        self._mux: UdpMux | None = None
        self._fanout: LocalFanout | None = None
        self._viewers: dict[int, ServedViewer] = {}
        self._sources: dict[int, ServedSource] = {}
        self._calls: dict[str, LocalCall] = {}
        self._clocks: dict[tuple[str, str], ParticipantClock] = {}

    async def run(self) -> None:
        """Until the gateway has gone."""
        settings = await self._settings
        limits = Limits(peers=settings.most_viewers, connect=settings.connect_s)
        async with AsyncExitStack() as stack:
            try:
                mux = UdpMux(settings.host, settings.port, settings.external_addresses, limits)
                await stack.enter_async_context(mux)
            except OSError as error:
                words = f"cannot listen on UDP port {settings.port}: {error.strerror}; choose another webrtc.port"
                self._pipe.write(messages.text(FanoutMessage.FAULT, 0, words))
                return
            self._mux, self._fanout = mux, LocalFanout(mux)
            gc.collect()
            gc.freeze()
            self._pipe.write(messages.fields(FanoutMessage.READY, 0, port=mux.port))
            figures = asyncio.create_task(self._tell_figures(mux, self._fanout))
            await self._ended.wait()
            figures.cancel()

    def _end(self, fault: str) -> None:
        if fault:
            log.error("the gateway sent %s", fault)
        if not self._settings.done():
            self._settings.cancel()
        self._ended.set()

    async def _tell_figures(self, mux: UdpMux, fanout: LocalFanout) -> None:
        while True:
            viewers = {name: value for name, _, value in fanout.counters()}
            transport = {name: value for name, _, value in mux.counters()}
            self._pipe.write(messages.pack_figures(ProcessFigures(viewers, transport, time.process_time_ns())))
            for viewer in self._viewers.values():
                viewer.tell_untold()
            await asyncio.sleep(FIGURES_S)

    def _take(self, frame: MessageFrame) -> None:
        """In a turn of its own, in order: a defect that one message meets is logged, and disturbs no other."""
        kept = MessageFrame(frame.kind, frame.stream, frame.taken, memoryview(bytes(frame.body)))
        self._loop.call_soon(self._handle, kept)

    def _handle(self, frame: MessageFrame) -> None:
        number, body = frame.stream, frame.body
        match frame.kind:
            case FanoutMessage.UNIT:
                if (source := self._sources.get(number)) is not None:
                    source.push(messages.read_unit(body))
            case FanoutMessage.START:
                self._settings.set_result(messages.read_start(body))
            case FanoutMessage.OFFER:
                self._offer(number, *messages.read_offer(body))
            case FanoutMessage.SOURCE | FanoutMessage.TRACK | FanoutMessage.END | FanoutMessage.KEYFRAMES:
                self._take_of_source(frame)
            case FanoutMessage.SHOW:
                self._show(messages.read_show(body))
            case FanoutMessage.HIDE:
                cid, participant = messages.read_hide(body)
                self._clocks.pop((cid, participant), None)
                self._call(cid).hide(participant)
                self._forget(cid)
            case _ if (viewer := self._viewers.get(number)) is not None:
                self._take_of_viewer(frame, viewer)

    def _offer(self, number: int, offer: ViewerOffer, standing: Standing) -> None:
        assert self._mux is not None
        assert self._fanout is not None
        try:
            place = self._mux.take("", standing)
            try:
                connection = self._fanout.connect(offer, place)
            finally:
                if not place.used:
                    self._mux.turns.give_back(place)
        except (ProtocolError, Rejected) as error:
            self._pipe.write(messages.pack_refused(number, error))
            return
        viewer = self._viewers[number] = ServedViewer(number, connection, self._pipe)
        self._pipe.write(messages.pack_state(number, connection.state))
        answered = messages.Answered(connection.answer, connection.etag, connection.remote_ufrag, connection.viewer.takes)
        self._pipe.write(messages.pack_answer(number, answered))
        viewer.begin(viewer.live(self._gone))
        viewer.begin(viewer.connect())
        viewer.begin(viewer.tell())

    def _gone(self, number: int) -> None:
        viewer = self._viewers.pop(number)
        if viewer.cid:
            self._call(viewer.cid).remove(viewer.connection.viewer)
            self._forget(viewer.cid)

    def _take_of_viewer(self, frame: MessageFrame, viewer: ServedViewer) -> None:
        number, connection = frame.stream, viewer.connection
        match frame.kind:
            case FanoutMessage.ENTER:
                viewer.cid = messages.read_words(frame.body)
                self._call(viewer.cid).add(connection.viewer)
            case FanoutMessage.CLOSE:
                connection.viewer.close(messages.read_words(frame.body))
            case FanoutMessage.WISH:
                layers = connection.viewer.wish(*messages.read_wish(frame.body))
                self._pipe.write(messages.fields(FanoutMessage.WISHED, number, layers=layers))
            case FanoutMessage.RESTART:
                text = connection.restart(messages.read_restart(frame.body))
                named = {"text": text, "etag": connection.etag, "remote_ufrag": connection.remote_ufrag}
                self._pipe.write(messages.fields(FanoutMessage.RESTARTED, number, **named))

    def _take_of_source(self, frame: MessageFrame) -> None:
        number, body = frame.stream, frame.body
        if frame.kind == FanoutMessage.SOURCE:
            cid, participant, track = messages.read_source(body)
            clock = self._clocks.setdefault((cid, participant), ParticipantClock())
            self._sources[number] = ServedSource(number, self._call(cid), participant, track, clock, self._pipe)
        elif (served := self._sources.get(number)) is not None:
            match frame.kind:
                case FanoutMessage.TRACK:
                    served.source.track = messages.read_changed_track(body)
                case FanoutMessage.END:
                    del self._sources[number]
                case FanoutMessage.KEYFRAMES:
                    served.answered(bool(body[0]))

    def _show(self, shown: messages.ShownTracks) -> None:
        sources = {
            kind: [self._sources[number].source for number in numbers if number in self._sources]
            for kind, numbers in shown.sources.items()
        }
        self._call(shown.cid).show(shown.participant, sources, shown.muted)

    def _call(self, cid: str) -> LocalCall:
        assert self._fanout is not None
        call = self._calls.get(cid)
        if call is None:
            call = self._calls[cid] = self._fanout.call(cid)
        return call

    def _forget(self, cid: str) -> None:
        if (call := self._calls.get(cid)) is not None and call.empty:
            del self._calls[cid]


async def serve(sock: socket.socket) -> None:
    await FanoutServer(sock, asyncio.Event()).run()


def main(descriptor: str, loop: str) -> None:
    """`loop` is the class of the event loop, as `module:name`: that of the gateway's own."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):  # no dump, no file, no process or thread
        resource.setrlimit(limit, (0, 0))
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    sock = socket.socket(fileno=int(descriptor))
    sock.setblocking(False)
    with asyncio.Runner(loop_factory=resolve_name(loop)) as runner:
        try:
            runner.run(serve(sock))
        except asyncio.CancelledError:
            os._exit(0)  # the gateway went before it had said anything


if __name__ == "__main__":
    main(*sys.argv[1:])
