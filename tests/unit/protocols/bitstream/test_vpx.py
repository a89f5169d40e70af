"""VP8 and VP9 frames from libvpx."""

from dataclasses import replace

import pytest

from protocols.bitstream.vpx import VpxStream
from protocols.errors import ProtocolError
from protocols.media import Codec, Track
from tests.unit.protocols.bitstream.samples import ivf_frames, sample

VP8 = Track(1, Codec.VP8, width=96, height=64, profile="0", reorder=0)
FACTS = {
    "vp8.ivf": (VP8, "K...K."),
    "vp9.ivf": (replace(VP8, codec=Codec.VP9), "K...K."),
    "vp9_422_10.ivf": (replace(VP8, codec=Codec.VP9, profile="3", bit_depth=10, chroma="4:2:2"), "K.."),
}


@pytest.mark.parametrize("name", FACTS)
def test_frames_pass_as_they_are_and_key_frames_give_the_facts(name: str) -> None:
    facts, keys = FACTS[name]
    stream = VpxStream(facts.codec, 1)
    frames = ivf_frames(sample(name))
    units = [stream.frame(frame) for frame in frames]
    assert [unit.data for unit in units] == frames
    assert "".join("K" if unit.keyframe else "." for unit in units) == keys
    assert [unit.changed for unit in units] == [True] + [False] * (len(units) - 1)
    assert stream.track == facts


@pytest.mark.parametrize("box", [b"", b"\x01\x00\x00\x00"])
def test_the_record_gives_the_level(box: bytes) -> None:
    stream = VpxStream(Codec.VP9, 1)
    stream.configure(box + b"\x00\x1f\x80\x01\x01\x01\x00\x00")
    stream.frame(ivf_frames(sample("vp9.ivf"))[0])
    assert stream.track == replace(FACTS["vp9.ivf"][0], level=31)


def test_no_facts_before_a_key_frame() -> None:
    stream = VpxStream(Codec.VP8, 1)
    unit = stream.frame(ivf_frames(sample("vp8.ivf"))[1])
    assert (unit.keyframe, unit.changed, stream.track) == (False, False, None)


@pytest.mark.parametrize(
    ("codec", "frame"),
    [
        (Codec.VP8, b""),
        (Codec.VP8, b"\x10\x02\x00\x9d\x01\x2a\x60"),
        (Codec.VP8, b"\x10\x02\x00\x9d\x01\x2b\x60\x00\x40\x00"),
        (Codec.VP8, b"\x10\x02\x00\x9d\x01\x2a\x00\xc0\x40\x00"),
        (Codec.VP9, b"\x02"),
        (Codec.VP9, b"\x82\x49\x83\x43\x00\x00\x00\x00\x00"),
        (Codec.VP9, b"\x82\x49\x83\x42\x00"),
    ],
)
def test_broken_frames_are_refused(codec: Codec, frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        VpxStream(codec, 1).frame(frame)


def test_broken_record_is_refused() -> None:
    with pytest.raises(ProtocolError):
        VpxStream(Codec.VP9, 1).configure(b"\x00")
