"""Where the packets of a transport stream stand, and what may stand between them (ISO/IEC 13818-1 §2.4.3.2). Sans-IO.

Kept true here:
* Packets of 192 bytes (Blu-ray: 4 of arrival time before each) and of 204 (16 of Reed-Solomon parity behind each) are known by three of
  them in a row; from then on there are packets only that far apart.
* RTP headers (RFC 2250) are no loss, nor are foreign bytes of one size before a sync byte, again and again: other headers.
* Anything else out of sync is skipped and counted. By its share of all that comes it is told whether this is a transport stream.
"""

import re
from typing import Final

from protocols.errors import ProtocolError

PACKET: Final = 188
_SYNC: Final = 0x47
_STRIDES: Final = (192, 204)
_LOST_LIMIT: Final = 128 << 10  # bytes out of sync beyond those in sync
# A sync byte with another a packet behind it, or with two more at the distances of longer packets
_IN_SYNC: Final = re.compile(
    rb"\x47(?=.{%d}\x47|" % (PACKET - 1) + b"|".join(rb".{%d}\x47.{%d}\x47" % (n - 1, n - 1) for n in _STRIDES) + rb")",
    re.DOTALL,
)


class PacketSync:
    """The sync of one connection. `lost` is what was out of it, in bytes."""

    def __init__(self) -> None:
        self.lost = 0
        self.stride = PACKET
        """From one packet to the next; more than `PACKET`: `packets` takes out what is between them."""
        self._owed = 0  # foreign bytes that have not come yet
        self._header = 0  # size of the foreign bytes that were skipped last,
        self._known = False  # and before that
        self._judged = self._balance = 0

    def packets(self, data: bytes) -> tuple[bytes, bytes]:
        """Of packets that are `stride` apart: these alone, and the beginning of one more. Where a sync byte is missing all that follows
        is given as it is, and `stride` is `PACKET` again."""
        stride = self.stride
        data, self._owed = data[self._owed :], max(0, self._owed - len(data))
        count = (len(data) - PACKET) // stride + 1
        in_sync = count
        if data[: count * stride : stride].count(_SYNC) != count:
            in_sync = next(n for n in range(count) if data[n * stride] != _SYNC)
        whole = [data[at : at + PACKET] for at in range(0, in_sync * stride, stride)]
        at = in_sync * stride
        if in_sync < count:
            self.stride = PACKET
            return b"".join((*whole, data[at:])), b""
        self._owed += max(0, at - len(data))
        return b"".join(whole), data[at:]

    def find(self, data: bytes, position: int) -> int:
        """The place of the next packet, where there should be one at `position` and is not. At least `PACKET` bytes follow that."""
        size, at = len(data), position + _rtp_header(data, position)
        if at > position and data[at : at + 1] == b"\x47":
            return at
        at = position + self._header
        if self._header and data[at] == _SYNC and (self._known or at + PACKET >= size or data[at + PACKET] == _SYNC):
            self._known = True
            return at
        found = _IN_SYNC.search(data, position + 1)
        at = found.start() if found else data.find(_SYNC, max(position + 1, size - PACKET))
        if at == -1:
            at = size
        elif found and data[at + PACKET : at + PACKET + 1] != b"\x47":
            self.stride = next(stride for stride in _STRIDES if data[at + stride] == data[at + 2 * stride] == _SYNC)
        self.lost += at - position
        self._header, self._known = at - position if at - position < PACKET else 0, False
        return at

    def judge(self, in_sync: int) -> None:
        """So many bytes more were in sync. Raises `ProtocolError` where more have been out of it for long."""
        self._balance = max(0, self._balance + self.lost - self._judged - in_sync)
        self._judged = self.lost
        if self._balance > _LOST_LIMIT:
            raise ProtocolError("this is not MPEG-TS: send a transport stream over SRT (ffmpeg: -f mpegts)")


def _rtp_header(data: bytes, at: int) -> int:
    """The size of the RTP header (RFC 3550 §5.1) that begins there, 0 for none."""
    if data[at] >> 6 != 2:
        return 0
    size = 12 + 4 * (data[at] & 15)
    if data[at] & 0x10:  # its extension: two bytes of its profile's, then its size in words
        size += 4 + 4 * int.from_bytes(data[at + size + 2 : at + size + 4])
    return size
