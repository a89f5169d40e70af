"""The multivariant playlist of one stream (RFC 8216bis §4.4.6): its layers as variants, its sound as a rendition of its own. Sans-IO."""

from collections.abc import Sequence
from dataclasses import dataclass

from protocols.hls.codecs import codec_string
from protocols.hls.playlist import VERSION
from protocols.media import Track

_AUDIO_GROUP = "sound"


@dataclass(frozen=True, slots=True)
class Variant:
    """A rendition with what is known of it; `bandwidth` is its peak and `average` its mean, in bit/s (0: not known yet)."""

    uri: str
    track: Track
    bandwidth: int
    average: int


def multivariant(videos: Sequence[Variant], sound: Variant | None) -> str:
    """Video variants in the order given, each with the sound; then the sound alone, for those who only listen."""
    lines = ["#EXTM3U", f"#EXT-X-VERSION:{VERSION}"]
    if sound is not None and videos:
        channels = f',CHANNELS="{sound.track.channels}"' if sound.track.channels else ""
        lines.append(
            f'#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="{_AUDIO_GROUP}",NAME="Sound",DEFAULT=YES,AUTOSELECT=YES{channels},URI="{sound.uri}"'
        )
    for video in videos:
        lines += _stream(video, sound)
    if sound is not None:
        lines += _stream(sound, None)
    return "\n".join([*lines, ""])


def _stream(variant: Variant, sound: Variant | None) -> list[str]:
    of = [variant] if sound is None else [variant, sound]
    attributes = [f"BANDWIDTH={max(1, sum(each.bandwidth for each in of))}"]
    if average := sum(each.average for each in of):
        attributes.append(f"AVERAGE-BANDWIDTH={average}")
    codecs = [codec_string(each.track) for each in of]
    if all(codecs):  # §4.4.6.2: every format in it, so all or nothing
        attributes.append(f'CODECS="{",".join(codecs)}"')
    track = variant.track
    if track.width and track.height:
        attributes.append(f"RESOLUTION={track.width}x{track.height}")
    if track.frame_rate:
        attributes.append(f"FRAME-RATE={track.frame_rate:.3f}")
    if sound is not None:
        attributes.append(f'AUDIO="{_AUDIO_GROUP}"')
    return [f"#EXT-X-STREAM-INF:{','.join(attributes)}", variant.uri]
