"""The contract of whatever takes a participant's media: the embedded call, HLS, and what comes beside them. Plain data and protocols.

A seat joins each of its destinations once and gets an `Output`, which stays through the encoder's reconnects. For each track an output says
what it wants (`Want`); for each track that comes of that, one for each kind and layer, it is given the packets through a `Sink` of its own.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.model.kept import KeptSeat
from gateway.model.records import Json
from gateway.sessions.capacity import Demand
from gateway.telemetry.latency import Histogram
from protocols.errors import Rejected
from protocols.media import EncodedPacket, Kind, Track
from protocols.metric import MetricFamily
from transcode.host.fragments import Done
from transcode.plan import Want

__all__ = [
    "CountedDestination",
    "DelayFamily",
    "Destination",
    "Feedback",
    "Muxer",
    "OnChange",
    "Output",
    "ResumableDestination",
    "SeatView",
    "Sink",
    "Want",
]

OnChange = Callable[[], None]
"""An output wants something else than before; must not block or raise."""


class Feedback(Protocol):
    """What an output says back of one track. Nothing here blocks or raises."""

    def keyframe(self) -> bool:
        """A key frame is needed; True if one will come."""

    def bitrate(self, bits_per_second: int) -> None:
        """So much of this track the output's own way carries from now on; heeded where an encoder of ours makes it."""

    def sent(self, packet: EncodedPacket, ready: int, sent: int) -> None:
        """Once a packet, where the output knows it: monotonic ns when its payloads were ready, and when the first receiver had them."""


class Sink(Protocol):
    """One track as an output takes it: the sound, or one layer of the video. Nothing here blocks or raises."""

    def push(self, packet: EncodedPacket) -> None:
        """The first packet of a video is a key frame. Times are the seat's media time, in ns."""

    def update(self, track: Track) -> None:
        """The same track has new facts (size, frame rate), but no other codec."""

    def close(self) -> None:
        """The track has ended; the participant may stay."""


class Output(Protocol):
    """What takes one participant's media."""

    @property
    def name(self) -> str:
        """Of its kind; a label of metrics, and how the log calls it."""

    @property
    def essential(self) -> bool:
        """A stream ends where this cannot be served for good; others go without until there is room."""

    @property
    def overhead(self) -> Demand:
        """What it costs beside the forms that it wants, while it takes anything: nothing, or one `OutputCost` by its name."""

    def wants(self, track: Track) -> Want | None:
        """How it takes this track at this moment; None: not at all."""

    def publish(self, track: Track, feedback: Feedback) -> Sink:
        """A track starts, one at a time for each kind and layer."""

    def refused(self, refusal: Rejected) -> None:
        """There is no room for what it wants. It is asked again what it wants after a while."""

    async def aclose(self) -> None:
        """The participant leaves."""


class Muxer(Protocol):
    """Makes fragments of MP4 in a worker (`transcode.host.fragments.Fragments`); while there is no worker, none."""

    def make(
        self, track: Track, packets: Sequence[EncodedPacket], durations: Sequence[int], index: int, done: Done
    ) -> None: ...

    def then(self, done: Callable[[], None]) -> None: ...


class Streamed(Protocol):
    """Whose stream it is: a seat, or one that is awaited."""

    @property
    def call_cid(self) -> str: ...

    @property
    def user_id(self) -> str: ...

    @property
    def protocol(self) -> str: ...


class SeatView(Streamed, Protocol):
    """What an output may know of the seat that it serves."""

    @property
    def id(self) -> str: ...

    @property
    def muted(self) -> frozenset[Kind]:
        """What no output is given."""

    @property
    def reconnects(self) -> int:
        """How often another connection has gone on with it."""

    @property
    def muxer(self) -> Muxer: ...

    def cost_of(self, output: Output) -> Demand:
        """What this output costs by what it wants now, whether there is room or not."""

    def media_now(self, now: int) -> int:
        """The media time in ns that is live at monotonic `now`: it runs on between connections. Sender reports follow it."""


class Destination(Protocol):
    """Where participants' media can go."""

    async def join(self, seat: SeatView, on_change: OnChange) -> Output:
        """Raises `Rejected` where it does not take this participant."""


@dataclass(frozen=True, slots=True)
class DelayFamily:
    """A delay that an output measures, by the protocol that its media came by; shown as quantiles of the last minute."""

    name: str  # without the output's, and without `_seconds`
    meaning: str
    by_protocol: Mapping[str, Histogram]


class CountedDestination(Destination, Protocol):
    """One that stands beside the call. What it says of itself is all that metrics know of it; it is read at any time."""

    @property
    def name(self) -> str:
        """What its metrics begin with."""

    def counters(self) -> Iterable[MetricFamily]: ...

    def delays(self) -> Iterable[DelayFamily]: ...


class ResumableDestination(Protocol):
    """One whose part of a seat goes on where the seat does after its gateway has gone. Nothing here blocks or raises."""

    @property
    def name(self) -> str:
        """Under which its part is kept."""

    def follow(self, on_change: Callable[[], None]) -> None:
        """`on_change`: what it would have kept of some seat is another, and no small matter."""

    def kept(self, cid: str, user_id: str) -> Json | None:
        """What it goes on with for this user's seat, as JSON of some kB at most; None: nothing."""

    def resume(self, seat: KeptSeat, away: int) -> None:
        """The encoder of this seat is awaited, which nobody has had for `away` ns. What was kept may be of another version."""

    def give_up(self, cid: str, user_id: str) -> None:
        """It has not come."""

    def hand_over(self) -> None:
        """All seats leave from here on because another process is to go on with them: nothing ends by that."""
