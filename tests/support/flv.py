"""FLV files (Adobe FLV 10.1 §E.2, E.3) as what an encoder sends over RTMP: each tag is one message."""

from pathlib import Path
from typing import NamedTuple

FAULTS = Path(__file__).parents[1] / "data" / "faults"


class Tag(NamedTuple):
    """`kind` is the message type as well: 8 sound, 9 picture, 18 data; `time` in ms."""

    kind: int
    time: int
    body: bytes


def tags(name: str) -> list[Tag]:
    """Those of a file in `tests/data/faults`, in its order."""
    return read_tags((FAULTS / f"{name}.flv").read_bytes())


def read_tags(data: bytes) -> list[Tag]:
    """Those of a file, in its order."""
    at = int.from_bytes(data[5:9]) + 4
    found: list[Tag] = []
    while at < len(data):
        size = int.from_bytes(data[at + 1 : at + 4])
        time = int.from_bytes(data[at + 4 : at + 7]) | data[at + 7] << 24
        found.append(Tag(data[at], time, data[at + 11 : at + 11 + size]))
        at += 11 + size + 4
    return found


def arrivals(name: str) -> list[int]:
    """When each tag of the file is sent, where its time stamp is what is wrong: ms from the start."""
    return [int(line) for line in (FAULTS / f"{name}.arrivals").read_text().split()]
