"""When what comes of a connected encoder is as good as nothing: black, frozen, without sound, or below a bit rate. Sans-IO.

Kept true: each is off unless it is asked for; it has to hold without a break for its time, and is over with the first look that says
otherwise; what is not known says nothing.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from gateway.model.records import ContinuitySettings
from gateway.sessions.seat_state import InterruptionCause
from protocols.media import Kind
from transcode.look_messages import Look

SECOND: Final = 1_000_000_000
_BLACK: Final = 0.98  # part of the picture that is dark
_SAME: Final = 0.0005  # part of the picture that differs from the one before
_OF: Final = {
    InterruptionCause.BLACK: Kind.VIDEO,
    InterruptionCause.FROZEN: Kind.VIDEO,
    InterruptionCause.NO_SOUND: Kind.AUDIO,
}


@dataclass(frozen=True, slots=True)
class Triggers:
    """After how many seconds of each viewers are shown the slate; 0: never."""

    black_s: float = 0.0
    frozen_s: float = 0.0
    silent_s: float = 0.0
    silent_dbfs: float = -60.0  # sound below this is silence
    low_bitrate: int = 0  # bit/s; 0: never
    low_bitrate_s: float = 5.0  # below it

    @property
    def sees(self) -> bool:
        """Pictures have to be decoded for them."""
        return bool(self.black_s or self.frozen_s)

    @property
    def looks(self) -> bool:
        """Something has to be decoded for them."""
        return bool(self.sees or self.silent_s)

    @property
    def any(self) -> bool:
        return self.looks or bool(self.low_bitrate)

    def narrowed(self, wanted: ContinuitySettings) -> "Triggers":
        """As a call's settings say."""
        return replace(
            self,
            black_s=self.black_s if wanted.black_seconds < 0 else wanted.black_seconds,
            frozen_s=self.frozen_s if wanted.frozen_seconds < 0 else wanted.frozen_seconds,
            silent_s=self.silent_s if wanted.silent_seconds < 0 else wanted.silent_seconds,
            low_bitrate=self.low_bitrate if wanted.low_bitrate < 0 else wanted.low_bitrate,
        )


class TriggerWatch:
    """Of one connection. All times are monotonic ns."""

    def __init__(self, triggers: Triggers) -> None:
        self._triggers = triggers
        self._after = {
            InterruptionCause.BLACK: triggers.black_s,
            InterruptionCause.FROZEN: triggers.frozen_s,
            InterruptionCause.NO_SOUND: triggers.silent_s,
            InterruptionCause.LOW_BITRATE: triggers.low_bitrate_s if triggers.low_bitrate else 0.0,
        }
        self._since: dict[InterruptionCause, int] = {}

    def expect(self, kinds: Collection[Kind]) -> None:
        """These are there to be judged."""
        for cause, kind in _OF.items():
            if kind not in kinds:
                self._since.pop(cause, None)

    def looked(self, look: Look, since: int) -> None:
        """What was decoded of the media that came from `since` on."""
        if look.dark is not None:
            self._note(InterruptionCause.BLACK, look.dark >= _BLACK, since)
        if look.changed is not None:
            self._note(InterruptionCause.FROZEN, look.changed < _SAME, since)
        if look.level_dbfs is not None:
            self._note(InterruptionCause.NO_SOUND, look.level_dbfs < self._triggers.silent_dbfs, since)

    def no_sound(self, since: int) -> None:
        """There is to be sound, and none has come from `since` on."""
        self._note(InterruptionCause.NO_SOUND, True, since)

    def rate(self, bits_per_second: float, since: int) -> None:
        """So much has come from `since` on."""
        self._note(InterruptionCause.LOW_BITRATE, bits_per_second < self._triggers.low_bitrate, since)

    def _note(self, cause: InterruptionCause, holds: bool, since: int) -> None:
        if not holds or not self._after[cause]:
            self._since.pop(cause, None)
        else:
            self._since.setdefault(cause, since)

    def cause(self, now: int) -> InterruptionCause | None:
        """The first that has held for its time."""
        held = (cause for cause, since in self._since.items() if now - since >= self._after[cause] * SECOND)
        return next(held, None)
