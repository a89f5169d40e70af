"""Payloads are what RFC 6184 says, and leave in runs that the kernel can cut."""

import itertools

import pytest
from aiortc.codecs.h264 import h264_depayload
from hypothesis import given
from hypothesis import strategies as st

from protocols.webrtc.send.packetize import PAYLOAD_LIMIT, RUN_LIMIT, packetize_h264, packetize_opus, runs
from tests.unit.protocols.webrtc.loopback import nal_unit

START = b"\0\0\0\1"


def annex_b(*units: bytes, start: bytes = START) -> bytes:
    return b"".join(start + unit for unit in units)


def depacketized(payloads: list[bytes]) -> bytes:
    return b"".join(map(h264_depayload, payloads))


@pytest.mark.parametrize("size", [2, 3, 1179, 1180, 1181, 1182, 2357, 2358, 2359, 3535, 3536, 100_000])
@pytest.mark.parametrize("start", [START, START[1:]])
def test_a_unit_of_any_size_comes_back_whole(size: int, start: bytes) -> None:
    unit = nal_unit(5, size)
    payloads = packetize_h264(annex_b(unit, start=start))
    assert depacketized(payloads) == annex_b(unit)
    assert max(map(len, payloads)) <= PAYLOAD_LIMIT
    assert {len(payload) for payload in payloads[:-1]} <= {PAYLOAD_LIMIT}  # equal fragments: one run for the kernel


def test_fragments_bear_start_and_end_once() -> None:
    payloads = packetize_h264(annex_b(b"\x65" + b"\1" * 5000))
    assert [payload[:2].hex() for payload in payloads] == ["7c85", "7c05", "7c05", "7c05", "7c45"]


def test_neighbouring_small_units_share_a_packet() -> None:
    sps, pps, sei, idr = nal_unit(7, 20), nal_unit(8, 5), nal_unit(6, 40), nal_unit(5, 5000)
    payloads = packetize_h264(annex_b(sps, pps, sei, idr))
    assert payloads[0] == b"\x78" + b"\0\x14" + sps + b"\0\x05" + pps + b"\0\x28" + sei
    assert depacketized(payloads) == annex_b(sps, pps, sei, idr)


def test_aggregation_takes_the_highest_nri_and_any_f_bit() -> None:
    assert packetize_h264(annex_b(b"\x06\x01", b"\x41\x01"))[0][0] == 0x58
    assert packetize_h264(annex_b(b"\x86\x01", b"\x21\x01"))[0][0] == 0xB8


def test_aggregates_keep_the_limit() -> None:
    units = [nal_unit(1, 587), nal_unit(1, 588), nal_unit(1, 588)]
    assert [len(payload) for payload in packetize_h264(annex_b(*units[:2]))] == [1180]
    assert [len(payload) for payload in packetize_h264(annex_b(*units[1:]))] == [588, 588]


def test_delimiters_filler_and_numbers_of_rtp_itself_are_dropped() -> None:
    picture = nal_unit(1, 50)
    units = [b"\x09\xf0", b"\x0c\xff\xff\x80", picture, *(bytes((0x60 | kind, 1)) for kind in (0, 24, 28, 31))]
    assert packetize_h264(annex_b(*units)) == [picture]


def test_zeros_around_units_belong_to_the_byte_stream() -> None:
    first, second = nal_unit(1, 50), nal_unit(1, 60)
    data = b"\0\0" + annex_b(first) + b"\0\0\0" + annex_b(second) + b"\0\0"
    assert depacketized(packetize_h264(data)) == annex_b(first, second)


@pytest.mark.parametrize("data", [b"", b"\0", START, START * 3, b"no start code", b"\0\0\1\x09\xf0"])
def test_data_without_a_unit_gives_nothing(data: bytes) -> None:
    assert packetize_h264(data) == []


@given(st.binary(max_size=400), st.integers(3, 40))
def test_any_bytes_give_payloads_within_the_limit(data: bytes, limit: int) -> None:
    payloads = packetize_h264(data.replace(b"\xff", START), limit)
    assert all(0 < len(payload) <= limit for payload in payloads)


@given(st.lists(st.tuples(st.sampled_from([1, 5, 6, 7, 8]), st.integers(2, 4000)), min_size=1, max_size=12))
def test_any_units_come_back_in_order(shape: list[tuple[int, int]]) -> None:
    units = [nal_unit(kind, size) for kind, size in shape]
    assert depacketized(packetize_h264(annex_b(*units))) == annex_b(*units)


def test_opus_is_sent_as_it_is() -> None:
    assert packetize_opus(b"frame") == [b"frame"]
    assert packetize_opus(b"") == packetize_opus(bytes(PAYLOAD_LIMIT + 1)) == []


@given(st.lists(st.sampled_from([1, 2, 3]), max_size=60))
def test_runs_are_of_one_size_but_the_last_packet_and_lose_nothing(sizes: list[int]) -> None:
    payloads = [bytes((index,)) * size for index, size in enumerate(sizes)]
    cut = list(runs(payloads))
    assert list(itertools.chain.from_iterable(cut)) == payloads
    for run in cut:
        assert 0 < len(run) <= RUN_LIMIT
        assert {len(payload) for payload in run[:-1]} <= {len(run[0])}
        assert len(run[-1]) <= len(run[0])
