"""Passing through changes nothing."""

from protocols.media import Codec, EncodedPacket, Track
from transcode.host.passthrough import PassthroughStage


async def test_packets_pass_as_they_are() -> None:
    given: list[EncodedPacket] = []
    stage = PassthroughStage(Track(1, Codec.H264), given.append)
    packet = EncodedPacket(1, 0, 0, True, b"x", 0, 0)
    stage.process(packet)
    stage.reconfigure(Track(1, Codec.H264, width=640))
    stage.set_bitrate(1)
    assert given[0] is packet
    assert stage.tracks[0].width == 640
    assert not stage.request_keyframe()
    await stage.aclose()
