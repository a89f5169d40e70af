"""What changes is paid with bytes of the stream."""

import pytest

from protocols.bitstream.changes import AT_ONCE, ChangeAllowance
from protocols.bitstream.h26x import NalStream
from protocols.errors import ProtocolError
from protocols.media import Codec
from tests.unit.protocols.bitstream.samples import access_units, parameter_sets

START = b"\x00\x00\x01"


def test_a_stream_may_change_at_once_and_then_by_its_bytes() -> None:
    changes = ChangeAllowance()
    changes.spend(AT_ONCE)
    with pytest.raises(ProtocolError, match="too often"):
        changes.spend(1)
    changes.earn(1000)
    changes.spend(600)
    with pytest.raises(ProtocolError):
        changes.spend(600)
    changes.spend(400)  # what was refused cost nothing


def test_no_more_than_that_is_saved_up() -> None:
    changes = ChangeAllowance()
    changes.earn(100 * AT_ONCE)
    changes.spend(AT_ONCE)
    with pytest.raises(ProtocolError):
        changes.spend(1)


def pps(number: int) -> bytes:
    return START + b"\x68\xce" + number.to_bytes(2, "big") + b"\x80"


def test_parameter_sets_that_change_without_media_are_refused_in_the_end() -> None:
    stream = NalStream(Codec.H264, 1)
    with pytest.raises(ProtocolError, match="too often"):
        [stream.annexb(pps(number)) for number in range(2000)]


def test_a_real_stream_may_change_its_sets_with_every_picture() -> None:
    stream = NalStream(Codec.H264, 1)
    sets = b"".join([START + unit for unit in parameter_sets("h264_1080p.h264")])
    picture = next(access_units("h264_1080p.h264")) + bytes(3000) + b"\x80"
    keys = [stream.annexb(sets + pps(number) + picture) for number in range(2000)]
    assert all(unit.keyframe for unit in keys)
