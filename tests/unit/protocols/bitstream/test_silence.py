"""Frames of silence: decoders hear nothing in them, for as long as is said."""

import av
import numpy as np
import pytest
from av.audio.codeccontext import AudioCodecContext

from protocols.bitstream.silence import silence
from protocols.media import Codec, Track


def heard(track: Track, frames: int = 10) -> "tuple[np.ndarray, int]":
    """Samples of all channels, and how many of each one frame has."""
    made = silence(track)
    assert made is not None
    decoder = av.CodecContext.create({Codec.OPUS: "libopus", Codec.AAC: "aac"}[track.codec], "r")
    assert isinstance(decoder, AudioCodecContext)
    if track.extradata:
        decoder.extradata = track.extradata
    if track.codec is Codec.OPUS:
        decoder.sample_rate, decoder.layout = 48_000, "stereo"
    sounds = [sound for _ in range(frames) for sound in decoder.decode(av.Packet(made[0]))]
    assert len(sounds) == frames
    return np.concatenate([sound.to_ndarray().reshape(-1) for sound in sounds]), sounds[0].samples


@pytest.mark.parametrize("channels", [1, 2])
def test_opus_is_silent_for_twenty_milliseconds(channels: int) -> None:
    track = Track(1, Codec.OPUS, sample_rate=48_000, channels=channels)
    samples, each = heard(track)
    assert each == 960
    assert not samples.any()
    assert silence(track) is not None
    assert (silence(track) or (b"", 0))[1] == 20_000_000


def config(rate_index: int, channels: int) -> bytes:
    """An AudioSpecificConfig of AAC-LC (ISO/IEC 14496-3 §1.6.2.1)."""
    return (2 << 11 | rate_index << 7 | channels << 3).to_bytes(2)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize(("rate", "index"), [(48_000, 3), (44_100, 4)])
def test_aac_is_silent_in_all_channels(channels: int, rate: int, index: int) -> None:
    track = Track(1, Codec.AAC, config(index, channels), sample_rate=rate, channels=channels)
    samples, each = heard(track)
    assert each == 1024
    assert samples.size == 10 * 1024 * channels
    assert not samples.any()
    assert (silence(track) or (b"", 0))[1] == 1024 * 1_000_000_000 // rate


@pytest.mark.parametrize("track", [Track(1, Codec.MP3, sample_rate=48_000, channels=2), Track(1, Codec.AAC, channels=2)])
def test_of_what_is_not_made_here_there_is_none(track: Track) -> None:
    assert silence(track) is None
