"""AMF0 as encoders send it, and as nobody should."""

import math
from struct import pack

import pytest

from protocols.errors import ProtocolError
from protocols.rtmp.amf0 import MAX_DEPTH, MAX_VALUES, Value, decode, encode


def text(value: str) -> bytes:
    return pack(">H", len(value.encode())) + value.encode()


END = b"\x00\x00\x09"


def test_what_is_encoded_is_decoded() -> None:
    values: list[Value] = [1.5, True, False, None, "né", "x" * 70000, {"a": {"b": 1.0}, "c": [2.0, "d", None]}, []]
    assert decode(encode(*values)) == values


def test_integers_are_numbers() -> None:
    assert encode(3) == b"\x00" + pack(">d", 3)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"\x06", None, id="undefined"),
        pytest.param(b"\x0d", None, id="unsupported"),
        pytest.param(b"\x07\x00\x01", None, id="reference"),
        pytest.param(b"\x0b" + pack(">dh", 86400000.0, 60), 86400000.0, id="date"),
        pytest.param(b"\x0c\x00\x00\x00\x02hi", "hi", id="long string"),
        pytest.param(b"\x0f\x00\x00\x00\x04<a/>", "<a/>", id="XML"),
        pytest.param(b"\x10" + text("Point") + text("x") + b"\x01\x01" + END, {"x": True}, id="typed object"),
        pytest.param(b"\x0a\x00\x00\x00\x02\x05\x01\x01", [None, True], id="strict array"),
        pytest.param(b"\x08\x00\x00\x00\x01" + text("a") + b"\x05" + END, {"a": None}, id="ECMA array"),
        pytest.param(b"\x08\x00\x00\x00\x63" + text("a") + b"\x05" + END, {"a": None}, id="ECMA array, wrong count"),
        pytest.param(b"\x08\x00\x00\x00\x01" + text("a") + b"\x05", {"a": None}, id="ECMA array without its end"),
        pytest.param(b"\x02\x00\x02\xff\xfe", "\ufffd\ufffd", id="not UTF-8"),
        pytest.param(b"\x03" + text("") + b"\x05" + END, {"": None}, id="empty name"),
    ],
)
def test_markers(data: bytes, expected: Value) -> None:
    assert decode(data) == [expected]


def test_the_end_of_an_object_is_consumed() -> None:
    inner = b"\x03" + text("b") + b"\x00" + pack(">d", 1) + END
    assert decode(b"\x03" + text("a") + inner + text("c") + b"\x05" + END + b"\x01\x00") == [
        {"a": {"b": 1.0}, "c": None},
        False,
    ]


def test_what_follows_an_amf3_switch_is_left_out() -> None:
    assert decode(encode("connect", 1.0) + b"\x11\x0a\x0b\x01\xff\xff") == ["connect", 1.0, None]


def test_nan_is_a_number() -> None:
    (value,) = decode(b"\x00" + pack(">d", math.nan))
    assert isinstance(value, float)
    assert math.isnan(value)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x00\x00", id="short number"),
        pytest.param(b"\x02\x00\x09abc", id="short string"),
        pytest.param(b"\x0c\xff\xff\xff\xff", id="4 GB string"),
        pytest.param(b"\x09", id="object end alone"),
        pytest.param(b"\x04", id="movieclip"),
        pytest.param(b"\x0e", id="recordset"),
        pytest.param(b"\xff", id="unknown"),
        pytest.param(b"\x0a\xff\xff\xff\xff" + b"\x05" * 4000, id="4 G elements"),
        pytest.param(b"\x05" * (MAX_VALUES + 1), id="too many values"),
        pytest.param(b"\x03\x00\x01a" * (MAX_DEPTH + 2), id="objects too deep"),
        pytest.param(b"\x0a\x00\x00\x00\x01" * (MAX_DEPTH + 2), id="arrays too deep"),
        pytest.param(b"\x0a\x00\x00\x07\xd0" * 4 + b"\x05" * 60000, id="arrays of arrays"),
    ],
)
def test_broken_or_unbounded_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(data)


def test_the_deepest_and_the_longest_that_is_allowed() -> None:
    assert len(decode(b"\x05" * MAX_VALUES)) == MAX_VALUES
    decode(b"\x03\x00\x01a" * MAX_DEPTH + b"\x05" + END * MAX_DEPTH)
