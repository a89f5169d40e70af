"""The pictures of slates, made in worker processes: the last of a stream with a strip below it, the operator's, or a card.

Kept true: what strangers have sent is decoded in a process of its own, for one slate and no longer; few are made at once, whatever ends at
once; what may be shown again is kept, up to so many.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from gateway.telemetry.log import event
from protocols.bounded_map import BoundedMap
from protocols.errors import Rejected
from protocols.media import Codec, EncodedPacket, Track
from transcode.host.accounting import used
from transcode.host.pool import Workers
from transcode.slate_messages import Clip, SlatePicture, is_clip

TEXT: Final = "reconnecting"
_AT_ONCE: Final = 4
_WITHIN_S: Final = 3.0
_CLIP_WITHIN_S: Final = 15.0  # meanwhile the last picture stands
_KEPT: Final = 64
_KEPT_BYTES: Final = 64 << 20
_MADE: Final = frozenset({Codec.H264, Codec.VP8, Codec.AV1})
_LARGEST: Final = 4096 * 2304  # pixels
_UNKNOWN_SIZE: Final = (1280, 720)

log = logging.getLogger(__name__)


def form_of(track: Track) -> Track:
    """What a slate in the place of this track is like, but for its layer: the same where that can be made here, else H.264."""
    width, height = track.width, track.height
    if not width or not height or width * height > _LARGEST:
        width, height = _UNKNOWN_SIZE
    if track.codec in _MADE:
        return Track(track.id, track.codec, width=width, height=height, profile=track.profile, level=track.level)
    return Track(track.id, Codec.H264, width=width, height=height)


class SlatePictures:
    """Of one gateway."""

    def __init__(self, workers: Workers, pictures: Mapping[str, bytes], standard: str) -> None:
        """`pictures` are the operator's PNG, JPEG and MP4 files, by name; `standard` is the one that is shown where nobody wishes another:
        empty, or one that is not there, is a card."""
        self.cpu_ns = 0
        """What their workers have used since the start, for the reckoning of the CPU."""
        self.workers = workers
        self._pictures = pictures
        self._standard = standard
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._kept: BoundedMap[tuple[Track, str, str], Clip] = BoundedMap(_KEPT)

    async def last(self, form: Track, source: Track, keyframe: EncodedPacket, name: str) -> Clip | None:
        """The picture of this key frame with the text that there will be more; None where that cannot be made now. `name` is that of its
        seat, for the log."""
        return await self._make(form, SlatePicture("", TEXT, keyframe.data, replace(source, layer="")), name)

    async def card(self, form: Track, cid: str, wished: str, name: str) -> Clip | None:
        """The operator's picture of the name that is `wished`, else the standard one, else a card with the call's name."""
        chosen = next((each for each in (wished, self._standard) if each in self._pictures), "")
        key = replace(form, id=0), chosen, "" if chosen else cid
        clip = self._kept.get(key)
        if clip is None:
            clip = await self._make(form, SlatePicture(cid.partition(":")[2], TEXT, self._pictures.get(chosen, b"")), name)
            if clip is not None:
                self._keep(key, clip)
        return clip

    def _keep(self, key: tuple[Track, str, str], clip: Clip) -> None:
        self._kept[key] = clip
        while sum(each.size for each in self._kept.values()) > _KEPT_BYTES:
            self._kept.popitem(last=False)

    async def _make(self, form: Track, shown: SlatePicture, name: str) -> Clip | None:
        made: Clip | str = ""
        within_s = _CLIP_WITHIN_S if shown.source is None and is_clip(shown.data) else _WITHIN_S
        try:
            async with asyncio.timeout(within_s), self._room:
                worker = await self.workers.start(f"{name} slate")
                try:
                    made = await worker.slate(form, shown)
                finally:
                    self.cpu_ns += round(used(worker.pid) * 1e9) if worker.pid else 0
                    if isinstance(made, Clip):
                        worker.abandon()
                    else:  # it may hang, and has to be ended
                        await worker.aclose()
        except (Rejected, TimeoutError) as error:
            made = str(error) or f"it took more than {within_s:.0f} s"
        if isinstance(made, Clip):
            return made
        event(log, logging.WARNING, f"no picture can be made for a slate: {made}", session=name, codec=form.codec.value)
        return None
