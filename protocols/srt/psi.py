"""The tables of a transport stream: which programmes there are and what they are made of (ISO/IEC 13818-1 §2.4.4). Sans-IO.

A section is given out once whole and with a right CRC; anything else is counted and forgotten. Memory is bounded by one section per PID.
"""

import zlib
from dataclasses import dataclass
from struct import Struct
from typing import Final, NamedTuple

MAX_SECTION: Final = 1024  # §2.4.4.1: PAT and PMT sections are at most 1021 bytes behind their length field
_PAT, _PMT = 0x00, 0x02
_CRC_BYTES: Final = 4
_REGISTRATION: Final = 0x05
_ENTRY: Final = Struct(">HH")  # of a PAT: programme number, PMT PID
_LINE: Final = Struct(">BHH").unpack_from  # of a PMT: stream type, PID, size of the descriptors


class ElementaryInfo(NamedTuple):
    """One line of a PMT: what a PID carries."""

    pid: int
    stream_type: int
    descriptors: tuple[tuple[int, bytes], ...]

    @property
    def registration(self) -> bytes:
        """The format identifier (§2.6.8), e.g. b"Opus"; empty where none is given."""
        return next((body[:4] for tag, body in self.descriptors if tag == _REGISTRATION), b"")


@dataclass(frozen=True, slots=True)
class ProgrammeMap:
    """One PMT."""

    programme: int
    streams: tuple[ElementaryInfo, ...]


class SectionReader:
    """Puts the sections of one PID together again. `errors` counts those that were broken."""

    def __init__(self) -> None:
        self.errors = 0
        self._buffer = bytearray()
        self._open = False
        self._last = b""  # tables repeat several times a second: the same bytes are not parsed twice

    def feed(self, payload: bytes, start: bool) -> list[bytes]:
        """Payload of one packet, `start` its payload_unit_start_indicator; gives the sections that are new and whole."""
        sections: list[bytes] = []
        if start:
            pointer = 1 + payload[0] if payload else 0
            if self._open:
                self._buffer += payload[1:pointer]
                self._take(sections)
            self._buffer = bytearray(payload[pointer:])
            self._open = True
        elif self._open:
            self._buffer += payload
        self._take(sections)
        return sections

    def forget(self) -> None:
        """Give the next section out even if it is the same as the last."""
        self._last = b""

    def _take(self, sections: list[bytes]) -> None:
        buffer = self._buffer
        while len(buffer) >= 3 and buffer[0] != 0xFF:  # 0xFF: stuffing up to the end of the packet
            size = 3 + ((buffer[1] & 0x0F) << 8 | buffer[2])
            if size > MAX_SECTION:
                self.errors += 1
                break
            if len(buffer) < size:
                return
            section = bytes(buffer[:size])
            del buffer[:size]
            if section == self._last:
                continue
            if crc32(section):
                self.errors += 1
                continue
            self._last = section
            sections.append(section)
        else:
            if len(buffer) < 3 and not (buffer and buffer[0] == 0xFF):
                return
        self._open = False
        buffer.clear()


def parse_pat(section: bytes) -> dict[int, int] | None:
    """Programme number to PMT PID, in order; None if it is not a current PAT."""
    if section[0] != _PAT or not _is_current(section):
        return None
    end = len(section) - _CRC_BYTES
    entries = _ENTRY.iter_unpack(section[8 : end - (end - 8) % _ENTRY.size])
    return {number: pid & 0x1FFF for number, pid in entries if number}  # 0 names the network information table


def parse_pmt(section: bytes) -> ProgrammeMap | None:
    """None if it is not a current PMT."""
    if section[0] != _PMT or not _is_current(section) or len(section) < 16:
        return None
    end = len(section) - _CRC_BYTES
    at = 12 + (int.from_bytes(section[10:12], "big") & 0x0FFF)
    streams = []
    while at + 5 <= end:
        kind, pid, size = _LINE(section, at)
        at += 5
        following = at + (size & 0x0FFF)
        streams.append(ElementaryInfo(pid & 0x1FFF, kind, _descriptors(section[at : min(following, end)])))
        at = following
    return ProgrammeMap(
        programme=int.from_bytes(section[3:5], "big"),
        streams=tuple(streams),
    )


def _is_current(section: bytes) -> bool:
    return len(section) >= 12 and bool(section[5] & 1)  # current_next_indicator


def _descriptors(raw: bytes) -> tuple[tuple[int, bytes], ...]:
    found = []
    at = 0
    while at + 2 <= len(raw):
        found.append((raw[at], raw[at + 2 : at + 2 + raw[at + 1]]))
        at += 2 + raw[at + 1]
    return tuple(found)


def crc32(data: bytes) -> int:
    """ISO/IEC 13818-1 Annex A; 0 over a section that ends with its own right CRC.

    It is the CRC of zlib with the bits of each byte, and of the sum, the other way round, and without the inversion at the end.
    """
    return int(f"{zlib.crc32(data.translate(_MIRRORED)) ^ 0xFFFFFFFF:032b}"[::-1], 2)


_MIRRORED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
