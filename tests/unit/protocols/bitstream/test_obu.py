"""OBUs and their lengths."""

import pytest

from protocols.bitstream.obu import Obu, leb128, read_leb128, split
from protocols.errors import ProtocolError


def test_lengths_end_where_they_say() -> None:
    assert read_leb128(b"\0\xe5\x8e\x26\xff", 1) == (624485, 4)
    assert read_leb128(b"\x85\x80\x00", 0) == (5, 3)  # more bytes than needed are legal
    for value in (0, 127, 128, 16_383, 16_384, 0xFFFFFFFF):
        assert read_leb128(leb128(value), 0) == (value, len(leb128(value)))


@pytest.mark.parametrize(
    "data", [b"", b"\x80", b"\xff" * 9, b"\xff\xff\xff\xff\x7f"], ids=["none", "no end", "too long", "35 bits"]
)
def test_broken_lengths_are_errors(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_leb128(data, 0)


def test_what_is_split_can_be_put_together_in_both_forms() -> None:
    one, other = Obu(b"\x0c\x08", b"with an extension"), Obu(b"\x30", b"plain")
    assert split(one.sized + other.sized) == [one, other]
    assert split(one.sized + other.unsized) == [one, other]
    assert (one.kind, other.kind) == (1, 6)


@pytest.mark.parametrize("data", [b"\xb2\0", b"\x34", b"\x32\x02x"], ids=["forbidden bit", "no extension", "too short"])
def test_broken_obus_are_errors(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        split(data)


def test_dust_is_refused_and_tiles_are_not() -> None:
    delimiter, tile = b"\x12\x00", b"\x22\x1e" + bytes(30)
    assert len(split(delimiter + tile * 512)) == 513
    with pytest.raises(ProtocolError, match="too many"):
        split(delimiter * 40)
