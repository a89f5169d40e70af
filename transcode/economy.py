"""How a transcoder that cannot keep up gets cheaper, step by step, and dearer again. Sans-IO.

Keeps true: a transcoder that falls behind never stays late, for its stage skips to the next key frame; here it is decided what it does so
as not to fall behind again: first a cheaper preset, then a smaller picture. It goes back up one step at a time, and waits longer each time
that a step up had to be taken back.
"""

from dataclasses import dataclass

from transcode.plan import preset

_MS = 1_000_000
_BEHIND = 250 * _MS  # of media that wait: half of what may
_BEHIND_FOR = 1000 * _MS  # a burst from the network is gone sooner
_AT_EASE = 100 * _MS
_SETTLING = 2000 * _MS  # from a step to when its effect is judged
_PATIENCE = 30_000 * _MS  # at ease before a step up
_MOST_PATIENCE = 16 * _PATIENCE


@dataclass(frozen=True, slots=True)
class Effort:
    """An x264 preset, and the part of each edge of the picture that is kept."""

    preset: str
    scale: float = 1.0

    @property
    def text(self) -> str:
        return f"x264 preset {self.preset}" + (f", picture reduced to {self.scale:.0%}" if self.scale < 1 else "")


_STEPS = (Effort("veryfast"), Effort("superfast"), Effort("ultrafast"), Effort("ultrafast", 2 / 3), Effort("ultrafast", 1 / 2))


def effort(level: int, width: int, height: int) -> Effort:
    """What a picture of this size is encoded with, `level` steps below what is planned for it."""
    return _STEPS[min(_planned(width, height) + level, len(_STEPS) - 1)]


def levels(width: int, height: int) -> int:
    """How many steps down there are."""
    return len(_STEPS) - 1 - _planned(width, height)


def _planned(width: int, height: int) -> int:
    return next(index for index, each in enumerate(_STEPS) if each.preset == preset(width, height))


class Economy:
    """The steps below the plan at which one video is transcoded, by how much of it waits."""

    def __init__(self, levels: int) -> None:
        self.level = 0
        self._most = levels
        self._patience = _PATIENCE
        self._changed: int | None = None  # all of these in media time, ns
        self._raised = False  # the last change was a step up
        self._behind_since: int | None = None
        self._at_ease_since: int | None = None

    def observe(self, waiting: int, skipped: bool, now: int) -> bool:
        """Take note of a packet that the worker has taken: `waiting` ns of media are left, some may have been `skipped` since the last
        call, the newest packet is of `now` (ns). True when `level` has changed."""
        if self._changed is None or now < self._changed:  # the first, or the source's clock has gone back
            self._changed, self._behind_since, self._at_ease_since = now, None, None
        self._behind_since = _since(self._behind_since, waiting > _BEHIND, now)
        self._at_ease_since = _since(self._at_ease_since, waiting < _AT_EASE and not skipped, now)
        late = self._behind_since is not None and now - self._behind_since > _BEHIND_FOR
        if (skipped or late) and self.level < self._most and (not self.level or now - self._changed > _SETTLING):
            if self._raised and now - self._changed < 2 * self._patience:
                self._patience = min(2 * self._patience, _MOST_PATIENCE)
            return self._change(self.level + 1, now)
        at_ease = self._at_ease_since is not None and now - self._at_ease_since > self._patience
        if at_ease and self.level and now - self._changed > self._patience:
            return self._change(self.level - 1, now)
        return False

    def _change(self, level: int, now: int) -> bool:
        self._raised = level < self.level
        self.level = level
        self._changed = now
        self._behind_since = None
        return True


def _since(since: int | None, holds: bool, now: int) -> int | None:
    """Since when something holds without a break."""
    if not holds:
        return None
    return now if since is None else since
