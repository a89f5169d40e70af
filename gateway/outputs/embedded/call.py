"""The embedded call: this gateway is the call, and its viewers watch by WHEP.

Each user who publishes is one participant with at most one video, in one layer or several, and one audio; every viewer is shown every
participant. A participant's sources live as long as the participant, so that an encoder's reconnect is a pause for viewers and no more.
What the call accepts is what all its viewers take (`codec_negotiation.py`); the participants are told when that changes.
"""

import asyncio
from collections.abc import Callable
from time import monotonic_ns, time_ns
from typing import Final

from gateway.outputs.embedded.codec_negotiation import CARRIES, CodecNegotiation
from gateway.sessions.capacity import Demand
from gateway.sessions.output import Feedback, OnChange, SeatView, Want
from protocols.errors import Reason, Rejected
from protocols.media import Codec, EncodedPacket, Kind, Track
from protocols.whep.fanout import CallFanout, CallViewer, ShownSource
from protocols.whep.local_fanout import LocalCall

PATIENCE_S = 30.0


class PublishedTrack:
    """One track (a layer of the video, or the sound) of one participant; a `Sink`."""

    def __init__(self, participant: "Participant", track: Track, feedback: Feedback) -> None:
        self._participant = participant
        self.source = participant.source(track, feedback)

    @property
    def track(self) -> Track:
        return self.source.track

    def push(self, packet: EncodedPacket) -> None:
        self.source.push(packet, monotonic_ns())

    def update(self, track: Track) -> None:
        if track != self.source.track:
            self.source.track = track
            self._participant.changed()

    def close(self) -> None:
        self._participant.unpublish(self)


class Participant:
    """One user in the call, and the sources that viewers of this participant are attached to; an `Output`."""

    name: Final = "call"
    essential: Final = True
    overhead: Final = Demand()

    def __init__(self, call: "EmbeddedCall", seat: SeatView, on_change: OnChange) -> None:
        self.user_id = seat.user_id
        self.published: dict[tuple[Kind, str], PublishedTrack] = {}
        """By kind and layer."""
        self.on_change = on_change
        self._call = call
        self._seat = seat
        self._epoch = time_ns() - monotonic_ns()  # taken once: setting the system's clock must move no lips

    @property
    def sources(self) -> dict[Kind, tuple[ShownSource, ...]]:
        """Of each kind the layers, the largest first."""
        by_kind: dict[Kind, tuple[ShownSource, ...]] = {}
        for kind in Kind:
            sources = [published.source for published in self.published.values() if published.track.kind is kind]
            if sources:
                by_kind[kind] = tuple(sorted(sources, key=lambda source: -source.track.width * source.track.height))
        return by_kind

    @property
    def muted(self) -> frozenset[Kind]:
        return self._seat.muted

    def wants(self, track: Track) -> Want:
        accepts = self._call.accepts
        return Want(accepts, accepts, carries=CARRIES, idle=self._call.idle)

    def publish(self, track: Track, feedback: Feedback) -> PublishedTrack:
        published = self.published[track.kind, track.layer] = PublishedTrack(self, track, feedback)
        self.changed()
        return published

    def source(self, track: Track, feedback: Feedback) -> ShownSource:
        return self._call.fanout.publish(self.user_id, track, self.clock, feedback)

    def refused(self, refusal: Rejected) -> None:
        """Not asked of what is essential: the stream ends."""

    def changed(self) -> None:
        self._call.show(self)

    def clock(self, now: int) -> tuple[int, int]:
        """For sender reports: wall clock and media time at monotonic `now`, all in ns."""
        return now + self._epoch, self._seat.media_now(now)

    def unpublish(self, published: PublishedTrack) -> None:
        key = published.track.kind, published.track.layer
        if self.published.get(key) is published:
            del self.published[key]
            self.changed()

    async def aclose(self) -> None:
        self._call.remove(self)


class EmbeddedCall:
    """The participants and viewers of one call; the `Destination` of its seats."""

    def __init__(
        self,
        cid: str,
        *,
        max_participants: int,
        on_empty: Callable[[str], None],
        patience_s: float = PATIENCE_S,
        fanout: CallFanout | None = None,
    ) -> None:
        """`fanout` serves the viewers (None: this process). `on_empty` is told when the last participant and viewer has gone. `patience_s`:
        from when the last viewer without a codec has gone until the codec is accepted again, and from when the last of all has gone until
        nothing is made for viewers any more."""
        self.cid = cid
        self.participants: dict[str, Participant] = {}
        self.viewers: set[CallViewer] = set()
        self.fanout: CallFanout = fanout if fanout is not None else LocalCall()
        self._max_participants = max_participants
        self._on_empty = on_empty
        self._negotiation = CodecNegotiation(int(patience_s * 1e9))
        self._patience = int(patience_s * 1e9)
        self._watched_until: int | None = 0  # monotonic ns; None: somebody watches
        self._known = CARRIES, True  # what is accepted, and whether the call is idle, as the participants know it
        self._timer: asyncio.TimerHandle | None = None

    @property
    def accepts(self) -> frozenset[Codec]:
        """The codecs that can be played by all who are there. They change as viewers come and go."""
        return self._negotiation.accepts(monotonic_ns())

    @property
    def idle(self) -> bool:
        """Nobody has watched for a while: what would have to be made anew for viewers need not be."""
        return self._watched_until is not None and monotonic_ns() >= self._watched_until

    def _negotiate(self) -> None:
        """Who is there has changed, or a while has passed: what does the call accept now, and for whom?"""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = monotonic_ns()
        # One that has to go because its right was taken away as it came does not count, and one without a picture takes all.
        self._negotiation.see([viewer.takes for viewer in self.viewers if not viewer.leaving], now)
        if self.viewers:
            self._watched_until = None
        elif self._watched_until is None:
            self._watched_until = now + self._patience
        dues = [due for due in (self._negotiation.due(now), self._watched_until) if due is not None and due > now]
        if dues and self.participants:
            self._timer = asyncio.get_running_loop().call_later((min(dues) - now) / 1e9, self._negotiate)
        known = self._negotiation.accepts(now), self.idle
        if known != self._known:
            self._known = known
            for participant in list(self.participants.values()):
                participant.on_change()

    @property
    def empty(self) -> bool:
        return not self.participants and not self.viewers

    async def join(self, seat: SeatView, on_change: OnChange) -> Participant:
        """The participant of a user who is not in the call yet (a seat is one user's only one)."""
        if len(self.participants) >= self._max_participants:
            raise Rejected(Reason.OVERLOADED, f"the call has its {self._max_participants} participants already")
        participant = self.participants[seat.user_id] = Participant(self, seat, on_change)
        if participant.muted:
            self.show(participant)  # there may be no track to be shown with
        self._negotiate()
        return participant

    def show(self, participant: Participant) -> None:
        """The participant's sources have changed: every viewer is attached to what there is now."""
        self.fanout.show(participant.user_id, participant.sources, participant.muted)

    def remove(self, participant: Participant) -> None:
        del self.participants[participant.user_id]
        self.fanout.hide(participant.user_id)
        self._negotiate()
        self._release()

    def _release(self) -> None:
        if self.empty:
            self._on_empty(self.cid)

    def add_viewer(self, viewer: CallViewer) -> None:
        self.viewers.add(viewer)
        self.fanout.add(viewer)
        self._negotiate()

    def remove_viewer(self, viewer: CallViewer) -> None:
        self.viewers.discard(viewer)
        self.fanout.remove(viewer)
        self._negotiate()
        self._release()
