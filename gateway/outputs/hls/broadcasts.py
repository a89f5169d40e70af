"""Which calls are watched as HLS: started and stopped by the API or by configuration, a stream for each participant, a worker for each.

Kept true: a stream lives from its participant's first session to `stop` (or, where nobody has to start it, to the session's end) and over
all that comes and goes in between; what has ended stays to be fetched for as long as a player may still be at it.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic_ns

from gateway.outputs.hls.archive import Archive
from gateway.outputs.hls.policy import Figure, HlsPolicy, HlsTotals
from gateway.outputs.hls.signed_urls import SignedUrls
from gateway.outputs.hls.stream import HlsStream
from gateway.outputs.hls.transcoding import Room, needed
from gateway.sessions.capacity import Capacity, Demand, Seen
from gateway.sessions.registry import Registry
from gateway.sessions.seat import Seat, SeatChange
from gateway.telemetry.log import event
from protocols.errors import Rejected
from transcode.host.pool import Workers
from transcode.host.process import Worker
from transcode.stage import Stage

log = logging.getLogger(__name__)

_DRAIN_S = 2.0  # for the last parts of a session that has gone
_AGAIN_S = 5.0  # after a worker that failed
_NO_ROOM_S = 60.0  # after there was none to be had
_STAYS_S = 60.0  # an ended stream, beyond its playlist's length
_MOST_STREAMS = 1000  # ended ones included


class HlsOutput:
    """`run` does the work until cancelled; `told` belongs into `SessionPolicy.told`."""

    def __init__(
        self,
        policy: HlsPolicy,
        registry: Registry,
        workers: Workers,
        capacity: Capacity,
        links: SignedUrls,
        archive: Archive | None = None,
    ) -> None:
        self.totals = HlsTotals()
        self.streams: dict[str, HlsStream] = {}
        """By id: those that can be fetched, oldest first."""
        self.changed = asyncio.Event()
        """Set, and replaced by a new one, when a stream has a segment more."""
        self.links = links
        self.archive = archive
        self._policy = policy
        self._registry = registry
        self._workers = workers
        self._capacity = capacity
        self.base_url = ""
        """The gateway's own address as players see it, e.g. `https://host`."""
        self._wanted: set[str] = set()
        self._group: asyncio.TaskGroup | None = None
        self._feeding: dict[tuple[str, str], asyncio.Task[None]] = {}  # by call and user
        self._used: dict[str, tuple[Seat, Worker]] = {}  # by the worker's name

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            if self.archive is not None:
                group.create_task(self.archive.run(), name="HLS archive")
            for session in list(self._registry.sessions.values()):
                self.told(session, SeatChange.JOINED)
            await asyncio.get_running_loop().create_future()  # until cancelled

    # For the API

    def check(self, cid: str) -> None:
        """Whether there is room to `start` it for those who are live now; raises `Rejected`."""
        if not self._is_wanted(cid):
            live = [session for session in self._registry.sessions.values() if session.call_cid == cid]
            wanted = [needed(session) for session in live if session.participation is not None]
            if wanted:
                everything = Demand(
                    sum(each.audio for each in wanted), sum((each.video for each in wanted), ()), hls=len(wanted)
                )
                self._capacity.check_hls(cid, everything)

    def start(self, cid: str) -> None:
        """From here on, whoever publishes into the call can be watched as HLS. Idempotent."""
        if cid not in self._wanted:
            self._wanted.add(cid)
            event(log, logging.INFO, "HLS starts", call=cid)
        for session in list(self._registry.sessions.values()):
            if session.call_cid == cid and session.participation is not None:
                self._feed(session)

    def stop(self, cid: str) -> None:
        """The end of the call's streams: their playlists say so. Idempotent."""
        if cid in self._wanted:
            self._wanted.discard(cid)
            event(log, logging.INFO, "HLS stops", call=cid)
        for (call, _), task in list(self._feeding.items()):
            if call == cid:
                task.cancel()
        for stream in list(self.streams.values()):
            if stream.cid == cid:
                self._end(stream)

    def playlist_url(self, cid: str, user_id: str = "") -> str:
        """Of the call's first participant who is live, for this user (empty: for all); empty where the call is not broadcast."""
        return f"{self.base_url}{self.links.path(cid, user_id)}" if self._is_wanted(cid) else ""

    def open_playlist_url(self, cid: str) -> str:
        """As `playlist_url`, but empty where not everybody may watch."""
        return self.playlist_url(cid) if self.links.open(cid) else ""

    def live(self, cid: str) -> list[HlsStream]:
        """The call's streams that have not ended, the first participant's first."""
        return [stream for stream in self.streams.values() if stream.cid == cid and not stream.ended]

    # What sessions say

    def told(self, session: Seat, happening: SeatChange) -> None:
        """`gateway.sessions.seat.SessionPolicy.told`."""
        if happening is SeatChange.JOINED and self._is_wanted(session.call_cid):
            self._feed(session)
        elif happening is SeatChange.LEFT:
            task = self._feeding.get((session.call_cid, session.user_id))
            if task is not None:
                task.cancel()

    def _is_wanted(self, cid: str) -> bool:
        return self._policy.auto or cid in self._wanted

    def _feed(self, session: Seat) -> None:
        key = session.call_cid, session.user_id
        running = self._feeding.get(key)
        if self._group is None or (running is not None and not running.cancelling()):
            return
        task = self._feeding[key] = self._group.create_task(self._fed(session, running), name=f"HLS of {session.id}")
        task.add_done_callback(lambda done: self._feeding.pop(key, None) if self._feeding.get(key) is done else None)

    async def _fed(self, session: Seat, before: asyncio.Task[None] | None) -> None:
        """One session's media into its participant's stream, with one worker after the other if need be, until cancelled."""
        if before is not None:
            await asyncio.wait([before])
        stream = self._stream(session)
        try:
            while stream is not None:
                had_one = await self._with_worker(session, stream)
                await asyncio.sleep(_AGAIN_S if had_one else _NO_ROOM_S)
        finally:
            if stream is not None and not self._is_wanted_beyond(session):
                self._end(stream)

    def _is_wanted_beyond(self, session: Seat) -> bool:
        """A call for which HLS was started waits for its hosts to come back; where every call has it, the session's end is the end."""
        return session.call_cid in self._wanted

    async def _with_worker(self, session: Seat, stream: HlsStream) -> bool:
        """Returns when the worker has failed, or False when there is no room for it or what it would have to do."""
        name = _worker_name(session)
        try:
            self._capacity.admit_hls(name, needed(session))
            worker = await self._workers.start(name)
        except Rejected as refusal:
            self._refused(session, refusal)
            return False
        over, room = asyncio.Event(), True

        def fail(why: str) -> None:
            event(log, logging.WARNING, f"HLS starts anew: {why}", session=session.id)
            over.set()

        def refuse(refusal: Rejected) -> None:
            nonlocal room
            room = False
            self._refused(session, refusal)
            over.set()

        worker.on_failure(fail)
        worker.on_note(lambda text: event(log, logging.WARNING, f"HLS: {text}", session=session.id))
        self._used[name] = session, worker
        try:
            stream.attach(session, worker, Room(partial(self._capacity.admit_hls, name), refuse, self._retire))
            await over.wait()
            return room
        finally:
            stream.detach()
            del self._used[name]
            await self._let_go(worker)

    def _refused(self, session: Seat, refusal: Rejected) -> None:
        self.totals.refused += 1
        event(log, logging.WARNING, f"no HLS for now: {refusal.detail}", session=session.id, call=session.call_cid)

    def _retire(self, stage: Stage) -> None:
        assert self._group is not None
        self._group.create_task(stage.aclose(), name="HLS: a picture that is made no more")

    async def _let_go(self, worker: Worker) -> None:
        """What it has in hand is still good."""
        answered = asyncio.Event()
        worker.fragments.then(answered.set)
        try:
            async with asyncio.timeout(_DRAIN_S):
                await answered.wait()
        except TimeoutError:
            pass
        finally:
            await worker.aclose()

    def _stream(self, session: Seat) -> HlsStream | None:
        """The participant's stream that goes on, or a new one."""
        for stream in self.live(session.call_cid):
            if stream.user_id == session.user_id:
                return stream
        if len(self.streams) >= _MOST_STREAMS:
            return None
        identity = secrets.token_hex(8)
        stream = self.streams[identity] = HlsStream(identity, session, self._policy, self.totals, self.archive, self._tell)
        return stream

    def _tell(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def _end(self, stream: HlsStream) -> None:
        if stream.ended:
            return
        stream.end()
        loop = asyncio.get_running_loop()
        loop.call_later(_STAYS_S + 2 * self._policy.window / 1e9, self.streams.pop, stream.id, None)

    def seen(self) -> dict[str, Seen]:
        """What its workers use, for `Capacity.sample`."""
        return {
            name: Seen(needed(session), worker.stats.cpu_ns, economised=worker.adaptation is not None)
            for name, (session, worker) in self._used.items()
        }

    def counted(self) -> Iterator[Figure]:
        """Totals, for metrics."""
        return self.totals.counted(self.archive.results if self.archive is not None else {})

    def present(self) -> Iterator[Figure]:
        """What is so now, for metrics."""
        now = monotonic_ns()
        live = [stream for stream in self.streams.values() if not stream.ended]
        changes = [rendition.last_change for stream in live for rendition in stream.renditions.values()]
        held = sum(rendition.held for stream in self.streams.values() for rendition in stream.renditions.values())
        yield "hls_streams", "Participants broadcast as HLS", (), {(): len(live)}
        meaning = "Time since a playlist changed, of the one for which that is longest"
        yield "hls_playlist_age_seconds", meaning, (), {(): (now - min(changes, default=now)) / 1e9}
        yield "hls_held_bytes", "Memory that segments take", (), {(): held}


def _worker_name(session: Seat) -> str:
    return f"{session.id} HLS"


def also(*told: Callable[[Seat, SeatChange], None]) -> Callable[[Seat, SeatChange], None]:
    """Tells each of them."""

    def tell(session: Seat, happening: SeatChange) -> None:
        for each in told:
            each(session, happening)

    return tell
