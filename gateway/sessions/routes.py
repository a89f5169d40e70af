"""The outputs of one seat, and the sinks that they have given for its tracks.

Kept true: a sink is given packets from a key frame on, and belongs to its output, kind and layer for as long as the codec stays: another
encoder's track, or another stage's, goes on in the sink that is there. Nothing here knows what a stage does.
"""

from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Protocol

from gateway.sessions.output import Destination, OnChange, Output, SeatView, Sink
from protocols.media import EncodedPacket, Kind, Track

RouteKey = tuple[str, Kind, str]
"""Output, kind and layer."""


class Feeder(Protocol):
    """Whose packets go to a route just now; what the output says back goes to it."""

    def keyframe(self, layer: str) -> bool: ...

    def bitrate(self) -> None:
        """A route of it carries another bitrate than before (`TrackRoute.carries`)."""

    def sent(self, packet: EncodedPacket, ready: int, sent: int) -> None: ...


class TrackRoute:
    """From a feeder to one sink of one output; the sink's `Feedback`."""

    def __init__(self, output: Output, track: Track, feeder: Feeder) -> None:
        self.key: RouteKey = output.name, track.kind, track.layer
        self.track = track
        self.feeder: Feeder | None = feeder  # before the sink is made, which may ask for a key frame at once
        self.carries = 0
        """bit/s that the output's own way carries; 0: it has not said."""
        self.waits = track.kind is Kind.VIDEO
        """For a key frame, with which its sink begins."""
        self._sink: Sink = output.publish(track, self)

    def push(self, packet: EncodedPacket, feeder: Feeder) -> None:
        if feeder is not self.feeder:
            return  # another has taken over
        if self.waits:
            if not packet.keyframe:
                return
            self.waits = False
        self._sink.push(packet)

    def begin(self, feeder: Feeder, track: Track) -> None:
        """From here on `feeder` has the track."""
        self.feeder, self.track = feeder, track
        self._sink.update(track)

    def close(self) -> None:
        self.feeder = None
        self._sink.close()

    # Feedback

    def keyframe(self) -> bool:
        return self.feeder is not None and self.feeder.keyframe(self.track.layer)

    def bitrate(self, bits_per_second: int) -> None:
        self.carries = bits_per_second
        if self.feeder is not None:
            self.feeder.bitrate()

    def sent(self, packet: EncodedPacket, ready: int, sent: int) -> None:
        if self.feeder is not None:
            self.feeder.sent(packet, ready, sent)


class Routes:
    """Of one seat, over all of its publishers."""

    def __init__(self) -> None:
        self.outputs: dict[str, Output] = {}
        """By name."""
        self._routes: dict[RouteKey, TrackRoute] = {}

    def add(self, output: Output) -> None:
        self.outputs[output.name] = output

    def to(self, output: str, track: Track, feeder: Feeder) -> TrackRoute:
        """The route for this track of an output, fed by `feeder` from now on; another codec makes a new sink."""
        key = output, track.kind, track.layer
        before = route = self._routes.get(key)
        if route is None or route.track.codec is not track.codec:
            route = self._routes[key] = TrackRoute(self.outputs[output], track, feeder)
            if before is not None:
                before.close()  # after the other has begun: receivers go over from one to the other
        route.begin(feeder, track)
        return route

    def drop_optional(self, routes: Iterable[TrackRoute]) -> None:
        """What fed these is gone. A call goes on in the same sinks; other outputs are given new ones."""
        for route in routes:
            if not self.outputs[route.key[0]].essential and self._routes.get(route.key) is route:
                self._routes.pop(route.key).close()

    def keep(self, kind: Kind, used: Iterable[TrackRoute]) -> None:
        """Of this kind these are used and no others: what was beside them has ended."""
        kept = {route.key for route in used}
        for key in [key for key in self._routes if key[1] is kind and key not in kept]:
            self._routes.pop(key).close()

    async def aclose(self) -> None:
        """The participant leaves all outputs."""
        for route in self._routes.values():
            route.close()
        self._routes.clear()
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
