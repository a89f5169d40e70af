"""The outputs of one seat, and the sinks that they have given for its tracks.

Kept true: a sink is given packets from a key frame on, and belongs to its output, kind and layer for as long as the codec stays: another
encoder's track, or another stage's, goes on in the sink that is there. While nothing comes of the encoder another may stand in for it
(`slate.py`): what a sink is given then goes on in time, and the feeder has its place back with a key frame. What an encoder has gathered
meanwhile comes late, and ever less: to a receiver it comes when it is due, since it would wait for all that follows as long as for that.
Nothing here knows what a stage does.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from time import monotonic_ns
from typing import Protocol

from gateway.sessions.output import Destination, OnChange, Output, SeatView, Sink
from protocols.media import EncodedPacket, Kind, Track

RouteKey = tuple[str, Kind, str]
"""Output, kind and layer."""
_LATE = 50_000_000  # ns by which what follows others may be later than they were
_CATCH_UP = 2_000_000_000  # ns after them, in which what is later has been gathered; then it is the stream's own way
_STEP = 1_000_000  # ns; the smallest step between two packets that any output's clock can tell apart


class Feeder(Protocol):
    """Whose packets go to a route just now; what the output says back goes to it."""

    @property
    def pushed(self) -> int:
        """When it last gave a packet, in monotonic ns."""

    def keyframe(self, layer: str) -> bool: ...

    def bitrate(self) -> None:
        """A route of it carries another bitrate than before (`TrackRoute.carries`)."""

    def sent(self, packet: EncodedPacket, ready: int, sent: int) -> None: ...


class StandIn(Protocol):
    """Who gives a route its packets while nothing comes of its feeder."""

    def keyframe(self, route: "TrackRoute") -> bool:
        """As `Feedback.keyframe`."""

    def gives_way(self, route: "TrackRoute", packet: EncodedPacket) -> bool:
        """The feeder has this for it: True, after `uncover`, if the route is the feeder's again from this packet on."""


class TrackRoute:
    """From a feeder to one sink of one output; the sink's `Feedback`."""

    def __init__(self, output: Output, track: Track, feeder: Feeder, on_begun: "Callable[[TrackRoute], None] | None") -> None:
        """`on_begun`: its sink is made with the first packet that it can be given, and this is told then; None: it is made at once."""
        self.key: RouteKey = output.name, track.kind, track.layer
        self.track = track
        """As the feeder has it."""
        self.feeder: Feeder | None = feeder  # before the sink is made, which may ask for a key frame at once
        self.carries = 0
        """bit/s that the output's own way carries; 0: it has not said."""
        self.waits = track.kind is Kind.VIDEO
        """For a key frame, with which its sink begins, and goes on after others were shown."""
        self.last: int | None = None
        """dts of the newest packet that the sink was given, and"""
        self.last_at = 0
        """when, in monotonic ns."""
        self.newest_key: EncodedPacket | None = None
        """Of the feeder's packets that the sink was given, the newest key frame."""
        self.closed = False
        self._output = output
        self._shown = track  # as the sink knows it
        self._on_begun = on_begun
        self._stand_in: StandIn | None = None
        self._follows = True  # it has not caught up yet with what was shown before, or might have been: what comes is later
        self._floor = 0  # dts of what others were shown last, and
        self._shown_at = 0  # when that was, in monotonic ns; 0: never since the feeder was
        self._sink: Sink | None = None
        if on_begun is None:
            self._sink = output.publish(track, self)

    @property
    def kind(self) -> Kind:
        return self.track.kind

    @property
    def begun(self) -> bool:
        """There is a sink."""
        return self._sink is not None

    @property
    def covered(self) -> bool:
        """Another stands in for the feeder."""
        return self._stand_in is not None

    @property
    def idle(self) -> bool:
        """Nobody is there for whom anything need be made."""
        want = self._output.wants(self.track)
        return want is None or want.idle

    def takes(self, track: Track) -> bool:
        """Whether the output takes this as it comes."""
        want = self._output.wants(track)
        return want is not None and track.codec in want.codecs

    def push(self, packet: EncodedPacket, feeder: Feeder) -> None:
        if feeder is not self.feeder:
            return  # another has taken over
        if self._stand_in is not None and not self._stand_in.gives_way(self, packet):
            return
        if self.waits:
            if not packet.keyframe:
                return
            self.waits = False
        if self._follows:
            due = self._due
            if packet.dts <= due and self.kind is Kind.AUDIO:
                return  # silence was heard in its place
            if packet.dts <= due:
                dts = due + _STEP
                packet = packet._replace(dts=dts, pts=max(packet.pts, dts))
            else:
                self._follows = False
        self.last, self.last_at = packet.dts, feeder.pushed
        if packet.keyframe and self.kind is Kind.VIDEO:
            self.newest_key = packet
        if self._sink is None:
            self._begin()
        assert self._sink is not None
        self._sink.push(packet)

    @property
    def _due(self) -> int:
        """dts of what follows others at the soonest: later than `last`, and hardly later than it would have been their turn."""
        last, passed = -_STEP if self.last is None else self.last, monotonic_ns() - self._shown_at
        return max(last, self._floor + passed - _LATE) if passed < _CATCH_UP else last

    def begin(self, feeder: Feeder, track: Track) -> None:
        """From here on `feeder` has the track, once nobody stands in for it any more."""
        self.feeder, self.track = feeder, track
        if not self.covered:
            self._show(track)

    def splice(self) -> None:
        """What comes from here on is another encoder's: it begins with a key frame, and is later than all that was shown."""
        self.waits, self._follows = self.kind is Kind.VIDEO, True

    def close(self) -> None:
        self.feeder = self._stand_in = None
        self.closed = True
        if self._sink is not None:
            self._sink.close()

    # While nothing comes of the feeder

    def cover(self, stand_in: StandIn) -> None:
        self._stand_in, self._shown_at = stand_in, 0

    def show(self, packet: EncodedPacket, track: Track) -> None:
        """What the stand-in has for it: its first picture is a key frame, and its times are later than `last`."""
        if track != self._shown:
            self._show(track)
        self.waits = track.kind is Kind.VIDEO
        self.last = self._floor = packet.dts
        self.last_at = self._shown_at = packet.arrival
        if self._sink is not None:
            self._sink.push(packet)

    def uncover(self) -> None:
        """The feeder has it again."""
        self._stand_in, self._follows = None, True
        if self.track != self._shown:
            self._show(self.track)

    def _show(self, track: Track) -> None:
        """The sink is given this from here on; for another codec it is another sink."""
        before, shown = self._sink, self._shown
        self._shown = track
        if before is not None and track.codec is shown.codec:
            before.update(track)
        elif before is not None:
            self.carries, self.waits = 0, track.kind is Kind.VIDEO
            self._sink = self._output.publish(track, self)
            before.close()  # after the other has begun: receivers go over from one to the other

    def _begin(self) -> None:
        self._shown = self.track
        self._sink = self._output.publish(self.track, self)
        if self._on_begun is not None:
            self._on_begun(self)

    # Feedback

    def keyframe(self) -> bool:
        if self._stand_in is not None:
            return self._stand_in.keyframe(self)
        return self.feeder is not None and self.feeder.keyframe(self.track.layer)

    def bitrate(self, bits_per_second: int) -> None:
        self.carries = bits_per_second
        if self.feeder is not None:
            self.feeder.bitrate()

    def sent(self, packet: EncodedPacket, ready: int, sent: int) -> None:
        if self.feeder is not None and not self.covered:
            self.feeder.sent(packet, ready, sent)


class Routes:
    """Of one seat, over all of its publishers."""

    def __init__(self) -> None:
        self.outputs: dict[str, Output] = {}
        """By name."""
        self.hold: int | None = None
        """ns after the live edge at which what goes here went out last; None: nothing has yet."""
        self._routes: dict[RouteKey, TrackRoute] = {}
        self._superseded: set[RouteKey] = set()
        """Routes that others stand in for, and that end when what takes their place has begun."""

    def __iter__(self) -> Iterator[TrackRoute]:
        return iter(tuple(self._routes.values()))

    def add(self, output: Output) -> None:
        self.outputs[output.name] = output

    def to(self, output: str, track: Track, feeder: Feeder) -> TrackRoute:
        """The route for this track of an output, fed by `feeder` from now on; another codec makes a new sink. Where others are shown just
        now in the output's tracks of this kind, a new one begins with its first packet."""
        key = output, track.kind, track.layer
        route = self._routes.get(key)
        self._superseded.discard(key)
        if route is None:
            instead = any(other.covered and other.key[:2] == key[:2] for other in self._routes.values())
            route = TrackRoute(self.outputs[output], track, feeder, self._begun if instead else None)
            self._routes[key] = route
        else:
            route.begin(feeder, track)
        return route

    def _begun(self, route: TrackRoute) -> None:
        for key in [key for key in self._superseded if key[:2] == route.key[:2]]:
            self._close(key)

    def _close(self, key: RouteKey) -> None:
        self._superseded.discard(key)
        self._routes.pop(key).close()

    def drop_optional(self, routes: Iterable[TrackRoute]) -> None:
        """What fed these is gone. A call goes on in the same sinks; other outputs are given new ones."""
        for route in routes:
            if not self.outputs[route.key[0]].essential and self._routes.get(route.key) is route:
                self._close(route.key)

    def keep(self, kind: Kind, used: Iterable[TrackRoute]) -> None:
        """Of this kind these are used and no others: what was beside them has ended."""
        routes = tuple(used)
        kept = {route.key for route in routes}
        coming = {route.key[:2] for route in routes if not route.begun}
        for key, route in list(self._routes.items()):
            if key[1] is kind and key not in kept:
                if route.covered and key[:2] in coming:
                    self._superseded.add(key)
                else:
                    self._close(key)

    async def aclose(self) -> None:
        """The participant leaves all outputs."""
        for route in self._routes.values():
            route.close()
        self._routes.clear()
        self._superseded.clear()
        for output in self.outputs.values():
            await output.aclose()


async def join(destinations: Sequence[Destination], seat: SeatView, on_change: OnChange) -> Routes:
    """The seat becomes a participant everywhere, or, where one raises `Rejected`, nowhere."""
    routes = Routes()
    async with AsyncExitStack() as undone:
        undone.push_async_callback(routes.aclose)
        for destination in destinations:
            routes.add(await destination.join(seat, on_change))
        undone.pop_all()
    return routes
