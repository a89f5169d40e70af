"""What players must know of a track before its packets, and when that is another than before."""

from dataclasses import replace

from protocols.bitstream.h26x import NalStream
from protocols.errors import ProtocolError
from protocols.media import EncodedPacket, Track


def described_by(track: Track, packet: EncodedPacket) -> Track | None:
    """With its parameter sets: what comes out of an encoder of ours has them in its key frames alone."""
    if track.extradata:
        return track
    if not packet.keyframe:
        return None
    stream = NalStream(track.codec, track.id)
    try:
        stream.annexb(packet.data)
    except ProtocolError:
        return None
    found = stream.track
    return None if found is None else replace(found, layer=track.layer, frame_rate=found.frame_rate or track.frame_rate)


def differs(before: Track, after: Track) -> bool:
    """Whether a player must be told."""
    return (before.codec, before.extradata, before.width, before.height) != (
        after.codec,
        after.extradata,
        after.width,
        after.height,
    )
