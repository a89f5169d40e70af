"""Pictures that are drawn: areas, other pictures and words, in 8-bit 4:2:0. Worker side: imports libav.

The sandbox has no files, hence no fonts: the letters are here, five dots wide and seven high.
"""

from typing import Final

from av import VideoFrame

BLACK: Final = (16, 128, 128)
WHITE: Final = 235  # luma
_WIDE, _HIGH = 5, 7  # dots; one more between letters
_UNKNOWN: Final = bytes.fromhex("1f11111111111f")
_ROWS: Final = {
    "A": "0e11111f111111", "B": "1e11111e11111e", "C": "0e11101010110e", "D": "1e11111111111e", "E": "1f10101e10101f",
    "F": "1f10101e101010", "G": "0e11101711110f", "H": "1111111f111111", "I": "0e04040404040e", "J": "0702020202120c",
    "K": "11121418141211", "L": "1010101010101f", "M": "111b1515111111", "N": "11111915131111", "O": "0e11111111110e",
    "P": "1e11111e101010", "Q": "0e11111115120d", "R": "1e11111e141211", "S": "0f10100e01011e", "T": "1f040404040404",
    "U": "1111111111110e", "V": "11111111110a04", "W": "11111115151b11", "X": "11110a040a1111", "Y": "11110a04040404",
    "Z": "1f01020408101f", "0": "0e11131519110e", "1": "040c040404040e", "2": "0e11010608101f", "3": "0e11010601110e",
    "4": "02060a121f0202", "5": "1f101e0101110e", "6": "0608101e11110e", "7": "1f010204040404", "8": "0e11110e11110e",
    "9": "0e11110f01020c", "-": "0000000e000000", "_": "0000000000001f", ".": "00000000000c0c", ":": "000c0c000c0c00",
    "@": "0e11171517100e", " ": "00000000000000",
}  # fmt: skip
_LETTERS: Final = {letter: bytes.fromhex(rows) for letter, rows in _ROWS.items()}


class Canvas:
    """A picture of an even size, black at first."""

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.height = height
        sizes = (width * height, width * height // 4, width * height // 4)
        self._planes = [bytearray([value]) * size for value, size in zip(BLACK, sizes, strict=True)]

    def paste(self, picture: VideoFrame) -> None:
        """Another one in the middle: of even size, no larger, yuv420p."""
        left, top = (self.width - picture.width) // 4 * 2, (self.height - picture.height) // 4 * 2
        for number, (plane, source) in enumerate(zip(self._planes, picture.planes, strict=True)):
            part = 1 + (number > 0)
            stride, width, data = self.width // part, picture.width // part, memoryview(source)
            for row in range(picture.height // part):
                at = (top // part + row) * stride + left // part
                plane[at : at + width] = data[row * source.line_size : row * source.line_size + width]

    def fill(self, top: int, bottom: int, luma: int) -> None:
        """Grey from side to side, between these even rows."""
        luminance, *chroma = self._planes
        luminance[top * self.width : bottom * self.width] = bytes([luma]) * ((bottom - top) * self.width)
        for plane in chroma:
            plane[top * self.width // 4 : bottom * self.width // 4] = bytes([BLACK[1]]) * ((bottom - top) * self.width // 4)

    def write(self, text: str, middle: int, height: int) -> None:
        """In white capitals, centred, around this row, about so high, and smaller where it would be too long."""
        scale = max(1, min(height // _HIGH, self.width // ((_WIDE + 1) * max(1, len(text)) + 1)))
        left = max(0, (self.width - len(text) * (_WIDE + 1) * scale) // 2)
        top = max(0, middle - _HIGH * scale // 2)
        dot = bytes([WHITE]) * scale
        for number, letter in enumerate(text.upper()):
            for row, bits in enumerate(_LETTERS.get(letter, _UNKNOWN)):
                for column in range(_WIDE):
                    x = left + (number * (_WIDE + 1) + column) * scale
                    if bits >> (_WIDE - 1 - column) & 1 and x + scale <= self.width:
                        self._dot(x, top + row * scale, dot)

    def _dot(self, x: int, y: int, dot: bytes) -> None:
        for row in range(y, min(y + len(dot), self.height)):
            at = row * self.width + x
            self._planes[0][at : at + len(dot)] = dot

    def frame(self) -> VideoFrame:
        frame = VideoFrame(self.width, self.height, "yuv420p")
        for number, (plane, target) in enumerate(zip(self._planes, frame.planes, strict=True)):
            width, height = self.width // (1 + (number > 0)), self.height // (1 + (number > 0))
            rows = bytearray(target.buffer_size)
            for row in range(height):
                rows[row * target.line_size : row * target.line_size + width] = plane[row * width : (row + 1) * width]
            target.update(bytes(rows))
        return frame
