"""Surround becomes stereo: speech is as loud as it was, nothing is clipped, and all at their own times."""

from collections.abc import Iterator, Mapping

import av
import numpy as np
import pytest

from protocols.media import Codec
from tests.unit.transcode.media import MS, coded_sound, hear, onset
from tests.unit.transcode.worker.test_audio import steps, transcode
from transcode.worker.mixdown import StereoMix

RATE = 48_000
CENTRE = -3.01  # dB to each side, ITU-R BS.775-3
# AAC has five layouts of its own, 1 to 7 in the channel configuration; the rest it tells by a program config element.
LAYOUTS = {
    Codec.AAC: ("mono", "stereo", "3.0", "4.0", "5.0", "5.1", "7.1", "2.1"),
    Codec.AC3: ("5.1(side)",),
    Codec.EAC3: ("5.1(side)",),
    Codec.FLAC: ("7.1",),
    Codec.OPUS: ("5.1", "7.1"),
}
CODED = [pytest.param(codec, layout, id=f"{codec.value}-{layout}") for codec, layouts in LAYOUTS.items() for layout in layouts]


def sounding(
    layout: str, levels: Mapping[str, float], hz: int = 440, seconds: float = 2.0, silent_until: float = 0.0
) -> np.ndarray:
    """A sine in each of the named channels ("all": in every one), by its peak; channels × samples."""
    time = np.arange(round(seconds * RATE)) / RATE
    voice = np.where(time >= silent_until, np.sin(2 * np.pi * hz * time), 0)
    names = [channel.name for channel in av.AudioLayout(layout).channels]
    return np.array([levels.get(name, levels.get("all", 0.0)) * voice for name in names], np.float32)


def mixed(layout: str, samples: np.ndarray, form: str = "flt") -> np.ndarray:
    """samples × 2, of -1 to 1, by the mixdown alone."""
    frames = list(framed(layout, samples, form))
    mix = StereoMix(frames[0])
    parts = [out.to_ndarray().reshape(-1, 2) for frame in [*frames, None] for out in mix.mix(frame)]
    return np.concatenate(parts).astype(np.float64) / 32768


def framed(layout: str, samples: np.ndarray, form: str) -> Iterator[av.AudioFrame]:
    data = samples if form == "flt" else (samples * 32767).astype(np.int16)
    for at in range(0, samples.shape[1], 1024):
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(data[:, at : at + 1024].T).reshape(1, -1), form, layout)
        frame.sample_rate, frame.pts = RATE, None
        yield frame


def decibels(ratio: float) -> float:
    return 20 * float(np.log10(ratio + 1e-9))


def loudness(samples: np.ndarray) -> float:
    """dB of a sine of full scale; without the beginning and the end."""
    return decibels(float(np.sqrt(2 * np.mean(samples[RATE // 2 : -RATE // 4] ** 2))))


def distortion(samples: np.ndarray, hz: int) -> float:
    """All that is not the tone, in dB of the tone, over one second of which the first half is over."""
    power = np.abs(np.fft.rfft(samples[RATE // 2 : RATE // 2 + RATE] * np.hanning(RATE))) ** 2
    tone = power[hz - 3 : hz + 4].sum()
    return 10 * float(np.log10((power.sum() - tone) / tone + 1e-15))


@pytest.mark.parametrize(("codec", "layout"), CODED)
def test_a_voice_keeps_its_loudness(codec: Codec, layout: str) -> None:
    names = [channel.name for channel in av.AudioLayout(layout).channels]
    speaker = "FC" if "FC" in names else "FL"
    track, packets = coded_sound(codec, RATE, layout, sounding(layout, {speaker: 0.25}))
    outputs, transcoder = transcode(track, packets)
    assert transcoder.errors == 0
    # In the mean of both sides, which is what `hear` gives.
    expected = 0.0 if layout == "mono" else CENTRE if speaker == "FC" else decibels(0.5)
    assert loudness(hear(outputs)) - decibels(0.25) == pytest.approx(expected, abs=0.5)


@pytest.mark.parametrize(("codec", "layout"), [each for each in CODED if each.id != "aac-2.1"])  # its encoder bends the tone
def test_all_channels_at_full_scale_are_not_clipped(codec: Codec, layout: str) -> None:
    track, packets = coded_sound(codec, RATE, layout, sounding(layout, {"all": 0.99, "LFE": 0.0}))
    outputs, transcoder = transcode(track, packets)
    assert transcoder.errors == 0
    heard = hear(outputs)
    assert distortion(heard, 440) < -30
    assert loudness(heard) > -2


@pytest.mark.parametrize("form", ["flt", "s16"])
@pytest.mark.parametrize("hz", [50, 100, 440, 5000])
@pytest.mark.parametrize("layout", ["2.1", "4.0", "quad", "5.1", "5.1(side)", "6.1", "7.1"])
def test_the_limiter_bends_no_tone(layout: str, hz: int, form: str) -> None:
    samples = mixed(layout, sounding(layout, {"all": 0.99}, hz))
    assert len(samples) == 2 * RATE
    assert np.abs(samples).max() < 0.9
    assert max(distortion(samples[:, side], hz) for side in (0, 1)) < -70


def test_speech_after_a_loud_bang_is_as_loud_as_before() -> None:
    samples = sounding("5.1", {"FC": 0.25}, seconds=3)
    samples[:, RATE : RATE + RATE // 20] = sounding("5.1", {"all": 0.99}, seconds=0.05)
    left = mixed("5.1", samples)[:, 0]
    before, after = left[RATE // 2 : RATE - RATE // 50], left[2 * RATE :]
    assert decibels(float(np.abs(after).max() / np.abs(before).max())) == pytest.approx(0, abs=0.1)
    assert np.abs(left).max() < 0.9


def test_surround_is_in_time() -> None:
    track, packets = coded_sound(Codec.AAC, RATE, "5.1", sounding("5.1", {"all": 0.5}, silent_until=1.0))
    outputs, _ = transcode(track, packets)
    assert steps(outputs) == {20 * MS}
    assert onset(hear(outputs), outputs[0].pts) == pytest.approx(1000, abs=10)
