"""RTP payloads of H.264 that go on as they came, and those that do not."""

import pytest

from protocols.bitstream.nal import split_annexb
from protocols.errors import ProtocolError
from protocols.media import EncodedPacket
from protocols.webrtc.receive.depacketize import h264_frame, h264_kinds
from protocols.webrtc.send.packetize import packetize_h264
from protocols.whip.passing import PASS_LIMIT, PassingH264
from tests.unit.protocols.bitstream.samples import access_units
from tests.unit.protocols.webrtc.loopback import FRAME, Peer, Timers, nal_unit, video, watch

START = b"\0\0\0\1"
MESSAGE = b"\x06\x05\x10" + b"A" * 16 + b"\x80"  # ITU-T H.264 D.1.7: user data
KEY, *OTHERS = access_units("h264_baseline.h264")


def unit(*kinds: int, size: int = 900) -> bytes:
    return b"".join(START + (MESSAGE if kind == 6 else nal_unit(kind, size)) for kind in kinds)


def bare(key: bytes) -> bytes:
    """A key frame without its parameter sets."""
    return b"".join(START + each for each in split_annexb(key) if each[0] & 0x1F == 5)


def ready() -> PassingH264:
    stream = PassingH264(1)
    stream.take(packetize_h264(KEY))
    return stream


def test_whole_frames_pass_and_are_the_same_as_their_data() -> None:
    stream = PassingH264(1)
    for each in (KEY, *OTHERS):
        payloads = packetize_h264(each, 300)
        made, passing = stream.take(payloads)
        assert passing == tuple(payloads)
        assert made.keyframe is (5 in h264_kinds(payloads))
        assert h264_frame(passing) == made.data


@pytest.mark.parametrize("limit", [200, 1180])
@pytest.mark.parametrize("kinds", [(1,), (1, 1, 1), (6, 1), (6, 1, 1)], ids=str)
def test_pictures_in_one_slice_or_several_and_with_messages_pass(kinds: tuple[int, ...], limit: int) -> None:
    payloads = packetize_h264(unit(*kinds), limit)
    made, passing = ready().take(payloads)
    assert passing == tuple(payloads)
    assert made.data == h264_frame(payloads)
    assert h264_kinds(payloads) == set(kinds)


def test_a_key_frame_without_its_parameter_sets_gets_them_put_before() -> None:
    stream = ready()
    payloads = packetize_h264(bare(KEY))
    made, passing = stream.take(payloads)
    assert made.keyframe
    assert passing[-len(payloads) :] == tuple(payloads)
    assert h264_frame(passing) == made.data
    assert h264_kinds(passing) == {5, 7, 8}


def test_a_picture_before_which_the_sets_changed_has_them_too() -> None:
    stream = ready()
    (pps,) = (each for each in split_annexb(KEY) if each[0] & 0x1F == 8)
    assert stream.take([pps + b"\x80"])[0].data == b""  # another one, by itself
    made, passing = stream.take(packetize_h264(unit(1)))
    assert h264_kinds(passing) == {1, 7, 8}
    assert h264_frame(passing) == made.data


def test_what_is_too_large_for_the_way_or_of_no_use_to_a_decoder_is_made_anew() -> None:
    stream = ready()
    assert stream.take(packetize_h264(unit(1), PASS_LIMIT))[1]
    assert stream.take(packetize_h264(unit(1, size=PASS_LIMIT + 1), PASS_LIMIT + 1))[1] == ()
    assert stream.take([nal_unit(12, 500), nal_unit(1, 500)])[1] == ()  # filler


@pytest.mark.parametrize("cut", [slice(1, None), slice(None, -1), slice(None, None, 2)], ids=["begin", "end", "middle"])
def test_a_frame_in_pieces_that_do_not_fit_never_passes(cut: slice) -> None:
    payloads = packetize_h264(unit(1, size=2000), 300)[cut]
    stream = ready()
    if cut == slice(None, None, 2):  # every other one: nothing but sequence numbers tells, and they are the buffer's business
        payloads[1:1] = payloads[:1]
    with pytest.raises(ProtocolError):
        stream.take(payloads)


def test_a_viewer_gets_the_payloads_to_the_byte_in_packets_of_its_own(peer: Peer, timers: Timers) -> None:
    source = video(timers)
    watch(source, peer, 0)
    stream = PassingH264(1)
    expected: list[bytes] = []
    for number, each in enumerate((KEY, *OTHERS)):
        payloads = packetize_h264(each, 700)
        made, passing = stream.take(payloads)
        at = number * FRAME
        source.push(EncodedPacket(0, at, at, made.keyframe, made.data, at, at, "", passing), at)
        expected += payloads
    packets = peer.receive()
    assert [packet.payload for packet in packets] == expected
    assert sum(packet.marker for packet in packets) == 1 + len(OTHERS)
