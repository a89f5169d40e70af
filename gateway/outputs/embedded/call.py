"""The embedded call: this gateway is the call, and its viewers watch by WHEP.

Each user who publishes is one participant with at most one video, in one layer or several, and one audio; every viewer is shown every
participant. A participant's sources live as long as the participant, so that an encoder's reconnect is a pause for viewers and no more.
What the call accepts is what all its viewers take (`codec_negotiation.py`); the participants are told when that changes.
"""

import asyncio
from collections.abc import Callable
from time import monotonic_ns, time_ns

from gateway.outputs.embedded.codec_negotiation import CARRIES, CodecNegotiation
from gateway.sessions.output import Sent
from protocols.errors import Reason, Rejected
from protocols.media import Codec, EncodedPacket, Kind, Track
from protocols.webrtc.send.source import Source, call_at_on
from protocols.whep.viewer import Viewer

PATIENCE_S = 30.0


class EmbeddedPublication:
    """One track (a layer of the video, or the sound) of one participant: its source, and who feeds it just now."""

    def __init__(self, participant: "Participant", track: Track) -> None:
        self._participant = participant
        self._request_keyframe: Callable[[], bool] = lambda: False
        self._on_sent: Sent = lambda packet, ready, sent: None
        self._broken = False  # packets were left out: what follows is of no use until the next key frame
        self.source = Source(
            track,
            participant.clock,
            call_at_on(asyncio.get_running_loop()),
            keyframe_wanted=lambda: self._request_keyframe(),
            on_sent=lambda packet, ready, sent: self._on_sent(packet, ready, sent),
        )

    def feed(self, track: Track, request_keyframe: Callable[[], bool], on_sent: Sent) -> None:
        """From here on somebody else publishes the track: an encoder that came back."""
        self._request_keyframe, self._on_sent = request_keyframe, on_sent
        self.update(track)

    def push(self, packet: EncodedPacket) -> None:
        if self.track.kind in self._participant.muted:
            self._broken = self.track.kind is Kind.VIDEO
        elif not self._broken or packet.keyframe:
            self._broken = False
            self.source.push(packet, monotonic_ns())

    def unmuted(self) -> None:
        if self._broken:
            self._request_keyframe()

    def update(self, track: Track) -> None:
        self.source.track = track
        self._participant.changed()

    @property
    def track(self) -> Track:
        return self.source.track

    def close(self) -> None:
        self._participant.unpublish(self)


class Participant:
    """One user in the call, and the sources that viewers of this participant are attached to."""

    def __init__(self, call: "EmbeddedCall", user_id: str) -> None:
        self.user_id = user_id
        self.publications: dict[tuple[Kind, str], EmbeddedPublication] = {}
        """By kind and layer."""
        self.muted: frozenset[Kind] = frozenset()
        """What nobody is given of it, by the word of who may mute: it outlasts the encoder's reconnects."""
        self.accepts_changed: Callable[[], None] = lambda: None
        self._call = call
        self._media_now: Callable[[int], int] = lambda now: now
        self._epoch = time_ns() - monotonic_ns()  # taken once: setting the system's clock must move no lips

    @property
    def sources(self) -> dict[Kind, tuple[Source, ...]]:
        """Of each kind the layers, the largest first."""
        by_kind: dict[Kind, tuple[Source, ...]] = {}
        for kind in Kind:
            sources = [publication.source for publication in self.publications.values() if publication.track.kind is kind]
            if sources:
                by_kind[kind] = tuple(sorted(sources, key=lambda source: -source.track.width * source.track.height))
        return by_kind

    @property
    def viewers(self) -> int:
        return len(self._call.viewers)

    @property
    def accepts(self) -> frozenset[Codec]:
        return self._call.accepts

    @property
    def carries(self) -> frozenset[Codec]:
        return self._call.carries

    def on_accepts(self, changed: Callable[[], None]) -> None:
        self.accepts_changed = changed

    def mute(self, kinds: frozenset[Kind]) -> None:
        self.muted |= kinds

    def unmute(self, kinds: frozenset[Kind]) -> None:
        self.muted -= kinds
        for (kind, _), publication in self.publications.items():
            if kind in kinds:
                publication.unmuted()

    def publish(self, track: Track, request_keyframe: Callable[[], bool], on_sent: Sent) -> EmbeddedPublication:
        key = track.kind, track.layer
        publication = self.publications.get(key)
        if publication is None or publication.track.codec is not track.codec:
            publication = self.publications[key] = EmbeddedPublication(self, track)
        publication.feed(track, request_keyframe, on_sent)
        return publication

    def retain(self, kind: Kind, layers: frozenset[str]) -> None:
        for publication in [each for (of, layer), each in self.publications.items() if of is kind and layer not in layers]:
            publication.close()

    def changed(self) -> None:
        self._call.show(self)

    def clock(self, now: int) -> tuple[int, int]:
        """For sender reports: wall clock and media time at monotonic `now`, all in ns."""
        return now + self._epoch, self._media_now(now)

    def set_clock(self, media_now: Callable[[int], int]) -> None:
        self._media_now = media_now

    def unpublish(self, publication: EmbeddedPublication) -> None:
        key = publication.track.kind, publication.track.layer
        if self.publications.get(key) is publication:
            del self.publications[key]
            self.changed()

    async def leave(self) -> None:
        self._call.remove(self)


class EmbeddedCall:
    """The participants and viewers of one call."""

    def __init__(
        self, cid: str, *, max_participants: int, on_empty: Callable[[str], None], patience_s: float = PATIENCE_S
    ) -> None:
        """`on_empty` is told when the last participant and viewer has gone. `patience_s`: from when the last viewer without a codec has
        gone until the codec is accepted again."""
        self.cid = cid
        self.participants: dict[str, Participant] = {}
        self.viewers: set[Viewer] = set()
        self._max_participants = max_participants
        self._on_empty = on_empty
        self._negotiation = CodecNegotiation(int(patience_s * 1e9))
        self._told = CARRIES  # what the participants know of as accepted
        self._timer: asyncio.TimerHandle | None = None

    @property
    def accepts(self) -> frozenset[Codec]:
        return self._negotiation.accepts(monotonic_ns())

    @property
    def carries(self) -> frozenset[Codec]:
        return CARRIES

    def _reckon(self) -> None:
        """Who is there has changed, or a while has passed: what does the call accept now?"""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = monotonic_ns()
        # One that has to go because its right was taken away as it came does not count, and one without a picture takes all.
        self._negotiation.see([viewer.takes for viewer in self.viewers if not viewer.peer.why], now)
        due = self._negotiation.due(now)
        if due is not None and self.participants:
            self._timer = asyncio.get_running_loop().call_later((due - now) / 1e9, self._reckon)
        accepts = self._negotiation.accepts(now)
        if accepts != self._told:
            self._told = accepts
            for participant in list(self.participants.values()):
                participant.accepts_changed()

    @property
    def empty(self) -> bool:
        return not self.participants and not self.viewers

    async def join(self, user_id: str) -> Participant:
        """The participant of `user_id`, who is not in the call yet (a session is one user's only one)."""
        if len(self.participants) >= self._max_participants:
            raise Rejected(Reason.OVERLOADED, f"the call has its {self._max_participants} participants already")
        participant = self.participants[user_id] = Participant(self, user_id)
        self._reckon()
        return participant

    def show(self, participant: Participant) -> None:
        """The participant's sources have changed: every viewer is attached to what there is now."""
        for viewer in self.viewers:
            viewer.show(participant.user_id, participant.user_id, participant.sources)

    def remove(self, participant: Participant) -> None:
        del self.participants[participant.user_id]
        for viewer in self.viewers:
            viewer.hide(participant.user_id)
        self._reckon()
        self._release()

    def _release(self) -> None:
        if self.empty:
            self._on_empty(self.cid)

    def add_viewer(self, viewer: Viewer) -> None:
        self.viewers.add(viewer)
        for participant in self.participants.values():
            viewer.show(participant.user_id, participant.user_id, participant.sources)
        self._reckon()

    def remove_viewer(self, viewer: Viewer) -> None:
        self.viewers.discard(viewer)
        self._reckon()
        self._release()
