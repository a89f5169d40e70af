"""The live edge of a seat: which packet goes out now, which waits, and which is too late to be of use. Sans-IO.

The pacer takes the packets of all tracks on the seat's timeline with the local time at which they came. Its `base` is the local time of
media time 0, so `now - base` is the media time that is live. It keeps five rules:

* **No delay.** A packet goes out at once, also if it is ahead of the live edge by up to `free`.
* **In step.** Where the media arrive apart (`hold_back`), all go out evenly, by their time, so long after the live edge; what is later
  than that goes at once. The way there and back takes a quarter of the speed, as of what comes too early, but at the start there is
  none: what a player sees of its first seconds is what it waits for longest.
* **Too early.** What is further ahead (a file sent faster than real time, a burst at the start) waits; meanwhile the live edge catches up
  by moving at most `speed` times as fast as real time, `catch_up` in all. When half of `hold` waits, `paused` asks for
  back-pressure until it is down to a quarter. Above `hold` the oldest go (`overflow`), to the next key frame, video and audio alike.
* **Too late.** A packet that comes more than `late` after its time is dropped, after a stall of the network all of a backlog. Video starts
  again with a key frame that is in time, audio with the first packet in time. A track's own time is the earliest of the last one to
  two `window`s: a track that is always behind the others is not late, and when the path got longer for good that is the new time. Where its
  times say nothing yet (`settling`) none is late.
* **Drift.** The edge follows the publisher's clock by at most `slew`.
"""

from bisect import bisect_right, insort
from dataclasses import dataclass

from protocols.media import EncodedPacket, Kind

LEAST_WAIT = 1_000_000  # ns between two looks for what is due, so that a live edge that moves costs no turns of the loop
LATE = "late"
OVERFLOW = "overflow"
ENDED = "ended"  # before its time had come


@dataclass(frozen=True, slots=True)
class LiveEdgePolicy:
    """Bounds of the live edge; times in ns."""

    free: int = 100_000_000
    hold: int = 1_000_000_000
    hold_bytes: int = 16 << 20
    hold_packets: int = 4096
    speed: float = 1.25
    catch_up: int = 10_000_000_000  # a file is shown at its own speed after this, a live source's backlog is never so long
    late: int = 700_000_000
    window: int = 2_000_000_000
    slew: float = 0.002  # of real time: ten times the worst clock


@dataclass(slots=True)
class _Track:
    """How late a track's packets come when nothing delays them: the least of (now - dts) in this window and the one before."""

    kind: Kind
    least: int  # in this window
    normal: int  # in both
    window_end: int
    waiting: str = ""  # video after a drop: why it waits for a key frame


class Pacer:
    """State of one seat; `now` never goes back between calls."""

    def __init__(self, policy: LiveEdgePolicy) -> None:
        self.policy = policy
        self.dropped = {LATE: 0, OVERFLOW: 0, ENDED: 0}
        """Packets by reason."""
        self.paused = False
        """Ask the source to stop sending, and take no more packets from it, until this is False again."""
        self._tracks: dict[int, _Track] = {}
        self._held: list[EncodedPacket] = []  # by dts
        self._held_bytes = 0
        self._base = 0
        self._moved = 0  # when `_base` was right
        self._caught_up = 0  # by how much the edge has run faster than real time since nothing waited
        self._hold_back = self._behind = 0  # after the edge: where it is to be, and where it is what goes out

    @property
    def needs_keyframe(self) -> bool:
        """A video track that keeps coming was cut and waits for a key frame: ask for one where the source or an encoder of ours can."""
        return any(track.waiting and self._keeps_coming(track, self._moved) for track in self._tracks.values())

    def hold_back(self, hold: int, *, at_once: bool) -> None:
        """From here on packets are to go out `hold` ns after the live edge, 0: when they come; `at_once`, or by and by."""
        self._hold_back = hold
        if at_once:
            self._behind = hold

    def push(self, packet: EncodedPacket, kind: Kind, now: int, *, settling: bool = False) -> None:
        """Take a packet that came at `now`; `pop` gives it out, perhaps at once. `settling`: its time does not say how late it is."""
        delay = now - packet.dts
        if not self._tracks:
            # What has waited before, for other tracks to be known, has waited for them
            self._base, self._moved = max(packet.arrival, now - self._behind) - packet.dts, now
        self._move_edge(now)
        track = self._tracks.get(packet.track)
        if track is None:
            track = self._tracks[packet.track] = _Track(kind, delay, delay, now + self.policy.window)
        self._note_delay(track, delay, now)
        if delay - max(track.normal, self._base) > self.policy.late and not settling:
            self.dropped[LATE] += 1
            if kind is Kind.VIDEO:
                track.waiting = track.waiting or LATE
            return
        if track.waiting:
            if not packet.keyframe:
                self.dropped[track.waiting] += 1
                return
            track.waiting = ""
        self._held_bytes += len(packet.data)
        if not self._held and packet.dts <= now - self._base + self._allowed:
            self._held.append(packet)  # nothing waits, and neither does this
            return
        insort(self._held, packet, key=_by_dts)
        if self._press(now) > 1:
            self._overflow(now)
            self._press(now)

    def pop(self, now: int) -> list[EncodedPacket]:
        """The packets that are due, by dts."""
        self._move_edge(now)
        due, held = now - self._base + self._allowed, self._held
        if not held or held[-1].dts <= due:
            return self.flush()
        count = bisect_right(held, due, key=_by_dts)
        released = held[:count]
        del held[:count]
        self._held_bytes -= sum(len(packet.data) for packet in released)
        if not self._runs_ahead:
            self._caught_up = 0
        self._press(now)
        return released

    def flush(self) -> list[EncodedPacket]:
        """All packets that wait, due or not: what comes next is of another kind."""
        released, self._held = self._held, []
        self._held_bytes = self._caught_up = 0
        self.paused = False
        return released

    def finish(self, now: int) -> list[EncodedPacket]:
        """No more comes: those that wait for the other medium, by dts. What came too early to be shown is left out."""
        self._hold_back = self._behind = 0
        released = self.pop(now)
        self.dropped[ENDED] += len(self.flush())
        return released

    @property
    def next_release(self) -> int | None:
        """Local time at which `pop` has more to give, if nothing comes before; None if nothing waits."""
        if not self._held:
            return None
        wait = self._held[0].dts - (self._moved - self._base + self._allowed)
        speed = self.policy.speed if self._runs_ahead and self._caught_up < self.policy.catch_up else 1.0
        return self._moved + max(LEAST_WAIT if self._behind else 0, int(wait / speed) + 1)

    def media_now(self, now: int) -> int:
        """The seat's media time that is live at `now`: the clock for sender reports; 0 before the first packet."""
        return now - self._base_at(now)[0] if self._tracks else 0

    @property
    def _allowed(self) -> int:
        """By how much a packet may be ahead of the live edge when it goes out."""
        return -self._behind if self._behind else self.policy.free

    @property
    def _runs_ahead(self) -> bool:
        """Packets wait that came before their time, not for those of another track."""
        return bool(self._held) and self._held[-1].dts > self._moved - self._base + (0 if self._behind else self.policy.free)

    def _base_at(self, now: int) -> tuple[int, int]:
        """(base, caught up) at `now`: earlier at `speed` while packets wait, else towards the least delayed track by `slew`."""
        policy = self.policy
        elapsed = now - self._moved
        if self._runs_ahead:
            gain = min(int(elapsed * (policy.speed - 1)), max(0, policy.catch_up - self._caught_up))
            return self._base - gain, self._caught_up + gain
        # A track that has fallen silent says nothing about the path
        active = [track.normal for track in self._tracks.values() if self._keeps_coming(track, now)]
        off = min(active) - self._base if active else 0
        if off > policy.late:  # the path got longer for good
            return self._base + off, self._caught_up
        most = int(elapsed * policy.slew)
        return self._base + max(-most, min(most, off)), self._caught_up

    def _keeps_coming(self, track: _Track, now: int) -> bool:
        return now < track.window_end + self.policy.window

    def _move_edge(self, now: int) -> None:
        if self._tracks and now != self._moved:
            most = int((now - self._moved) * (self.policy.speed - 1))
            self._behind += max(-most, min(most, self._hold_back - self._behind))
            self._base, self._caught_up = self._base_at(now)
            self._moved = now

    def _note_delay(self, track: _Track, delay: int, now: int) -> None:
        if now >= track.window_end:
            track.normal, track.least = min(track.least, delay), delay
            track.window_end = now + self.policy.window
        elif delay < track.least:
            track.least = delay
            track.normal = min(track.normal, delay)

    def _fullness(self, now: int) -> float:
        """How much of what may wait does wait; 1 is all."""
        if not self._held:
            return 0.0
        policy = self.policy
        ahead = self._held[-1].dts - (now - self._base + policy.free)
        return max(ahead / policy.hold, self._held_bytes / policy.hold_bytes, len(self._held) / policy.hold_packets)

    def _press(self, now: int) -> float:
        fullness = self._fullness(now)
        self.paused = fullness > 0.5 or (self.paused and fullness >= 0.25)
        return fullness

    def _overflow(self, now: int) -> None:
        """Drop the oldest to a key frame, best the first after which half or less waits; the edge moves on to what is left."""
        half = self._held[-1].dts - self.policy.hold // 2
        middle = self._held[len(self._held) // 2].dts  # where it is bytes or packets that are too many
        cut = max(half, middle)
        oldest = self._held[0].dts
        keys = [p.dts for p in self._held if p.keyframe and self._tracks[p.track].kind is Kind.VIDEO and p.dts > oldest]
        self._cut(next((dts for dts in keys if dts >= cut), keys[-1] if keys else cut))
        if self._held:
            self._base = min(self._base, now - self._held[0].dts)

    def _cut(self, dts: int) -> None:
        kept: list[EncodedPacket] = []
        for packet in self._held:
            track = self._tracks[packet.track]
            if packet.dts < dts:
                if track.kind is Kind.VIDEO:
                    track.waiting = OVERFLOW
            elif not track.waiting or packet.keyframe:
                track.waiting = ""
                kept.append(packet)
                continue
            self.dropped[OVERFLOW] += 1
            self._held_bytes -= len(packet.data)
        self._held = kept


def _by_dts(packet: EncodedPacket) -> int:
    return packet.dts
