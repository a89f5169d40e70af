"""A worker process as the gateway sees it, through all its restarts: the streams of one session, or the sound of several.

Keeps true: a process that crashes or hangs is replaced at once, and whose packet it had in hand is known: they alone are blamed, and the
packet is left out. Nobody is blamed for an end between packets, or by force from outside, unless it comes again soon.
"""

import asyncio
import signal
from time import monotonic_ns
from typing import Protocol

from protocols.media import EncodedPacket
from transcode import messages
from transcode.host.accounting import used
from transcode.host.child import Child, Launch
from transcode.host.crashes import Crashes
from transcode.host.pipe import Pipe
from transcode.host.stream import WorkerStage
from transcode.host.unanswered import Asker, Unanswered
from transcode.limits import WorkerLimits
from transcode.messages import MessageFrame, Usage, WorkerMessage

_MAX_STREAM_NUMBER = 0xFFFF
_SHORTEST_S = 0.5  # over which usage is judged
_GATHER_S = 0.25e-3
"""For each session beyond the first: of 16, with 47 packets of AAC a second each, four leave together in 4 ms."""


class Session(Protocol):
    """Whose streams a process serves. Nothing here may raise."""

    name: str

    def on_message(self, frame: MessageFrame) -> None:
        """Of something that is no stream's; may raise `ProtocolError`."""

    def on_usage(self, cpu_ns: int, peak_rss: int) -> None:
        """So much CPU more was used for it, in a process of this size."""

    def on_excess(self, cores: float) -> None:
        """It takes so much of a process that others share, and has to leave it."""

    def on_crash(self, why: str, *, blamed: bool) -> None:
        """Another process is there, or not (`ProcessHandle.up`)."""

    def on_end(self, why: str) -> None:
        """There is no process any more, and will not be."""


class Served:
    """A stream in the process, or the parts of a session; nobody's once it has left."""

    def __init__(self, session: Session, asker: Asker | None = None) -> None:
        self.session = session
        self.asker = asker
        self.stage: WorkerStage | None = None
        self.suspect: int | None = None
        """The dts of the packet that the last process had in hand when it ended."""

    def on_taken(self) -> None:
        if self.asker is not None:
            self.asker.on_taken()

    def leave(self) -> None:
        self.asker = self.stage = None


class ProcessHandle:
    """Serves up to `most` sessions, from `join` to `leave`; ends with `aclose`."""

    def __init__(self, launch: Launch, limits: WorkerLimits, most: int = 1) -> None:
        """Raises `OSError` where there can be no process."""
        self.limits = limits
        self.most = most
        self.closed = False
        """There is no process, and will not be."""
        self._launch = launch
        self._loop = asyncio.get_running_loop()
        self._sessions: dict[Session, Served] = {}  # each with what its parts are given for
        self._streams: dict[int, Served] = {}
        self._next_number = 0
        self._crashes = Crashes(limits)  # for which nobody was to blame
        self._exited = asyncio.Event()
        self._fault = ""  # why the present process ends, as far as it is known before its exit
        self._hung = False
        self._usage = Usage()  # of the present process, as last reported
        self._busy: dict[Session, int] = {}  # ns, since then
        self._charged: float  # when that was, s
        self._within = 0.0  # s that a packet may wait for others
        self._child: Child
        self._pipe: Pipe
        self._unanswered: Unanswered[Served]
        self._connect()

    @property
    def sessions(self) -> tuple[Session, ...]:
        return tuple(self._sessions)

    @property
    def shared(self) -> bool:
        return self.most > 1

    @property
    def up(self) -> bool:
        """There is a process that takes what is sent."""
        return self._pipe.open

    @property
    def backlog(self) -> int:
        """Bytes that the process has not taken yet."""
        return self._pipe.backlog

    @property
    def pid(self) -> int:
        """0 while there is no process."""
        return self._child.pid if self.up else 0

    def join(self, session: Session, parts: Asker) -> None:
        self._sessions[session] = Served(session, parts)
        self._busy[session] = 0
        self._gather()

    def leave(self, session: Session) -> None:
        """Its streams are not for this process any more. Idempotent."""
        parts = self._sessions.pop(session, None)
        self._busy.pop(session, None)
        for number in [number for number, served in self._streams.items() if served.session is session]:
            self._streams.pop(number).leave()
            if self._sessions:  # without any it ends
                self.send(messages.pack(WorkerMessage.CLOSE, number))
        if parts is not None:
            parts.leave()
        self._gather()

    def _gather(self) -> None:
        """To wake a process, and to be woken by it, costs as much as to encode: the more sessions, the longer packets wait for others."""
        self._within = _GATHER_S * (len(self._sessions) - 1)

    def number(self, session: Session) -> int:
        """For a stream of the session, to be served by `serve`."""
        while self._next_number in self._streams:
            self._next_number = (self._next_number + 1) & _MAX_STREAM_NUMBER
        number = self._next_number
        self._next_number = (number + 1) & _MAX_STREAM_NUMBER
        self._streams[number] = Served(session)
        return number

    def serve(self, stage: WorkerStage) -> None:
        """What is said of this number is for this stage."""
        self._streams[stage.number].asker = self._streams[stage.number].stage = stage

    def forget(self, stage: WorkerStage) -> None:
        """Nothing more is served to it."""
        served = self._streams.get(stage.number)
        if served is not None and served.stage is stage:  # and not another's by now
            del self._streams[stage.number]
            served.leave()

    def send(self, message: bytes) -> None:
        self._pipe.write(message)

    def send_packet(self, stage: WorkerStage, packet: EncodedPacket, silent: bool) -> None:
        if self.up:
            self._unanswered.expect(self._streams[stage.number], packet.dts)
            head = messages.pack_packet(stage.number, packet, silent, monotonic_ns())
            self._pipe.write(head, packet.data, self._within)

    def send_part(self, session: Session, message: bytes) -> bool:
        """False where the worker cannot take it now."""
        if not self.up or self.backlog > self.limits.backlog:
            return False
        self._unanswered.expect(self._sessions[session], 0)
        self._pipe.write(message)
        return True

    def end(self, fault: str) -> None:
        """End the present process by force; its exit starts the next one, in which its streams go on. Empty: the fault is known already."""
        self._fault = fault or self._fault
        self._disconnect()
        if self._child.watched:
            self._child.kill()
        elif not self._exited.is_set():
            self._fail("the fork server has gone")

    async def aclose(self) -> None:
        """End the process: by closing its socket, or by force where that takes too long. Idempotent."""
        self.abandon()
        for _ in range(2):
            if not self._child.watched:
                return
            try:
                async with asyncio.timeout(self.limits.close):
                    await self._exited.wait()
            except TimeoutError:
                self._child.kill()

    def abandon(self) -> None:
        """Close the socket, by which the process ends, without waiting for that. Idempotent."""
        self.closed = True
        self._disconnect()

    # The process

    def _connect(self) -> None:
        self._child = self._launch(self._on_exit)
        self._exited.clear()
        self._fault = ""
        self._hung = False
        self._usage = Usage()
        self._charged = self._loop.time()
        self._pipe = Pipe(self._child.sock, self._handle, self.end)
        self._unanswered = Unanswered(self.limits.hang, self._pipe.read, lambda: used(self._child.pid), self._on_hang)

    def _disconnect(self) -> None:
        self._pipe.close()
        self._unanswered.stop()

    def _handle(self, frame: MessageFrame) -> None:
        if frame.kind == WorkerMessage.FAULT:  # no answer to what it had in hand
            self._fault = bytes(frame.body[:2000]).decode(errors="replace")
            return
        self._unanswered.answered(frame.taken)
        served = self._streams.get(frame.stream)
        stage = served.stage if served is not None else None
        match frame.kind:
            case WorkerMessage.OUTPUT if stage is not None:
                stage.on_output(messages.read_output(frame.body, stage.tracks))
            case WorkerMessage.LATE if stage is not None:
                stage.on_late()
            case WorkerMessage.TRACKS if stage is not None:
                stage.on_output_tracks(messages.read_tracks(frame.body))
            case WorkerMessage.CLOSED if stage is not None:
                stage.on_closed()
            case WorkerMessage.STATS if served is not None and stage is not None:
                report = messages.read_stats(frame.body)
                self._busy[served.session] += max(0, report.busy_ns - stage.report.busy_ns)
                stage.report = report
            case WorkerMessage.USAGE:
                self._charge(messages.read_usage(frame.body))
            case (
                WorkerMessage.FRAGMENT | WorkerMessage.TRIED | WorkerMessage.NOTE | WorkerMessage.SLATED | WorkerMessage.LOOKED
            ):
                for session in self.sessions:
                    session.on_message(frame)

    def _charge(self, usage: Usage) -> None:
        """Put what the process has used since the last time to its sessions, as they kept it busy; who took too much of it has to leave."""
        used, self._usage = max(0, usage.cpu_ns - self._usage.cpu_ns), usage
        now, before = self._loop.time(), self._charged
        self._charged = now
        busy = sum(self._busy.values())
        for session in self.sessions:
            if session not in self._sessions:
                continue  # it has gone for what another has told its owner
            part = self._busy[session] / busy if busy else 1 / len(self._sessions)
            self._busy[session] = 0
            session.on_usage(round(used * part), usage.peak_rss)
            cores = used * part / 1e9 / max(now - before, _SHORTEST_S)
            if len(self._sessions) > 1 and cores > self.limits.sound_cores:
                session.on_excess(cores)

    # Crashes and hangs

    def _on_hang(self, idle: float) -> None:
        self._hung = True
        self.end(f"no progress for {idle:.1f} s")

    def _on_exit(self, status: int, done: int) -> None:
        self._exited.set()
        while self._pipe.read():
            pass  # what it gave before it ended is good
        self._disconnect()
        if self.closed:
            return
        why = self._fault or (f"signal {-status}" if status < 0 else f"exit {status}")
        in_hand = self._unanswered.in_hand(done)
        # Killed from outside (the kernel short of memory, an operator): no packet of a stream is to blame
        innocent = status == -signal.SIGKILL and not self._hung
        for served in self._streams.values():
            served.suspect = None
        if in_hand is not None and not innocent:
            in_hand[0].suspect = in_hand[1]
        blamed = self._blamed(in_hand[0].session if in_hand is not None else None, innocent)
        try:
            self._connect()
        except OSError as error:
            self._fail(str(error))
            return
        for session in self.sessions:
            if session in self._sessions:  # it may have gone for what another has told its owner
                session.on_crash(why, blamed=session in blamed)

    def _blamed(self, in_hand: Session | None, innocent: bool) -> tuple[Session, ...]:
        """Whose fault the end is, whose packet was in hand and no packet may have been to blame."""
        known = (in_hand,) if in_hand is not None and in_hand in self._sessions else self.sessions
        if len(self._sessions) == 1 or (len(known) == 1 and not innocent):
            return known
        return known if self._crashes.too_many(self._loop.time()) else ()

    def suspect(self, stage: WorkerStage) -> int | None:
        """The dts of the packet of this stream that the last process had in hand when it ended, if it is to blame."""
        return self._streams[stage.number].suspect

    def _fail(self, why: str) -> None:
        self.closed = True
        for session in self.sessions:
            session.on_end(why)
