"""ADTS headers, and the AudioSpecificConfigs that say the same."""

import pytest

from protocols.bitstream.adts import read_adts
from protocols.bitstream.audio import aac_track
from protocols.errors import ProtocolError
from tests.support.flv import tags

FRAMES = [tag.body[2:] for tag in tags("rtmp-adts-in-tags") if tag.kind == 8]


def test_a_header_says_what_a_configuration_does() -> None:
    for data in FRAMES:
        frame = read_adts(data)
        assert frame is not None
        assert (frame.size, frame.header, frame.duration) == (len(data), 7, 21_333_333)
        track = aac_track(1, frame.config)
        assert (track.profile, track.sample_rate, track.channels) == ("LC", 48000, 2)


def test_frames_stand_one_after_the_other() -> None:
    joined = FRAMES[0] + FRAMES[1]
    frame = read_adts(joined, len(FRAMES[0]))
    assert frame is not None
    assert frame.size == len(FRAMES[1])
    assert read_adts(joined[:6]) is None, "not whole"


@pytest.mark.parametrize(
    "header",
    [
        pytest.param("21104c800f9ffc", id="no sync word"),
        pytest.param("fff17c800f9ffc", id="no such rate"),
        pytest.param("fff14c80001ffc", id="shorter than its header"),
        pytest.param("fff14c800f9ffd", id="two raw data blocks"),
    ],
)
def test_what_is_no_header(header: str) -> None:
    with pytest.raises(ProtocolError):
        read_adts(bytes.fromhex(header))
