"""One call as it is shown by fan-out processes: what is published once goes to each process where somebody watches it, once.

Keeps true: a process knows of a call only while it has viewers of it; the first of them has the group of pictures so far; a process that
did not read in time goes on with the next key frame, and no other notices.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic_ns

from gateway.outputs.fanout import messages
from gateway.outputs.fanout.handle import FanoutProcess, RemoteViewer
from gateway.outputs.fanout.messages import FanoutMessage, PackedUnit, PushedUnit, Sent, ShownTracks
from protocols.media import EncodedPacket, Kind, Track
from protocols.webrtc.send.history import GROUP_BYTES, GROUP_NS
from protocols.webrtc.send.source import KEYFRAME_REQUEST_NS, SourceClock
from protocols.webrtc.send.target import UNBOUND
from protocols.whep.fanout import CallViewer, ShownSource, TrackFeedback
from transcode.group_cache import GroupCache
from transcode.messages import pack

_UNREPORTED = 32  # units


class SpreadSource:
    """One track of a call (`protocols.whep.fanout.ShownSource`), and its ends at the processes where it is watched."""

    def __init__(self, cid: str, participant: str, track: Track, clock: SourceClock, feedback: TrackFeedback) -> None:
        self.feedback = feedback
        self.bitrates: dict[FanoutProcess, int] = {}
        """bit/s that the ways of the viewers at each process carry."""
        self._cid = cid
        self._participant = participant
        self._track = track
        self._clock = clock
        self._group = GroupCache(GROUP_BYTES, GROUP_NS)
        self._ends: dict[FanoutProcess, SpreadEnd] = {}
        self._unreported: deque[EncodedPacket] = deque(maxlen=_UNREPORTED)
        self._told = UNBOUND

    @property
    def track(self) -> Track:
        return self._track

    @track.setter
    def track(self, track: Track) -> None:
        self._track = track
        for process, end in self._ends.items():
            process.send(messages.pack_track(end.number, track))

    def push(self, packet: EncodedPacket, now: int) -> None:
        if self._track.kind is Kind.VIDEO:
            self._group.add(packet)
        if not self._ends:
            return
        self._unreported.append(packet)
        unit = self._unit(packet, now, now)
        for end in self._ends.values():
            end.push(unit, packet.keyframe, now)

    def open(self, process: FanoutProcess) -> int:
        """Its number there; who begins has the group of pictures so far."""
        end = self._ends.get(process)
        if end is None:
            end = self._ends[process] = SpreadEnd(self, process)
            process.send(messages.pack_source(end.number, self._cid, self._participant, self._track))
            now = monotonic_ns()
            for packet in self._group.packets:
                end.push(self._unit(packet, packet.arrival, now, cached=True), packet.keyframe, now)
        return end.number

    def close(self, process: FanoutProcess) -> None:
        """Nobody watches it there any more."""
        end = self._ends.pop(process, None)
        if end is not None:
            process.close(end.number)
            self.bitrates.pop(process, None)
            self.tell_bitrate()

    def end(self) -> None:
        """Nobody does anywhere."""
        for process in list(self._ends):
            self.close(process)

    def tell_bitrate(self, *, again: bool = False) -> None:
        """The narrowest way decides, as within a process."""
        target = min(self.bitrates.values(), default=UNBOUND)
        if target != self._told or again:
            self._told = target
            self.feedback.bitrate(target)

    def sent(self, sent: Sent) -> None:
        """Where the first viewer is, that process is the first to say so."""
        for packet in self._unreported:
            if packet.pts == sent.pts:
                self._unreported.remove(packet)
                self.feedback.sent(packet, sent.ready, sent.sent)
                return

    def _unit(self, packet: EncodedPacket, pushed: int, now: int, *, cached: bool = False) -> PackedUnit | None:
        wall, media = self._clock(now)
        return messages.pack_unit(PushedUnit(packet, pushed, wall - now, media - now, cached))


class SpreadEnd:
    """A source at one process (`gateway.outputs.fanout.handle.SourceEnd`)."""

    def __init__(self, source: SpreadSource, process: FanoutProcess) -> None:
        self.number = process.open(self)
        self._source = source
        self._process = process
        self._behind = False  # it did not read in time: it goes on with a key frame
        self._asked_at = 0

    def push(self, unit: PackedUnit | None, keyframe: bool, now: int) -> None:
        if self._behind and not keyframe:
            self._process.pipe.left_out += 1
            if self._process.pipe.reads(now) and now - self._asked_at >= KEYFRAME_REQUEST_NS:
                self._asked_at = now
                self._source.feedback.keyframe()
            return
        self._behind = not self._process.pipe.push(self.number, unit, now) and self._source.track.kind is Kind.VIDEO

    def keyframe_wanted(self) -> None:
        comes = bool(self._source.feedback.keyframe())
        self._process.send(pack(FanoutMessage.KEYFRAMES, self.number, body=bytes((comes,))))

    def bitrate(self, bits_per_second: int) -> None:
        self._source.bitrates[self._process] = bits_per_second
        self._source.tell_bitrate(again=bits_per_second != UNBOUND)

    def sent(self, sent: Sent) -> None:
        self._source.sent(sent)


@dataclass(frozen=True, slots=True)
class _Participant:
    sources: Mapping[Kind, Sequence[SpreadSource]]
    muted: frozenset[Kind]

    @property
    def all(self) -> set[SpreadSource]:
        return {source for layers in self.sources.values() for source in layers}


_NOBODY = _Participant({}, frozenset())


class SpreadCall:
    """One call (`protocols.whep.fanout.CallFanout`)."""

    def __init__(self, cid: str) -> None:
        self._cid = cid
        self._participants: dict[str, _Participant] = {}
        self._viewers: dict[FanoutProcess, set[RemoteViewer]] = {}

    def publish(self, participant: str, track: Track, clock: SourceClock, feedback: TrackFeedback) -> SpreadSource:
        return SpreadSource(self._cid, participant, track, clock, feedback)

    def show(self, participant: str, sources: Mapping[Kind, Sequence[ShownSource]], muted: frozenset[Kind]) -> None:
        own = {kind: tuple(each for each in layers if isinstance(each, SpreadSource)) for kind, layers in sources.items()}
        former = self._participants.get(participant, _NOBODY)
        shown = self._participants[participant] = _Participant(own, muted)
        for process in self._viewers:
            self._show(process, participant, shown)
        for source in former.all - shown.all:
            source.end()

    def hide(self, participant: str) -> None:
        former = self._participants.pop(participant, _NOBODY)
        for process in self._viewers:
            process.send(messages.pack_hide(self._cid, participant))
        for source in former.all:
            source.end()

    def add(self, viewer: CallViewer) -> None:
        assert isinstance(viewer, RemoteViewer)
        process = viewer.process
        if process not in self._viewers:
            self._viewers[process] = set()
            for participant, shown in self._participants.items():
                self._show(process, participant, shown)
        self._viewers[process].add(viewer)
        process.send(messages.text(FanoutMessage.ENTER, viewer.number, self._cid))

    def remove(self, viewer: CallViewer) -> None:
        assert isinstance(viewer, RemoteViewer)
        process = viewer.process
        there = self._viewers.get(process, set())
        there.discard(viewer)
        if not there and self._viewers.pop(process, None) is not None:
            for participant, shown in self._participants.items():
                process.send(messages.pack_hide(self._cid, participant))
                for source in shown.all:
                    source.close(process)

    def _show(self, process: FanoutProcess, participant: str, shown: _Participant) -> None:
        numbers = {kind: [source.open(process) for source in layers] for kind, layers in shown.sources.items()}
        process.send(messages.pack_show(ShownTracks(self._cid, participant, numbers, shown.muted)))
