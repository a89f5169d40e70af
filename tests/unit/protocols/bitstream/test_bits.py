"""Bits, Exp-Golomb numbers and emulation prevention."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.bitstream.bits import BitReader, unescape
from protocols.errors import ProtocolError


def from_bits(text: str) -> BitReader:
    text = text.replace(" ", "")
    text += "0" * (-len(text) % 8)
    return BitReader(int(text, 2).to_bytes(len(text) // 8, "big"))


def exp_golomb(value: int) -> str:
    return "0" * ((value + 1).bit_length() - 1) + f"{value + 1:b}"


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 2**40 - 1))))
def test_reads_back_what_was_written(items: list[tuple[int, int]]) -> None:
    items = [(size, value & ((1 << size) - 1)) for size, value in items]
    reader = from_bits("".join(f"{value:0{size}b}" for size, value in items if size) or "0")
    assert [reader.bits(size) for size, _ in items] == [value for _, value in items]


@given(st.lists(st.integers(0, 0xFFFFFFFE), min_size=1))
def test_exp_golomb_numbers(values: list[int]) -> None:
    reader = from_bits("".join(map(exp_golomb, values)))
    assert [reader.ue() for _ in values] == values


def test_signed_exp_golomb_numbers_alternate() -> None:
    reader = from_bits("".join(map(exp_golomb, range(6))))
    assert [reader.se() for _ in range(6)] == [0, 1, -1, 2, -2, 3]


@pytest.mark.parametrize(
    "read",
    [
        lambda: from_bits("0" * 64).ue(),
        lambda: BitReader(b"").ue(),
        lambda: BitReader(b"\x00").ue(),
        lambda: BitReader(b"\x08").ue(),  # four zeros, and only three bits after them
        lambda: from_bits(exp_golomb(32)).ue(31),
        lambda: BitReader(b"\xff").bits(9),
        lambda: BitReader(b"\xff").skip(9),
    ],
)
def test_broken_numbers_are_errors(read: Callable[[], object]) -> None:
    with pytest.raises(ProtocolError):
        read()


def test_uvlc() -> None:
    assert from_bits(exp_golomb(9)).uvlc() == 9
    assert from_bits("0" * 32).uvlc() == 0xFFFFFFFF


def test_position_counts_bits() -> None:
    reader = BitReader(b"\x12\x34")
    reader.bits(5)
    reader.skip(2)
    assert (reader.position, len(reader), reader.flag()) == (7, 9, False)


@given(st.binary(max_size=40).map(lambda data: data.replace(b"\xff", b"\x00").replace(b"\xfe", b"\x03")))
def test_emulation_prevention_is_taken_out(payload: bytes) -> None:
    escaped = bytearray()
    for byte in payload:  # H.264 §7.4.1.1
        if byte <= 3 and escaped[-2:] == b"\x00\x00":
            escaped.append(3)
        escaped.append(byte)
    assert unescape(bytes(escaped), 1000) == payload
    assert unescape(bytes(escaped), 5) == unescape(bytes(escaped[:5]), 1000)
