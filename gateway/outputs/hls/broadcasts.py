"""Which calls are watched as HLS: started and stopped by the API or by configuration, with a stream for each participant.

Kept true: a stream lives from its participant's first seat to `stop` (or, where nobody has to start it, to the seat's end) and over
all that comes and goes in between; what has ended stays to be fetched for as long as a player may still be at it.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterator
from time import monotonic_ns
from typing import TYPE_CHECKING

from gateway.access.credentials import NOBODY, Identity
from gateway.model.kept import KeptSeat
from gateway.model.records import Json
from gateway.outputs.hls.kept import KeptStream
from gateway.outputs.hls.policy import HlsPolicy, HlsTotals
from gateway.outputs.hls.seat_output import HlsSeatOutput
from gateway.outputs.hls.signed_urls import SignedUrls
from gateway.outputs.hls.stream import HlsStream
from gateway.sessions.capacity import Capacity, Demand
from gateway.sessions.output import DelayFamily, OnChange, SeatView
from gateway.telemetry.log import event
from protocols.errors import Rejected
from protocols.metric import MetricFamily

if TYPE_CHECKING:
    from gateway.outputs.hls.archive import Archive

log = logging.getLogger(__name__)

_STAYS_S = 60.0  # an ended stream, beyond its playlist's length
_MOST_STREAMS = 1000  # ended ones included
_LATENCY = "From the last byte received of a part's first frame to the part in its playlist, its own length included"


class HlsBroadcasts:
    """The `CountedDestination` of HLS, and its `ResumableDestination`."""

    name = "hls"

    def __init__(
        self, policy: HlsPolicy, capacity: Capacity, links: SignedUrls, base_url: str, archive: "Archive | None" = None
    ) -> None:
        """`base_url` is the gateway's own address as players see it, e.g. `https://host`."""
        self.totals = HlsTotals()
        self.streams: dict[str, HlsStream] = {}
        """By id: those that can be fetched, oldest first."""
        self.changed = asyncio.Event()
        """Set, and replaced by a new one, when a stream has a segment more."""
        self.links = links
        self.archive = archive
        self._policy = policy
        self._capacity = capacity
        self._base_url = base_url
        self._wanted: set[str] = set()
        self._outputs: set[HlsSeatOutput] = set()
        self._on_change: Callable[[], None] | None = None
        self._handed_over = False

    async def join(self, seat: SeatView, on_change: OnChange) -> HlsSeatOutput:
        output = HlsSeatOutput(seat, self._takes, self._stream_of, on_change, self._refused, self._closed)
        self._outputs.add(output)
        return output

    # For the API

    def check(self, cid: str) -> None:
        """Whether there is room to `start` it for those who are live now; raises `Rejected`."""
        if not self._is_wanted(cid):
            wanted = Demand()
            for output in self._of(cid):
                wanted = wanted.plus(output.cost())
            self._capacity.check_optional(cid, wanted)

    def start(self, cid: str) -> None:
        """From here on, whoever publishes into the call can be watched as HLS. Idempotent."""
        if cid not in self._wanted:
            self._wanted.add(cid)
            event(log, logging.INFO, "HLS starts", call=cid)
            self._change(cid)

    def stop(self, cid: str) -> None:
        """The end of the call's streams: their playlists say so. Idempotent."""
        if cid in self._wanted:
            self._wanted.discard(cid)
            event(log, logging.INFO, "HLS stops", call=cid)
        self._change(cid)
        for stream in list(self.streams.values()):
            if stream.cid == cid:
                self._end(stream)

    def playlist_url(self, cid: str, watcher: Identity = NOBODY) -> str:
        """Of the call's first participant who is live, for this user (nobody: for all); empty where the call is not broadcast."""
        return f"{self._base_url}{self.links.path(cid, watcher.watching_as)}" if self._is_wanted(cid) else ""

    def open_playlist_url(self, cid: str) -> str:
        """As `playlist_url`, but empty where not everybody may watch."""
        return self.playlist_url(cid) if self.links.open(cid) else ""

    def live(self, cid: str) -> list[HlsStream]:
        """The call's streams that have not ended, the first participant's first."""
        return [stream for stream in self.streams.values() if stream.cid == cid and not stream.ended]

    # For the outputs of seats

    def _is_wanted(self, cid: str) -> bool:
        return self._policy.auto or cid in self._wanted

    def _takes(self, seat: SeatView) -> bool:
        return self._is_wanted(seat.call_cid) and (
            self._going_on(seat.call_cid, seat.user_id) is not None or len(self.streams) < _MOST_STREAMS
        )

    def _going_on(self, cid: str, user_id: str) -> HlsStream | None:
        return next((stream for stream in self.live(cid) if stream.user_id == user_id), None)

    def _stream_of(self, seat: SeatView) -> HlsStream:
        """The participant's stream that goes on, or a new one."""
        if (stream := self._going_on(seat.call_cid, seat.user_id)) is not None:
            return stream
        identity = secrets.token_hex(8)
        stream = self.streams[identity] = HlsStream(identity, seat, self._policy, self.totals, self.archive, self._tell)
        return stream

    def _of(self, cid: str) -> list[HlsSeatOutput]:
        return [output for output in self._outputs if output.seat.call_cid == cid]

    def _change(self, cid: str) -> None:
        for output in self._of(cid):
            output.on_change()

    def _refused(self, seat: SeatView, refusal: Rejected) -> None:
        self.totals.refused += 1
        event(log, logging.WARNING, f"no HLS for now: {refusal.detail}", session=seat.id, call=seat.call_cid)

    def _closed(self, output: HlsSeatOutput) -> None:
        """A call for which HLS was started waits for its hosts to come back; where every call has it, the seat's end is the end."""
        self._outputs.discard(output)
        self.give_up(output.seat.call_cid, output.seat.user_id)

    def _tell(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()
        if self._on_change is not None:
            self._on_change()

    def _end(self, stream: HlsStream) -> None:
        if stream.ended or self._handed_over:
            return
        stream.end()
        self._tell()
        loop = asyncio.get_running_loop()
        loop.call_later(_STAYS_S + 2 * self._policy.window / 1e9, self.streams.pop, stream.id, None)

    # For who keeps seats over the gateway's own absence

    def follow(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change

    def kept(self, cid: str, user_id: str) -> Json | None:
        stream = self._going_on(cid, user_id)
        left = stream.kept if stream is not None else None
        return left.to_json() if left is not None else None

    def resume(self, seat: KeptSeat, away: int) -> None:
        """Its stream is there again, under its addresses: who asks for more of it waits for the encoder."""
        stored, full = seat.outputs.get(self.name), len(self.streams) >= _MOST_STREAMS
        if stored is None or full or not self._is_wanted(seat.call_cid) or self._going_on(*seat.key) is not None:
            return
        try:
            left = KeptStream.of(stored).after(away)
        except ValueError as error:
            event(
                log, logging.WARNING, f"HLS begins anew: what was kept of it {error}", session=seat.session, call=seat.call_cid
            )
            return
        self.streams[left.id] = HlsStream(left.id, seat, self._policy, self.totals, self.archive, self._tell, left)

    def give_up(self, cid: str, user_id: str) -> None:
        stream = self._going_on(cid, user_id)
        if stream is not None and cid not in self._wanted:
            self._end(stream)

    def hand_over(self) -> None:
        self._handed_over = True
        for stream in self.streams.values():
            stream.leave_off()

    # For metrics

    def counters(self) -> Iterator[MetricFamily]:
        yield from self.totals.families(self.archive.results if self.archive is not None else {})
        now = monotonic_ns()
        live = [stream for stream in self.streams.values() if not stream.ended]
        changes = [rendition.last_change for stream in live for rendition in stream.renditions.values()]
        held = sum(rendition.held for stream in self.streams.values() for rendition in stream.renditions.values())
        yield MetricFamily("streams", "Participants broadcast as HLS", {(): len(live)}, total=False)
        meaning = "Time since a playlist changed, of the one for which that is longest"
        yield MetricFamily("playlist_age_seconds", meaning, {(): (now - min(changes, default=now)) / 1e9}, total=False)
        yield MetricFamily("held_bytes", "Memory that segments take", {(): held}, total=False)

    def delays(self) -> Iterator[DelayFamily]:
        yield DelayFamily("latency", _LATENCY, self.totals.latency)
