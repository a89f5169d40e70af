"""How a transcoder that cannot keep up gets cheaper, step by step, and dearer again. Sans-IO.

Keeps true: a transcoder that falls behind never stays late, for its stage skips to the next key frame; here it is decided what it does so
as not to fall behind again: first a cheaper preset, then a smaller picture. It goes back up one step at a time, and waits longer each time
that a step up had to be taken back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from transcode.encoder_table import EFFORTS

_MS = 1_000_000
_BEHIND = 250 * _MS  # of media that wait: half of what may
_BEHIND_FOR = 1000 * _MS  # a burst from the network is gone sooner
_AT_EASE = 100 * _MS
_SETTLING = 2000 * _MS  # from a step to when its effect is judged
_PATIENCE = 30_000 * _MS  # at ease before a step up
_MOST_PATIENCE = 16 * _PATIENCE
_SUPERFAST_PIXELS = 1920 * 1080  # from here veryfast would take most of a core at 30 frames a second (measured 0.99)


_SCALES = (2 / 3, 1 / 2)


@dataclass(frozen=True, slots=True)
class Effort:
    """How a video is encoded: as planned, or for less."""

    preset: str = ""  # x264's, of the top layer; for people
    lower: int = 0  # presets below the planned one, of every layer
    shed: int = 0  # layers that are not encoded, from the top one on
    scale: float = 1.0  # part of each edge of the picture that is kept

    @property
    def text(self) -> str:
        parts = [f"encoder effort {self.preset}"]
        if self.shed:
            parts.append("the top encoded layer left out" if self.shed == 1 else f"the top {self.shed} encoded layers left out")
        if self.scale < 1:
            parts.append(f"picture reduced to {self.scale:.0%}")
        return ", ".join(parts)


AS_PLANNED = Effort()


def preset(width: int, height: int, lower: int = 0) -> str:
    """The x264 preset for a picture of this size, some presets below what is planned for it."""
    return EFFORTS[min(_planned(width, height) + lower, len(EFFORTS) - 1)]


def steps(sizes: Sequence[tuple[int, int]], last_may_go: bool = False) -> tuple[Effort, ...]:
    """From the plan down, for the encoded layers of these sizes, the top one first: cheaper presets, then layer after layer left out. One
    stays, and is the only one made smaller if it was alone; none need stay (`last_may_go`) where a layer passes without being encoded."""
    top = sizes[0]
    found = [Effort(preset(*top, lower), lower) for lower in range(len(EFFORTS) - _planned(*top))]
    cheapest = found[-1]
    found += [replace(cheapest, shed=shed) for shed in range(1, len(sizes) + last_may_go)]
    if len(sizes) == 1 and not last_may_go:
        found += [replace(cheapest, scale=scale) for scale in _SCALES]
    return tuple(found)


def _planned(width: int, height: int) -> int:
    return 1 if width * height >= _SUPERFAST_PIXELS else 0


class Adaptation:
    """The steps below the plan at which one video is transcoded, by how much of it waits."""

    def __init__(self, levels: int) -> None:
        self.level = 0
        self._most = levels
        self._patience = _PATIENCE
        self._changed: int | None = None  # all of these in media time, ns
        self._now = 0
        self._raised = False  # the last change was a step up
        self._behind_since: int | None = None
        self._at_ease_since: int | None = None

    def observe(self, waiting: int, skipped: bool, now: int) -> bool:
        """Take note of a packet that the worker has taken: `waiting` ns of media are left, some may have been `skipped` since the last
        call, the newest packet is of `now` (ns). True when `level` has changed."""
        self._now = now
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

    def relieve(self, level: int) -> bool:
        """Go down to `level` at once, since others need the CPU. True when that is a change; the way up is as from any other step."""
        return self.level < level <= self._most and self._change(level, self._now)

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
