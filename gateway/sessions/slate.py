"""What viewers are shown of a seat while nothing comes of its encoder: silence at once, and pictures after a while.

The slate stands in for the feeder of each route of the seat, so that every output sees one stream that goes on: in the seat's media time,
as far behind it as the feeder was. It shows the last key frame with a few words for two seconds, then the operator's picture or a card.

Kept true: the first picture is a key frame, and there are five a second at most once players have got used to that: to one that was shown
thirty a fifth of a second is a freeze, so each stays a little longer than the one before. A route is the feeder's again from a key frame
on, where it was shown anything else, and the sound with the picture; no picture is made where nobody watches.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic_ns
from typing import Final, Protocol

from gateway.sessions.inspection import Inspected, Inspection
from gateway.sessions.routes import Routes, TrackRoute
from gateway.sessions.slate_pictures import SlatePictures, form_of
from gateway.sessions.triggers import Triggers
from protocols.bitstream.silence import silence
from protocols.defects import log_defect
from protocols.media import EncodedPacket, Kind, Track
from transcode.slate_messages import PICTURES, RATE, Clip

_TICK_NS: Final = 20_000_000
_PICTURE_NS: Final = 1_000_000_000 // RATE
_FIRST_PICTURE_NS: Final = 120_000_000  # a freeze is 150 ms more than the mean of the last thirty (webrtc-stats)
_LONGER: Final = 20  # part of the time of the one before by which each is shown for longer
_KEYFRAME_NS: Final = 500_000_000  # between two that are asked for
_LAST_PICTURE_NS: Final = 2_000_000_000  # for which the last key frame is shown
_SOUND_WAITS_NS: Final = 10_000_000_000  # for the picture: a group of pictures may be as long
_LACKS_NS: Final = 1_000_000_000  # for which a track that an encoder came back without may yet come
_MOST_AT_ONCE: Final = 10  # frames of silence; where more are missing they are left out
_STEP: Final = 1_000_000  # ns

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Covered:
    """One route that the slate stands in for. Times in monotonic ns but for `ahead`, which is the route's media time less that."""

    route: TrackRoute
    source: Track
    """As it was when nothing came any more."""
    ahead: int
    asked: bool = False  # somebody needs a key frame
    last: Clip | None = None  # the last picture, and
    card: Clip | None = None  # what comes after it
    making: bool = False  # one of them is being made
    tried: bool = False  # the first of them was, and
    failed: bool = False  # the second could not be
    left_out: bool = False  # something that the feeder had for it
    playing: Clip | None = None
    at: int = 0  # in it
    since: int | None = None  # when its first picture was shown
    lasts: int = _FIRST_PICTURE_NS  # ns that a picture is shown for
    due: int = 0
    key_at: int = 0

    @property
    def broken(self) -> bool:
        """The feeder's picture can go on with a key frame alone."""
        return self.route.kind is Kind.VIDEO and (self.since is not None or self.left_out)

    def choose(self, now: int) -> None:
        """What is shown from here on."""
        over = self.since is not None and now - self.since >= _LAST_PICTURE_NS
        wanted = self.card if self.card is not None and (over or self.last is None) else self.last
        if wanted is not self.playing and self.at % PICTURES != 1:  # two IDR pictures in a row would have one id (H.264 §7.4.3)
            self.playing, self.at = wanted, 0
        if self.asked and now - self.key_at >= _KEYFRAME_NS:
            self.at, self.asked = self.at - self.at % PICTURES, False


class ShownSeat(Protocol):
    """Whose media are shown."""

    @property
    def id(self) -> str: ...

    @property
    def call_cid(self) -> str: ...

    def media_now(self, now: int) -> int:
        """The media time in ns that is live at monotonic `now`."""


class Slate:
    """Of one seat; the `StandIn` of its routes."""

    def __init__(
        self, seat: ShownSeat, routes: Routes, on_return: Callable[[], None], *, pictures: SlatePictures, wished: str
    ) -> None:
        """`on_return` is called once media of an encoder go on after it was away; `wished` is the name of the operator's picture that its
        call wishes, empty for the gateway's."""
        self._seat = seat
        self._routes = routes
        self._pictures = pictures
        self._wished = wished
        self._on_return = on_return
        self._covered: dict[TrackRoute, _Covered] = {}
        self._away = self._showing = self._held = False
        self._kinds: Collection[Kind] = ()  # that the present encoder has
        self._back_since: int | None = None  # when media of it came first
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._lacks: asyncio.TimerHandle | None = None
        self._making: set[asyncio.Task[None]] = set()

    @property
    def stands_in(self) -> bool:
        """Media of the encoder are awaited that would take a route back."""
        return self._away and any(not route.closed for route in self._covered)

    def expect(self, kinds: Collection[Kind]) -> None:
        """The encoder that is there has these. What it lacks after a second ends."""
        self._kinds, self._back_since = kinds, None
        if self._lacks is not None:
            self._lacks.cancel()
        self._lacks = self._loop.call_later(_LACKS_NS / 1e9, self._drop, [kind for kind in Kind if kind not in kinds])

    def _drop(self, kinds: Collection[Kind]) -> None:
        for kind in kinds:
            self._routes.keep(kind, ())

    def cover(self) -> None:
        """Nothing comes: the sound is silence from here on, and pictures are at hand for who needs one."""
        self._away = True
        self._cover(monotonic_ns())
        if self._timer is None:
            self._tick()

    def _cover(self, now: int) -> None:
        for route in self._routes:
            if route not in self._covered and route.begun and (self._held or self._can(route)):
                covered = self._covered[route] = _Covered(route, route.track, self._ahead(route, now))
                route.cover(self)
                self._prepare(covered)

    def show(self) -> None:
        """Nothing has come for long, or the encoder has gone: pictures, too."""
        self._showing, self._back_since = True, None
        self.cover()

    def hold(self) -> None:
        """What comes of the encoder is not shown: pictures, until `release`."""
        self._held = True
        self.show()

    def release(self) -> None:
        """It is, from the next key frame on."""
        self._held, self._back_since = False, None

    def again(self) -> None:
        """An encoder that was back has gone, too, before or after some of its media were shown."""
        self._back_since = None
        self.cover()

    def close(self) -> None:
        """The seat ends."""
        for timer in (self._timer, self._lacks):
            if timer is not None:
                timer.cancel()
        for task in self._making:
            task.cancel()
        self._covered.clear()

    # What routes ask

    def keyframe(self, route: TrackRoute) -> bool:
        covered = self._covered.get(route)
        if covered is not None:
            covered.asked = True
            self._prepare(covered, asked=True)
        return covered is not None

    def gives_way(self, route: TrackRoute, packet: EncodedPacket) -> bool:
        now, covered = monotonic_ns(), self._covered.get(route)
        if covered is None:  # the seat ends
            return False
        if self._held:
            covered.left_out = True
            return False
        if self._back_since is None:
            self._back_since = now
        if route.kind is Kind.AUDIO:
            if self._picture_awaited(now - self._back_since):
                return False
        elif covered.broken and not packet.keyframe:
            if route.feeder is not None:
                route.feeder.keyframe(route.track.layer)
            return False
        self._leave(route)
        if self._away:
            self._return()
        return True

    def _picture_awaited(self, waited: int) -> bool:
        """The encoder is back for so many ns, and its picture is to come before its sound goes on."""
        shown = any(each.broken and not each.route.closed for each in self._covered.values())
        return shown and waited < (_SOUND_WAITS_NS if Kind.VIDEO in self._kinds else _LACKS_NS)

    def _return(self) -> None:
        self._away = self._showing = False
        for route, covered in list(self._covered.items()):
            if route.kind is Kind.VIDEO and not covered.broken:
                self._leave(route)  # it was shown nothing else
        self._on_return()

    def _leave(self, route: TrackRoute) -> None:
        del self._covered[route]
        route.uncover()

    # What is shown

    def _can(self, route: TrackRoute) -> bool:
        return silence(route.track) is not None if route.kind is Kind.AUDIO else route.takes(form_of(route.track))

    def _ahead(self, route: TrackRoute, now: int) -> int:
        """As it was with what it was given last, and not ahead of the seat: whatever an encoder's clock does from here on, the slate's goes
        on."""
        live = self._seat.media_now(now) - now
        return live if route.last is None else min(live, route.last - route.last_at)

    def _tick(self) -> None:
        now = monotonic_ns()
        soonest = now + _TICK_NS
        if self._held:
            self._cover(now)  # tracks that have come since
        for route, covered in list(self._covered.items()):
            if route.closed:
                del self._covered[route]
            elif route.kind is Kind.AUDIO:
                self._be_silent(covered, now)
            elif self._can(route) and (self._showing or covered.since is not None or covered.asked):
                if now >= covered.due:
                    self._picture(covered, now)
                soonest = min(soonest, covered.due)
        self._timer = self._loop.call_later((soonest - now) / 1e9, self._tick) if self._covered or self._held else None

    def _be_silent(self, covered: _Covered, now: int) -> None:
        route, made = covered.route, silence(covered.source)
        if made is None:
            return
        frame, step = made
        time = now + covered.ahead
        last = route.last if route.last is not None and time - route.last <= step * _MOST_AT_ONCE else time - step
        while last + step <= time:
            last += step
            route.show(EncodedPacket(covered.source.id, last, last, True, frame, now, now), covered.source)

    def _picture(self, covered: _Covered, now: int) -> None:
        route = covered.route
        self._prepare(covered)
        covered.choose(now)
        if covered.playing is None:
            covered.due = now + (_TICK_NS if covered.making else _PICTURE_NS)
            return
        covered.due, covered.lasts = now + covered.lasts, min(covered.lasts + covered.lasts // _LONGER, _PICTURE_NS)
        keyframe, data = covered.playing.pictures[covered.at]
        covered.at = (covered.at + 1) % len(covered.playing.pictures)
        covered.since = covered.since or now
        covered.key_at = now if keyframe else covered.key_at
        time = max(now + covered.ahead, (route.last or 0) + _STEP)
        track = replace(covered.playing.track, id=covered.source.id, layer=covered.source.layer)
        route.show(EncodedPacket(track.id, time, time, keyframe, data, now, now, track.layer), track)

    def _prepare(self, covered: _Covered, *, asked: bool = False) -> None:
        """See that there are pictures, or will be, where anybody is there to see them."""
        enough = covered.failed or covered.card is not None or (covered.last is not None and not self._showing)
        route = covered.route
        if route.kind is Kind.VIDEO and self._can(route) and not (enough or covered.making) and (asked or not route.idle):
            covered.making = True
            task = asyncio.create_task(self._make(covered), name=f"slate of {self._seat.id}")
            self._making.add(task)
            task.add_done_callback(self._making.discard)
            task.add_done_callback(partial(log_defect, log, "a slate has no picture"))

    async def _make(self, covered: _Covered) -> None:
        keyframe, form = covered.route.newest_key, form_of(covered.source)
        if keyframe is not None and not covered.tried:
            covered.last = await self._pictures.last(form, covered.source, keyframe, self._seat.id)
        covered.tried = True
        if self._showing or covered.last is None:
            covered.card = await self._pictures.card(form, self._seat.call_cid, self._wished, self._seat.id)
            covered.failed = covered.card is None
        covered.making = False


@dataclass(frozen=True, slots=True)
class SlatePolicy:
    """What the slates of a call are made with."""

    pictures: SlatePictures
    wished: str = ""
    triggers: Triggers = field(default_factory=Triggers)

    def inspection(self, name: str, owner: Inspected) -> Inspection | None:
        """Of the seat with this name; None where there is nothing to be looked for."""
        return Inspection(name, self.triggers, self.pictures.workers, owner) if self.triggers.any else None

    def slate(self, seat: ShownSeat, routes: Routes, on_return: Callable[[], None]) -> Slate:
        return Slate(seat, routes, on_return, pictures=self.pictures, wished=self.wished)
