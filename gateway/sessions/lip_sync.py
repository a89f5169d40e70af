"""By how much sound and picture arrive apart, and what the earlier one waits for the other. Sans-IO.

An encoder that sends a second's sound in spurts, or the picture long after the sound, makes every player find out by itself how late the
later one is, and until it has, lips and voice part. So all packets of such a stream go out by their time, `hold` after the live edge: as
late as the later medium usually comes. A stream whose media arrive together is held back by nothing.

A medium is as late as the latest packet in most of the last spans of `SPAN`: one stall, or a key frame now and then, is not usual. While
that grows or shrinks it says nothing: stamps that part from arrival are another's matter (`arrival_clock.py`), and what waits stays as it
is. Apart is more than EBU R 37 takes as synchronous (sound 40 ms before to 60 ms after the picture), with something left for the player.

A player waits for what it saw in its first seconds, for half a minute (NetEq). So at the start, until what is usual has been seen, the
first spurts say what waits, and at once; so does what had to wait until the sound was known, and would go out in a spurt of its own. Where
an encoder comes back players have got used to what waited before, and that goes on.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median_low

from protocols.media import Kind

SPAN = 400_000_000  # ns of arrival, the same for all tracks: what a burst does to them is alike
SPANS = 8
FEWEST = 2  # spans that show what is usual
STEADY = 30_000_000  # ns between what was usual in the earlier and the later of them
TOLD = 5  # spans, and the streamer is told
WORTH_TELLING = 100_000_000  # ns: what is less costs viewers hardly anything
SOUND_AFTER = 50_000_000  # ns
PICTURE_AFTER = 35_000_000  # ns
MOST = 400_000_000  # ns that a medium waits
SAME = 20_000_000  # ns by which what it waits may differ from what was measured
SPURT = 120_000_000  # ns by which sound is later than the pictures beside it: no jitter
STEADILY = 150_000_000  # ns from picture to picture, at most
ACTIVE = 2_000_000_000  # ns; who waits for a track that does not come for so long waits in vain


@dataclass(frozen=True, slots=True)
class Apart:
    """`later` comes this many ns after the other medium, which waits `hold` of them."""

    later: Kind
    by: int
    hold: int

    @property
    def text(self) -> str:
        """For the streamer."""
        by, hold = round(self.by, -7) // 1_000_000, round(self.hold, -7) // 1_000_000
        if self.later is Kind.AUDIO:
            return (
                f"The sound arrives {by} ms after the picture, which waits {hold} ms for it: let the encoder send each frame of sound at "
                "once (ffmpeg over SRT: -muxdelay 0), or raise its bitrate."
            )
        return (
            f"The picture arrives {by} ms after the sound, which waits {hold} ms for it: let the video encoder look ahead less (x264: "
            "tune zerolatency)."
        )


@dataclass(slots=True)
class _Delays:
    """Of one track: (least, most) of each span in which something came, the last of them under way."""

    kind: Kind
    number: int
    least: int
    most: int
    came: int
    last: int
    spans: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=SPANS))

    @property
    def usual(self) -> int:
        return median_low(most for _, most in self.spans)

    @property
    def often(self) -> int:
        """In more than a quarter of the spans, since spurts are not all alike; of few, in most."""
        return sorted(most for _, most in self.spans)[(3 * len(self.spans) - 4) // 4]

    @property
    def steady(self) -> bool:
        latest = [most for _, most in self.spans]
        middle = len(latest) // 2
        return abs(median_low(latest[middle:]) - median_low(latest[:middle])) <= STEADY


class LipSync:
    """State of one publisher; `on_apart` is told of each medium that comes after the other, once."""

    def __init__(self, on_apart: Callable[[Apart], None], before: int | None = None) -> None:
        """`before` is the `hold` of the publisher that this one goes on for, None: it is the first."""
        self._on_apart = on_apart
        self._first = before is None
        self.hold = before or 0
        """ns after the live edge at which all goes out, where that is later than it came; 0 where the media arrive together."""
        self.at_once = True
        """`hold` counts at once, not by and by: what is usual has not been seen yet."""
        self._tracks: dict[int, _Delays] = {}
        self._begun = 0  # arrival of the first packet
        self._number = 0  # of the span under way
        self._told: set[Kind] = set()
        self._expected: frozenset[Kind] = frozenset()

    def expect(self, kinds: Iterable[Kind]) -> None:
        """The publisher has tracks of these: one medium alone waits for nothing."""
        self._expected = frozenset(kinds)

    def note(self, track: int, kind: Kind, dts: int, arrival: int, now: int) -> None:
        """A packet on the seat's time, in the order received; all in ns. It came at `arrival`, and what was found before all tracks were
        known has waited until `now`."""
        if not self._begun:
            self._begun = arrival
            if self._first and now - arrival > SPURT and len(self._expected) > 1:
                self.hold = min(MOST, now - arrival)
        number = (arrival - self._begun) // SPAN
        if number > self._number:
            self._number = number
            self._judge(arrival)
        delay = arrival - dts
        it = self._tracks.get(track)
        if self.at_once and kind is Kind.AUDIO:
            self._note_spurt(delay, arrival)
        if it is None or it.kind is not kind:
            self._tracks[track] = _Delays(kind, number, delay, delay, arrival, delay)
            return
        if number > it.number:
            it.spans.append((it.least, it.most))
            it.number, it.least, it.most = number, delay, delay
        it.least, it.most, it.came, it.last = min(it.least, delay), max(it.most, delay), arrival, delay

    def _note_spurt(self, delay: int, now: int) -> None:
        """What is late while pictures keep coming is no stall."""
        pictures = [it for it in self._tracks.values() if it.kind is Kind.VIDEO and now - it.came < STEADILY]
        if pictures and delay - max(it.last for it in pictures) > SPURT:
            self.hold = max(self.hold, min(MOST, delay - min(it.least for it in self._tracks.values())))

    def forget(self, track: int) -> None:
        """How late it was came of wrong stamps."""
        self._tracks.pop(track, None)

    def _judge(self, now: int) -> None:
        if self._number < FEWEST:
            return
        active = [it for it in self._tracks.values() if now - it.came < ACTIVE]
        known = [it for it in active if len(it.spans) >= FEWEST]
        usual = {kind: min(it.usual for it in known if it.kind is kind) for kind in {it.kind for it in known}}
        if len({it.kind for it in active}) < 2:
            self.hold, self.at_once = 0, False
            return
        if len(usual) < 2 or not all(it.steady for it in known):
            return
        self.at_once = False
        sound_after = usual[Kind.AUDIO] - usual[Kind.VIDEO]
        later = Kind.AUDIO if sound_after > 0 else Kind.VIDEO
        bound = SOUND_AFTER if later is Kind.AUDIO else PICTURE_AFTER
        if abs(sound_after) < (bound / 2 if self.hold else bound):
            self.hold = 0
            return
        often = min(it.often for it in known if it.kind is later)
        hold = min(MOST, often - min(least for it in known for least, _ in it.spans))
        if abs(hold - self.hold) > SAME:
            self.hold = hold
        if later not in self._told and abs(sound_after) >= WORTH_TELLING and all(len(it.spans) >= TOLD for it in known):
            self._told.add(later)
            self._on_apart(Apart(later, abs(sound_after), self.hold))
