"""One access unit as the gateway keeps it, and the bounds of every one."""

from dataclasses import dataclass

from protocols.errors import ProtocolError
from protocols.wire import Buffer

MAX_BYTES = 8 << 20  # a key frame of 8K at the highest quality; more is an attack
MAX_UNITS = 4096  # NAL units or OBUs of one access unit: a 4K key frame in slices of 1,200 bytes has about 900


@dataclass(frozen=True, slots=True)
class AccessUnit:
    """`data` in the form of `protocols/media.py`; empty if there was no picture in it, only parameter sets or such: nothing to send.

    `keyframe`: decoding can start here. `changed`: the stream's `track` has a new value since the access unit before. `flaw`: what of it
    was left out since it is damaged, in words; empty for nothing.
    """

    data: bytes
    keyframe: bool
    changed: bool
    flaw: str = ""


def check_size(data: Buffer) -> None:
    """Refuse an access unit that is empty or too large."""
    if not 0 < len(data) <= MAX_BYTES:
        raise ProtocolError(f"access unit of {len(data)} bytes")
