"""The byte cursor: numbers of every size, and never past the end."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import ProtocolError
from protocols.wire import Buffer, Reader

ALL = bytes(range(0xF0, 0x100))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_reads_every_size(kind: Callable[[bytes], Buffer]) -> None:
    assert Reader(kind(ALL)).u8() == 0xF0
    assert Reader(kind(ALL)).u16() == 0xF0F1
    assert Reader(kind(ALL)).u24() == 0xF0F1F2
    assert Reader(kind(ALL)).u32() == 0xF0F1F2F3
    assert Reader(kind(ALL)).i24() == 0xF0F1F2 - 0x1000000
    assert Reader(kind(b"\x7f\xff\xff")).i24() == 0x7FFFFF
    assert Reader(kind(b"\x40\x09\x21\xfb\x54\x44\x2d\x18")).double() == pytest.approx(3.14159265358979)
    assert type(Reader(kind(ALL)).take(3)) is bytes


def test_moves_by_what_it_reads() -> None:
    reader = Reader(ALL)
    reader.skip(1)
    assert (reader.u8(), reader.take(2), len(reader)) == (0xF1, b"\xf2\xf3", 12)
    assert reader.rest() == ALL[4:]
    assert len(reader) == 0
    assert reader.rest() == b""


@pytest.mark.parametrize(
    ("size", "read"),
    [
        (1, Reader.u8),
        (2, Reader.u16),
        (3, Reader.u24),
        (3, Reader.i24),
        (4, Reader.u32),
        (8, Reader.double),
        (5, lambda reader: reader.take(5)),
        (5, lambda reader: reader.skip(5)),
    ],
)
def test_running_out_is_an_error_and_moves_nothing(size: int, read: Callable[[Reader], object]) -> None:
    reader = Reader(memoryview(ALL)[: size - 1])
    with pytest.raises(ProtocolError):
        read(reader)
    assert len(reader) == size - 1


def test_a_negative_count_is_an_error() -> None:
    with pytest.raises(ProtocolError):
        Reader(ALL).take(-1)


@given(st.binary(max_size=64), st.lists(st.integers(0, 70)))
def test_takes_never_overlap_or_skip(data: bytes, counts: list[int]) -> None:
    reader = Reader(data)
    taken = b""
    for count in counts:
        if count <= len(reader):
            taken += reader.take(count)
    assert taken + reader.rest() == data
