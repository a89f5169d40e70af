"""AAC in LATM: the access units inside an AudioMuxElement (ISO/IEC 14496-3 §1.7). Sans-IO.

What broadcast sends is taken: one programme, one layer, frames of variable length. Anything else is a `ProtocolError`.
"""

from typing import Final, NamedTuple

from protocols.bitstream.bits import BitReader
from protocols.bitstream.changes import ChangeAllowance
from protocols.errors import ProtocolError

AAC_RATES: Final = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)  # §1.6.3.3
_SBR, _PS = 5, 29
_LONGEST_OTHER: Final = 4  # bytes of otherDataLenBits
_CONFIG_WORTH: Final = 2048  # bytes of the stream that a new AudioSpecificConfig is worth,
_MUX_WORTH: Final = 128  # and the same in another StreamMuxConfig
_ESCAPE = 15  # §1.6.3.3: the rate follows in 24 bits
_GENERAL_AUDIO = frozenset({1, 2, 3, 4})  # AAC Main, LC, SSR, LTP


class LatmReader:
    """Remembers the StreamMuxConfig, which need not come with every element."""

    def __init__(self) -> None:
        self.config = b""
        """The AudioSpecificConfig, once known."""
        self.rate = 48000
        """Samples a second before SBR: an access unit has 1024 of them."""
        self._changes = ChangeAllowance()
        self._last = _MuxConfig(0, 0, False, 1, b"", 48000)

    def access_units(self, element: bytes) -> list[bytes]:
        """Raw AAC access units of one AudioMuxElement with muxConfigPresent; none before the first configuration."""
        self._changes.earn(len(element))
        bits = BitReader(element)
        if not bits.flag():  # useSameStreamMux
            self._stream_mux_config(bits, element)
        if not self.config:
            return []
        payload = _whole_bytes(element, bits.position)
        units, at = [], 0
        for _ in range(self._last.subframes):
            size = 0
            while True:  # PayloadLengthInfo: bytes up to the first that is not 255
                if at + size >= len(payload):
                    raise ProtocolError("LATM with a length that leads out of its element")
                more = payload[at]
                at += 1
                size += more
                if more != 255:
                    break
            if at + size > len(payload):
                raise ProtocolError("LATM with a length that leads out of its element")
            units.append(payload[at : at + size])
            at += size
        return [unit for unit in units if unit]

    def _stream_mux_config(self, bits: BitReader, element: bytes) -> None:
        """§1.7.3, Table 1.42."""
        mux = self._last
        if mux.size and len(element) * 8 >= mux.size and _first_bits(element, mux.size) == mux.value:  # as nearly always
            bits.skip(mux.size - bits.position)
        else:
            mux = _read_mux_config(bits, element)
            self._changes.spend(_MUX_WORTH if mux.config == self.config else _CONFIG_WORTH)
        if bits.bits(3):  # frameLengthType
            raise ProtocolError("LATM with frames of fixed length")
        bits.skip(8)  # latmBufferFullness
        if bits.flag():  # otherDataPresent
            if mux.version:
                _latm_value(bits)
            else:
                for _ in range(_LONGEST_OTHER):
                    if not bits.flag():
                        break
                    bits.skip(8)
                else:
                    raise ProtocolError("LATM with an endless length of other data")
                bits.skip(8)
        if bits.flag():
            bits.skip(8)  # crcCheckSum
        self.config, self.rate, self._last = mux.config, mux.rate, mux


class _MuxConfig(NamedTuple):
    """A StreamMuxConfig up to the end of its AudioSpecificConfig, in the first `size` bits of its element, whose number is `value`."""

    size: int
    value: int
    version: bool
    subframes: int
    config: bytes
    rate: int


def _read_mux_config(bits: BitReader, element: bytes) -> _MuxConfig:
    version = bits.flag()
    if version and bits.flag():
        raise ProtocolError("LATM with audioMuxVersionA 1")
    if version:
        _latm_value(bits)  # taraBufferFullness
    if not bits.flag():
        raise ProtocolError("LATM with streams of different time framing")
    subframes = bits.bits(6) + 1
    if bits.bits(4) or bits.bits(3):
        raise ProtocolError("LATM with several programmes or layers")
    config = _take(bits, _latm_value(bits) if version else _config_size(element, bits.position))
    size = bits.position
    return _MuxConfig(size, _first_bits(element, size), version, subframes, config, _core_rate(config))


def _first_bits(data: bytes, size: int) -> int:
    return int.from_bytes(data[: (size + 7) // 8]) >> -size % 8


def _whole_bytes(data: bytes, start: int) -> bytes:
    """The bytes from bit `start` on, without the bits of a last one that is not whole."""
    size, rest = divmod(8 * len(data) - start, 8)
    return (int.from_bytes(data) >> rest & (1 << 8 * size) - 1).to_bytes(size)


def _latm_value(bits: BitReader) -> int:
    value = 0
    for _ in range(bits.bits(2) + 1):
        value = value << 8 | bits.bits(8)
    return value


def _take(bits: BitReader, size: int) -> bytes:
    """`size` bits, padded with zeros to whole bytes."""
    if not 0 < size <= 8 * 64:
        raise ProtocolError(f"LATM with an AudioSpecificConfig of {size} bits")
    return (bits.bits(size) << -size % 8).to_bytes((size + 7) // 8, "big")


def _config_size(element: bytes, start: int) -> int:
    """Bits of an AudioSpecificConfig at bit `start` whose end is known only by parsing it (audioMuxVersion 0)."""
    bits = BitReader(element)
    bits.skip(start)
    kind = _object_type(bits)
    _skip_rate(bits)
    layout = bits.bits(4)
    if kind in (_SBR, _PS):
        _skip_rate(bits)
        kind = _object_type(bits)
    if not layout or kind not in _GENERAL_AUDIO:
        raise ProtocolError(f"LATM with AAC object type {kind}, channel configuration {layout}")
    bits.skip(1)  # §4.4.1: frameLengthFlag
    if bits.flag():  # dependsOnCoreCoder
        bits.skip(14)
    bits.skip(1)  # extensionFlag: nothing follows it for these object types
    return bits.position - start


def _object_type(bits: BitReader) -> int:
    kind = bits.bits(5)
    return 32 + bits.bits(6) if kind == 31 else kind


def _core_rate(config: bytes) -> int:
    """The first sampling frequency of an AudioSpecificConfig: where SBR is signalled, the one below it."""
    bits = BitReader(config)
    _object_type(bits)
    index = bits.bits(4)
    rate = bits.bits(24) if index == _ESCAPE else AAC_RATES[index] if index < len(AAC_RATES) else 0
    if not 4000 <= rate <= 192_000:
        raise ProtocolError("AAC sample rate is out of range")
    return rate


def _skip_rate(bits: BitReader) -> None:
    if bits.bits(4) == _ESCAPE:
        bits.skip(24)
