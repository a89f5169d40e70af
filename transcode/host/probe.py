"""Which H.264 encoder this gateway uses: tried with a real picture in a process of its own.

Keeps true: a driver that hangs or crashes costs some seconds of the start and nothing else; without a working one it is x264, and why is
said.
"""

import asyncio
import glob
from collections.abc import Sequence
from dataclasses import dataclass, field

from protocols.errors import Rejected
from transcode.encoder_table import ENCODERS, X264, VideoEncoder
from transcode.host.pool import Workers

_TRIAL = 5.0  # s for one encoder: drivers load slowly


@dataclass(frozen=True, slots=True)
class Choice:
    encoder: str
    refused: dict[str, str] = field(default_factory=dict)  # what was tried before it, and why it does not do


async def choose(workers: Workers, wanted: str, hardware: Sequence[VideoEncoder]) -> Choice:
    """The encoder to use, for which workers are equipped from now on, where `wanted` is: `auto` (the first of `hardware` whose device is
    here and that works), `hardware` (the first that works, whatever is here), or one by name."""
    named = {
        "auto": tuple(encoder.name for encoder in hardware if present(encoder)),
        "hardware": tuple(encoder.name for encoder in hardware),
    }
    refused: dict[str, str] = {}
    for name in named.get(wanted, (wanted,)):
        if name == X264:
            break
        why_not = await trial(workers, name)
        if not why_not:
            workers.equip(ENCODERS[name].devices)
            return Choice(name, refused)
        refused[name] = why_not
    return Choice(X264, refused)


def present(encoder: VideoEncoder) -> bool:
    """Whether a device is here that it could be in: without one a trial only costs time at each start."""
    return any(glob.glob(pattern) for pattern in encoder.devices)


async def trial(workers: Workers, encoder: str) -> str:
    """Why an encoder does not work here; empty if it does."""
    if encoder not in ENCODERS:
        return "no such encoder"
    try:
        worker = await workers.start(f"trial of {encoder}", ENCODERS[encoder].devices)
    except Rejected as refusal:
        return refusal.detail
    try:
        async with asyncio.timeout(_TRIAL):
            return await worker.trial(encoder)
    except TimeoutError:
        return f"no answer for {_TRIAL:.0f} s"
    finally:
        await worker.aclose()
