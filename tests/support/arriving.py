"""Sound and pictures as they arrive, faster than real time: by clocks of their own, interleaved or with sound in spurts, with jitter."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from protocols.media import EncodedPacket

MS = 1_000_000
SECOND = 1000 * MS
VIDEO, AUDIO = 1, 2
PICTURE, FRAME = 33_333_333, 21_333_333  # ns
ORIGIN = 10**15  # local time of the first packet


@dataclass(frozen=True, slots=True)
class Arriving:
    """`spurt` (ns) of sound goes out together once it is complete, 0: each frame at once. `rates` are those of the tracks' clocks."""

    rates: Mapping[int, float] = field(default_factory=lambda: {VIDEO: 1.0, AUDIO: 1.0})
    spurt: int = 0
    jitter: int = 0  # ns on the way, where nothing overtakes
    seed: int = 0
    late: Mapping[int, int] = field(default_factory=lambda: {VIDEO: 0, AUDIO: 0})  # ns by which the encoder sends a track later

    def packets(self, duration: int) -> Iterator[tuple[int, EncodedPacket]]:
        """(when it was captured, packet): in the order received, stamped in ms by the clock of its track."""
        way = random.Random(self.seed)
        due = [(t + self.late[VIDEO], VIDEO, t) for t in range(0, duration, PICTURE)]
        frames = max(1, self.spurt // FRAME)
        for number in range(duration // FRAME):
            complete = (number // frames + 1) * frames if self.spurt else number
            due.append((complete * FRAME + self.late[AUDIO], AUDIO, number * FRAME))
        due.sort()
        came = delay = 0
        sent: tuple[int, int] | None = None
        for at, track, captured in due:
            if self.jitter and (at, track) != sent:  # a spurt is under way together
                delay = way.randrange(self.jitter)
            sent = at, track
            came = max(came, at + delay)
            stamp = int(captured * self.rates[track]) // MS * MS
            yield captured, EncodedPacket(track, stamp, stamp, True, b"", ORIGIN + came, ORIGIN + came)
