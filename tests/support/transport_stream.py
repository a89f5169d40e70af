"""Transport streams of `tests/data/faults` as what is sent over SRT: messages of seven packets, each due by the PCR within."""

import asyncio
from typing import NamedTuple

from tests.support.flv import FAULTS

PACKETS = 7
NULL = b"\x47\x1f\xff\x10" + b"\xff" * 184


class Framing(NamedTuple):
    """Bytes before each message and before each packet."""

    before_message: int = 0
    before_packet: int = 0

    @property
    def size(self) -> int:
        """Of a message, in bytes."""
        return self.before_message + PACKETS * (self.before_packet + 188)


PLAIN = Framing()


class Message(NamedTuple):
    """`due` in seconds after the first."""

    due: float
    data: bytes


def messages(name: str, framing: Framing) -> list[Message]:
    """Those of a file."""
    data = (FAULTS / name).read_bytes()
    made: list[Message] = []
    first = due = None
    for at in range(0, len(data), framing.size):
        message = data[at : at + framing.size]
        while len(message) < framing.size:  # the last one
            message += bytes(framing.before_packet) + NULL
        for start in range(framing.before_message + framing.before_packet, len(message), framing.before_packet + 188):
            due = _pcr(message[start : start + 188]) or due
        first = due if first is None else first
        made.append(Message((due or 0) - (first or 0), message))
    return made


def packets(name: str, framing: Framing) -> bytes:
    """The packets of a file alone."""
    starts = framing.before_message + framing.before_packet
    return b"".join(
        message.data[start : start + 188]
        for message in messages(name, framing)
        for start in range(starts, len(message.data), framing.before_packet + 188)
    )


async def send(to: asyncio.StreamWriter, script: list[Message]) -> None:
    """Each when it is due from now on."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    for message in script:
        await asyncio.sleep(start + message.due - loop.time())  # the encoder's pace, not a wait for anything
        to.write(message.data)
        await to.drain()


def _pcr(packet: bytes) -> float | None:
    """In seconds (ISO/IEC 13818-1 §2.4.3.5), where the packet has one."""
    if not packet[3] & 0x20 or packet[4] < 7 or not packet[5] & 0x10:
        return None
    base = int.from_bytes(packet[6:10]) << 1 | packet[10] >> 7
    return base / 90_000
