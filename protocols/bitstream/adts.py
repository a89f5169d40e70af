"""AAC with ADTS headers (ISO/IEC 13818-7 §6.2): what a header says, and the AudioSpecificConfig that says the same. Sans-IO."""

from typing import Final, NamedTuple

from protocols.errors import ProtocolError
from protocols.wire import Buffer

SAMPLES: Final = 1024  # of a frame, before SBR doubles them
_RATES: Final = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)


class AdtsFrame(NamedTuple):
    """`size` with the header, `header` alone (bytes); `config` is its AudioSpecificConfig; `duration` in ns."""

    size: int
    header: int
    config: bytes
    duration: int


def read_adts(data: Buffer, at: int = 0) -> AdtsFrame | None:
    """The frame that begins there; None where its header is not whole. Raises `ProtocolError` for what is no header."""
    if len(data) - at < 7:
        return None
    if data[at] != 0xFF or data[at + 1] & 0xF6 != 0xF0:
        raise ProtocolError("no ADTS header")
    size = (data[at + 3] & 3) << 11 | data[at + 4] << 3 | data[at + 5] >> 5
    profile, rate = data[at + 2] >> 6, data[at + 2] >> 2 & 15
    layout = (data[at + 2] & 1) << 2 | data[at + 3] >> 6
    if size < 8 or rate >= len(_RATES) or data[at + 6] & 3:  # several raw data blocks in a frame: nobody sends them
        raise ProtocolError("broken ADTS header")
    # audioObjectType is the profile and 1; sampling index and channel configuration stand as they are
    config = ((profile + 1) << 11 | rate << 7 | layout << 3).to_bytes(2)
    return AdtsFrame(size, 7 if data[at + 1] & 1 else 9, config, SAMPLES * 1_000_000_000 // _RATES[rate])
