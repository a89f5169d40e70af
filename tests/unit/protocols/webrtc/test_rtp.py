"""Headers have one layout per m-line, and it is RFC 8285's."""

import struct
from typing import Any

import pytest

from protocols.webrtc.rtp import VERSION_WITH_EXTENSION, HeaderLayout, abs_send_time
from tests.unit.protocols.webrtc.loopback import SECOND, parameters


def written(layout: HeaderLayout, now: int, transport_sequence: int) -> bytes:
    buffer, payload = bytearray(b"\xff" * 2048), b"payload"
    layout.struct.pack_into(
        buffer,
        0,
        VERSION_WITH_EXTENSION,
        96,
        1,
        2,
        3,
        layout.extensions(now),
        transport_sequence * layout.transport_step,
        payload,
    )
    size, end = layout.size, layout.struct.size
    assert end < 1600  # behind the last packet of a run there is as much
    assert buffer[size:end] == payload.ljust(end - size, b"\0")
    assert buffer[end:] == b"\xff" * (2048 - end)
    return bytes(buffer[:size])


def test_all_extensions_byte_for_byte() -> None:
    layout = HeaderLayout.of(parameters(mid="v1"))
    header = written(layout, SECOND, 0x1234)
    assert header[:12] == struct.pack("!BBHLL", 0x90, 96, 1, 2, 3)
    assert header[12:] == bytes.fromhex("bede 0003 22 040000 41 7631 31 1234 0000")


@pytest.mark.parametrize(("least", "wish"), [(0, "0003e8"), (60, "0063e8"), (10_000, "3e83e8")])
def test_the_least_delay_stands_in_steps_of_ten_ms_beside_the_most_which_is_ten_seconds(least: int, wish: str) -> None:
    layout = HeaderLayout.of(parameters(mid="v1", playout_delay_extension=5), least)
    assert written(layout, SECOND, 0x1234)[12:] == bytes.fromhex(f"bede 0004 22 040000 41 7631 52 {wish} 31 1234 0000")


@pytest.mark.parametrize("mid", ["0", "12", "123", "1234", "0123456789abcdef"])
@pytest.mark.parametrize("timed", [0, 2])
@pytest.mark.parametrize("counted", [0, 3])
def test_the_block_is_whole_words_for_every_combination(mid: str, timed: int, counted: int) -> None:
    layout = HeaderLayout.of(parameters(mid=mid, abs_send_time_extension=timed, transport_cc_extension=counted))
    header = written(layout, 5 * SECOND, 9)
    assert len(header) == layout.size == 16 + 4 * int.from_bytes(header[14:16], "big")
    assert mid.encode() in header


def test_absolute_send_time_wraps_at_64_seconds_and_counts_quarter_microseconds() -> None:
    assert abs_send_time(64 * SECOND) == 0
    assert abs_send_time(63 * SECOND) == 63 << 18
    assert abs_send_time(1000) == 0
    assert abs_send_time(3815) == 1


@pytest.mark.parametrize("mid", ["", "x" * 17])
def test_a_mid_of_no_fitting_length_is_left_out(mid: str) -> None:
    assert written(HeaderLayout.of(parameters(mid=mid)), 0, 7)[12:] == bytes.fromhex("bede 0002 22 000000 31 0007 00")


@pytest.mark.parametrize(
    "changes",
    [
        {"mid_extension": 15},
        {"abs_send_time_extension": 15},
        {"transport_cc_extension": 16},
        {"playout_delay_extension": 15},
    ],
)
def test_what_one_byte_headers_cannot_carry_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="one-byte header"):
        HeaderLayout.of(parameters(**changes))


def test_lines_that_agreed_on_the_same_share_a_layout_and_its_time_is_that_of_each_packet() -> None:
    layout, same = HeaderLayout.of(parameters(mid="v1")), HeaderLayout.of(parameters(mid="v1", ssrc=7))
    assert layout is same
    assert layout is not HeaderLayout.of(parameters(mid="v2"))
    times = [SECOND, SECOND, 2 * SECOND, SECOND]
    assert [layout.extensions(now)[5:8] for now in times] == [abs_send_time(now).to_bytes(3, "big") for now in times]
