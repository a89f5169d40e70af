"""How much CPU streams of each kind cost here, learned from those that are live, and whether another one fits. Sans-IO.

Kept true: only what this gateway's own streams have cost is held against its cores, never how busy the machine is; a stream
that is alone is always let in; one that is live is never ended for it (its transcoding gets cheaper instead, see
`transcode/adaptation.py`). Passing through costs the event loop, which is one thread and has one core; transcoding costs the
workers, which have all of them: so what passes still fits when what must be transcoded does not.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import NamedTuple

from protocols.errors import Reason, Rejected
from protocols.media import Codec
from transcode.plan import Decision, Passthrough, Transcode, VideoTarget, cores, spare_cores

SETTLING_NS = 10_000_000_000  # a stream younger than this is reckoned with at least what its kind costs
_WINDOW_NS = 10_000_000_000  # over which CPU is measured
_PART = 0.2  # of what is learned that comes from the newest measurement
_RATIOS = (0.2, 5.0)  # a measurement further from what was thought is of something else: a broken stream, a suspended machine


class CostKind(StrEnum):
    """Kinds of cost beside outputs, each of which is a kind by its own name. They are few: they are a metric's label."""

    STREAM = "stream"  # receiving, pacing, packetizing and the usual viewer: on the event loop
    AUDIO = "audio"
    VIDEO_360P = "video_360p"
    VIDEO_540P = "video_540p"
    VIDEO_720P = "video_720p"
    VIDEO_1080P = "video_1080p"
    VIDEO_LARGER = "video_larger"


_SIZES = (  # pixels up to
    (640 * 360, CostKind.VIDEO_360P),
    (960 * 540, CostKind.VIDEO_540P),
    (1280 * 720, CostKind.VIDEO_720P),
    (1920 * 1080, CostKind.VIDEO_1080P),
)
_VIDEO = frozenset(kind for kind in CostKind if kind.value.startswith("video"))
_SHOWN_RATE = 30.0  # frames a second for which the cost of a kind of video is shown
_BEFORE: Mapping[str, float] = {  # cores, until something has been measured; of video: in parts of `transcode.plan.cores`
    CostKind.STREAM: 0.02,
    CostKind.AUDIO: 0.02,
    **dict.fromkeys(sorted(_VIDEO), 1.0),
}
_OUTPUT_BEFORE = 0.03  # the same of an output


class VideoCost(NamedTuple):
    """A picture to be made anew, in pixels; as `transcode.plan.cores` takes it."""

    width: int
    height: int
    frame_rate: float  # a second; 0: unknown
    layers: int = 1
    codec: Codec = Codec.H264


class OutputCost(NamedTuple):
    """What an output costs beside the sound and the picture that are made for it, such as muxing; learned by its name."""

    name: str
    words: str  # what a refusal calls it


@dataclass(frozen=True, slots=True)
class Demand:
    """What has to be made anew for a stream: `audio` tracks and each `video`; or for outputs of it, which are reckoned beside it."""

    audio: int = 0
    video: tuple[VideoCost, ...] = ()
    outputs: tuple[OutputCost, ...] = ()

    def plus(self, other: "Demand") -> "Demand":
        return Demand(self.audio + other.audio, self.video + other.video, self.outputs + other.outputs)

    @property
    def transcodes(self) -> bool:
        return bool(self.audio or self.video)


def demand(decisions: Iterable[Decision]) -> Demand:
    """Of all tracks of one stream."""
    targets = [decision.target for decision in decisions if isinstance(decision, Transcode)]
    video = tuple(video_of(target) for target in targets if isinstance(target, VideoTarget))
    return Demand(len(targets) - len(video), video)


def video_of(target: VideoTarget) -> VideoCost:
    return VideoCost(target.width, target.height, target.frame_rate, target.layers, target.codec)


def spare(decisions: Iterable[Decision]) -> float:
    """About how many cores are for layers that may be left out, whether they are or not."""
    found = 0.0
    for decision in decisions:
        match decision:
            case Passthrough(below=VideoTarget() as target) | Transcode(target=VideoTarget() as target):
                found += spare_cores(target)
    return found


def kind_of_video(width: int, height: int) -> CostKind:
    pixels = width * height or 1280 * 720
    return next((kind for most, kind in _SIZES if pixels <= most), CostKind.VIDEO_LARGER)


@dataclass(frozen=True, slots=True)
class Seen:
    """One live stream at the moment of a measurement."""

    demand: Demand
    worker_cpu_ns: int  # since its encoder connected; 0 where nothing is transcoded
    economised: bool = False  # it gets less CPU than it was planned with: its cost says nothing of its kind
    spare: float = 0.0  # cores of its demand that are for layers which may be left out, whether they are or not
    optional: bool = False  # no stream, but what one can do without


@dataclass(slots=True)
class _StreamCost:
    since: int
    seen: Seen
    readings: list[tuple[int, int]] = field(default_factory=list)  # (now, worker CPU), those of the window

    def read(self, seen: Seen, now: int) -> None:
        again = bool(self.readings) and seen.worker_cpu_ns < self.readings[-1][1]
        if again or seen.demand != self.seen.demand:  # another worker, or other work: what it cost before counts no more
            self.since = now
            self.readings.clear()
        self.seen = seen
        self.readings.append((now, seen.worker_cpu_ns))
        while now - self.readings[0][0] > _WINDOW_NS:
            del self.readings[0]

    def settled(self, now: int) -> bool:
        return now - self.since >= SETTLING_NS and len(self.readings) > 2

    @property
    def rate(self) -> float:
        return _rate(self.readings)


class Capacity:
    """The reckoning: `sample` every second or so with what is live, `admit` for each stream whose tracks are known."""

    def __init__(self, cores: float, reserve: float, enforced: bool = True) -> None:
        """`cores` that the process may use at all, of which the part `reserve` is kept free."""
        self.budget = cores * (1 - reserve)
        self.loop_budget = min(cores, 1.0) * (1 - reserve)
        self._enforced = enforced
        self._learned: dict[str, float] = dict(_BEFORE)
        self._streams: dict[str, _StreamCost] = {}
        self._loop: list[tuple[int, int]] = []
        self._process: list[tuple[int, int]] = []
        self._present: frozenset[str] = frozenset()
        self._changed = self._now = 0

    def sample(self, now: int, *, loop_cpu_ns: int, process_cpu_ns: int, streams: Mapping[str, Seen], viewers: int) -> None:
        """What is live `now` (monotonic ns), and what the event loop's thread and this process have used since their starts."""
        self._now = now
        for readings, value in ((self._loop, loop_cpu_ns), (self._process, process_cpu_ns)):
            readings.append((now, value))
            while now - readings[0][0] > _WINDOW_NS:
                del readings[0]
        present = frozenset(name for name, seen in streams.items() if not seen.optional)
        if present != self._present:
            self._present, self._changed = present, now
        for gone in self._streams.keys() - streams.keys():
            del self._streams[gone]
        for name, seen in streams.items():
            stream = self._streams.setdefault(name, _StreamCost(now, seen))
            stream.read(seen, now)
            if stream.settled(now) and not seen.economised:
                self._learn_worker(seen.demand, stream.rate)
        # With more viewers than streams it would be theirs.
        if now - self._changed > _WINDOW_NS and 0 < len(present) >= viewers:
            self._learn(CostKind.STREAM, _rate(self._loop) / len(present))

    def _learn_worker(self, demand: Demand, rate: float) -> None:
        """What a worker used: all for its sound, or the rest beside it for its one picture or output (of several nobody knows which)."""
        sound = demand.audio * self._learned[CostKind.AUDIO]
        if demand.outputs:
            if len(demand.outputs) == 1 and not demand.video:
                self._learn(demand.outputs[0].name, rate - sound)
        elif not demand.video and demand.audio:
            self._learn(CostKind.AUDIO, rate / demand.audio)
        elif len(demand.video) == 1:
            (video,) = demand.video
            self._learn(kind_of_video(video.width, video.height), (rate - sound) / cores(*video))

    def _learn(self, kind: str, measured: float) -> None:
        least, most = (part * _BEFORE.get(kind, _OUTPUT_BEFORE) for part in _RATIOS)
        self._learned[kind] += _PART * (min(max(measured, least), most) - self._learned[kind])

    def admit(self, name: str, wanted: Demand, spare: float = 0.0) -> None:
        """Let a stream in whose tracks are known, of which layers worth `spare` cores may be left out; raises `Rejected` with the figures
        where it does not fit."""
        self.admit_any(name)
        cost, free = self._fits(name, wanted)
        if (
            cost > free
            and wanted.transcodes
            and any(each.seen.demand.transcodes for each in self._others(name) if not each.seen.optional)
        ):
            raise Rejected(
                Reason.OVERLOADED,
                f"the gateway is overloaded: transcoding this stream takes about {cost:.2f} of a CPU core, and {free:.2f} of "
                f"{self.budget:.1f} are free. Send H.264 without B-frames and Opus or AAC sound, which need less, or try again later",
            )
        self._streams[name] = _StreamCost(self._now, Seen(wanted, 0, spare=spare))

    def admit_optional(self, name: str, wanted: Demand) -> None:
        """The same for what a stream can do without, such as its HLS, which has a `name` of its own. Where layers of others could make room
        it does not take it."""
        self.check_optional(name, wanted)
        for output in wanted.outputs:
            self._learned.setdefault(output.name, _OUTPUT_BEFORE)
        self._streams[name] = _StreamCost(self._now, Seen(wanted, 0, optional=True))

    def check_optional(self, name: str, wanted: Demand) -> None:
        """Whether `admit_optional` would let it in; raises `Rejected`."""
        cost, free = self._fits(name, wanted, with_spare=False)
        if cost > free:
            what = " with ".join(dict.fromkeys(output.words for output in wanted.outputs)) or "this"
            raise Rejected(
                Reason.OVERLOADED,
                f"the gateway is overloaded: {what} takes about {cost:.2f} of a CPU core here, and {free:.2f} of {self.budget:.1f} are "
                "free. Try again later or on another node",
            )

    def _fits(self, name: str, wanted: Demand, *, with_spare: bool = True) -> tuple[float, float]:
        """Cores that it costs, and those that are free for it (endless where nothing is refused)."""
        own = self._streams.get(name)  # an encoder that comes back
        free = self.budget - self.used + (self._reckoned(own) if own else 0.0)
        free += sum(stream.seen.spare for stream in self._others(name)) if with_spare else 0.0
        return self.cost(wanted), max(free, 0.0) if self._enforced else inf

    def admit_any(self, name: str = "") -> None:
        """Whether any stream fits, whatever its tracks; raises `Rejected`."""
        loop, cost = self.loop_used, self._learned[CostKind.STREAM]
        alone = not any(not stream.seen.optional for stream in self._others(name))
        if self._enforced and not alone and loop + cost > self.loop_budget:
            raise Rejected(
                Reason.OVERLOADED,
                f"the gateway is overloaded: its streams and viewers use {loop:.2f} of a CPU core, and {self.loop_budget:.2f} is what they "
                "may have: try again later or on another node",
            )

    def _others(self, name: str) -> Iterator[_StreamCost]:
        return (stream for other, stream in self._streams.items() if other != name)

    def cost(self, wanted: Demand) -> float:
        """Cores that the workers of such a stream need."""
        video = sum(self._learned[kind_of_video(each.width, each.height)] * cores(*each) for each in wanted.video)
        outputs = sum(self._learned.get(each.name, _OUTPUT_BEFORE) for each in wanted.outputs)
        return wanted.audio * self._learned[CostKind.AUDIO] + outputs + video

    @property
    def loop_used(self) -> float:
        """Cores of the event loop's thread, with what streams will cost that have just come."""
        young = sum(not stream.seen.optional and not stream.settled(self._now) for stream in self._streams.values())
        return _rate(self._loop) + young * self._learned[CostKind.STREAM]

    @property
    def workers_used(self) -> float:
        """Cores of the workers; of streams that have just come, or get less than they should, at least what such streams cost."""
        return sum(map(self._reckoned, self._streams.values()))

    def _reckoned(self, stream: _StreamCost) -> float:
        if stream.seen.economised or not stream.settled(self._now):
            return max(stream.rate, self.cost(stream.seen.demand))
        return stream.rate

    @property
    def used(self) -> float:
        """Cores, all together."""
        beside = max(0.0, _rate(self._process) - _rate(self._loop))  # libsrt's threads
        return self.loop_used + beside + self.workers_used

    @property
    def strained(self) -> bool:
        """Whether more is used than may be, as measured: layers are to be left out, one after the other."""
        measured = _rate(self._process) + sum(stream.rate for stream in self._streams.values())
        return self._enforced and measured > self.budget

    @property
    def pressure(self) -> float:
        """Used of what may be used. The fuller one of the loop's core and of all cores counts."""
        return max(self.used / self.budget, self.loop_used / self.loop_budget)

    def costs(self) -> Iterator[tuple[str, float]]:
        """Kind and cores of one stream of it, of video at 30 frames a second; of an output once there was one."""
        sizes: dict[str, int] = {CostKind.VIDEO_LARGER: 2560 * 1440, **{kind: pixels for pixels, kind in _SIZES}}
        for kind, learned in self._learned.items():
            yield str(kind), learned * cores(sizes[kind], 1, _SHOWN_RATE) if kind in sizes else learned


def _rate(readings: list[tuple[int, int]]) -> float:
    """Cores: CPU time over time, from the first to the last reading."""
    if len(readings) < 2 or readings[-1][0] == readings[0][0]:
        return 0.0
    return max(0.0, (readings[-1][1] - readings[0][1]) / (readings[-1][0] - readings[0][0]))
