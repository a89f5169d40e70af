"""What libopus's complexity costs and what it gives: `python -m tests.bench.opus [seconds]`.

Each programme is coded at each complexity as workers do it (`encoders.open_opus`: stereo, 20 ms) and decoded. *SNR* is of the
programme to what the coder did to it. *Over the mask* is what may be heard of that: in each of the 24 critical bands (Zwicker) of each
21 ms the noise against what the programme masks there, after the noise-to-mask ratio of ITU-R BS.1387 with a mask that is spread over
neighbouring bands and lies 6 dB below them, the mean over all and the worst hundredth; below 0 dB it is not heard. A complexity is as good
as 10 where its figures are within some tenths of a decibel of those of 10. CPU is that of the encoder, in percent of a core of live sound.

The programmes are made here, so that everybody has the same: plucked strings in chords, a voice of pulses through moving formants with
consonants of noise, applause, the worst case for transients, and chimes, the worst for noise in between.
"""

import itertools
import sys
import time
from collections.abc import Callable, Iterator

import av
import numpy as np

from transcode.worker.encoders import OPUS_FRAME, OPUS_RATE, open_opus

COMPLEXITIES = (10, 7, 5, 3, 2, 1, 0)  # 8 and 9 are as 10, 6 as 5, 4 as 3
BITRATES = (128_000, 64_000)
EDGES = (
    0,
    100,
    200,
    300,
    400,
    510,
    630,
    770,
    920,
    1080,
    1270,
    1480,
    1720,
    2000,
    2320,
    2700,
    3150,
    3700,
    4400,
    5300,
    6400,
    7700,
    9500,
)
TOP_EDGES = (12_000, 15_500)  # Hz: the two bands above
WINDOW = 1024
MASKED_DB = 6.0  # by how much noise under a band of the programme is softer than that when it is just heard
QUIET = 1e-9  # of full scale's power, in a band: what is softer masks and is heard as this
ROUNDS = 3
SEED = 15

Sound = np.ndarray
"""Two channels × samples of -1 to 1, at 48 kHz."""


def strings(seconds: float, dice: np.random.Generator) -> Sound:
    """Chords, a string a note (Karplus and Strong), each from its own side."""
    out = np.zeros((2, round(seconds * OPUS_RATE)))
    for at in np.arange(0, seconds, 0.4):
        for step in (0, 4, 7, 12):
            pitch = 110 * 2 ** ((step + dice.integers(0, 12)) / 12)
            length, period = OPUS_RATE, round(OPUS_RATE / pitch)
            string = np.empty(length)
            string[:period] = dice.uniform(-1, 1, period)
            for begin in range(period, length, period):
                before = string[begin - period : begin]
                size = min(period, length - begin)
                string[begin : begin + size] = (0.498 * (before + np.roll(before, 1)))[:size]
            start = round(at * OPUS_RATE)
            side, room = dice.uniform(0.2, 0.8), out.shape[1] - start
            out[:, start : start + length] += np.outer((1 - side, side), 0.25 * string[: min(length, room)])
    return out


def voice(seconds: float, dice: np.random.Generator) -> Sound:
    """Vowels that glide, and every third of a second a consonant."""
    count = round(seconds * OPUS_RATE)
    clock = np.arange(count) / OPUS_RATE
    pitch = 120 + 25 * np.sin(2 * np.pi * 0.7 * clock)
    pulses = np.diff(np.floor(np.cumsum(pitch) / OPUS_RATE), prepend=0)
    consonant = (clock * 3) % 1 < 0.25
    source = np.where(consonant, 0.08 * dice.normal(size=count), pulses + 0.01 * dice.normal(size=count))
    parts = [_formant(source, 500 + 250 * np.sin(2 * np.pi * 1.1 * clock), 90)]
    parts += [
        _formant(source, 1500 + 600 * np.sin(2 * np.pi * 0.9 * clock), 120),
        0.5 * _formant(source, 2700 + 0 * clock, 160),
    ]
    spoken = np.sum(parts, axis=0) + 0.3 * np.where(consonant, source, 0)
    spoken *= 0.5 / np.abs(spoken).max()
    return np.array([spoken, 0.9 * np.roll(spoken, 9)])


def _formant(source: np.ndarray, hz: np.ndarray, width: float) -> np.ndarray:
    """A resonance of two poles that moves."""
    radius = np.exp(-np.pi * width / OPUS_RATE)
    first, second = (2 * radius * np.cos(2 * np.pi * hz / OPUS_RATE)).tolist(), -radius * radius
    out, before, last = [], 0.0, 0.0
    for sample, turn in zip(source.tolist(), first, strict=True):
        before, last = last, sample * (1 - radius) + turn * last + second * before
        out.append(last)
    return np.array(out)


def applause(seconds: float, dice: np.random.Generator) -> Sound:
    """Forty hands."""
    out = np.zeros((2, round(seconds * OPUS_RATE)))
    length = OPUS_RATE // 60
    for _ in range(round(seconds * 40 * 4)):
        start = dice.integers(0, out.shape[1] - length)
        clap = dice.normal(size=length) * np.exp(-np.arange(length) / dice.uniform(60, 160))
        side = dice.uniform(0, 1)
        out[:, start : start + length] += np.outer((1 - side, side), 0.15 * clap)
    return out / max(1.0, float(np.abs(out).max()))


def chimes(seconds: float, dice: np.random.Generator) -> Sound:
    """Small bells, one after the other into silence: an attack, and then few pure tones."""
    out = np.zeros((2, round(seconds * OPUS_RATE)))
    clock = np.arange(OPUS_RATE) / OPUS_RATE
    for at in np.arange(0, seconds, 0.5):
        base, side = dice.uniform(900, 2200), dice.uniform(0.3, 0.7)
        bell = np.sum(
            [np.sin(2 * np.pi * base * part * clock) * np.exp(-clock * (3 + part)) / part for part in (1, 2.76, 5.4)], axis=0
        )
        start = round(at * OPUS_RATE)
        out[:, start : start + OPUS_RATE] += np.outer((1 - side, side), 0.3 * bell[: out.shape[1] - start])
    return out


PROGRAMMES: dict[str, Callable[[float, np.random.Generator], Sound]] = {
    "strings": strings,
    "voice": voice,
    "applause": applause,
    "chimes": chimes,
}


def frames(sound: Sound) -> Iterator[av.AudioFrame]:
    data = np.round(np.clip(sound, -1, 1) * 32767).astype(np.int16)
    for at in range(0, data.shape[1] - OPUS_FRAME + 1, OPUS_FRAME):
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(data[:, at : at + OPUS_FRAME].T).reshape(1, -1), "s16", "stereo"
        )
        frame.sample_rate = OPUS_RATE
        yield frame


def coded(sound: Sound, bitrate: int, complexity: int) -> tuple[Sound, float]:
    """What a listener gets, in step with the programme; and the encoder's CPU seconds for each second of it."""
    given = list(frames(sound))
    encoder = open_opus(bitrate, complexity)
    lag = int.from_bytes((encoder.extradata or b"")[10:12], "little")
    begin = time.thread_time()
    packets = [packet for frame in given for packet in encoder.encode(frame)]
    spent = time.thread_time() - begin
    decoder = av.CodecContext.create("libopus", "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.sample_rate, decoder.layout, decoder.thread_count = OPUS_RATE, "stereo", 1
    parts = [frame.to_ndarray().reshape(-1, 2) for packet in packets for frame in decoder.decode(av.Packet(bytes(packet)))]
    heard = np.concatenate(parts).astype(np.float64).T[:, lag:] / 32768
    return heard, spent / (len(given) * OPUS_FRAME / OPUS_RATE)


def snr(sound: Sound, noise: Sound) -> float:
    return decibels(float(np.sum(sound**2) / np.sum(noise**2)))


def over_mask(sound: Sound, noise: Sound) -> np.ndarray:
    """dB by which the noise is over what the programme masks, in each band of each window and channel."""
    signal, disturbance = bands(sound), bands(noise)
    spread = signal.copy()
    for distance in range(1, 5):  # a band masks those above it with 10 dB less a band, those below with 25
        spread[..., distance:] = np.maximum(spread[..., distance:], signal[..., :-distance] * 10 ** (-1.0 * distance))
        spread[..., :-distance] = np.maximum(spread[..., :-distance], signal[..., distance:] * 10 ** (-2.5 * distance))
    mask = (spread + QUIET) * 10 ** (-MASKED_DB / 10)
    return np.asarray(10 * np.log10((disturbance + QUIET * 1e-3) / mask))


def bands(sound: Sound) -> np.ndarray:
    """channels × windows × bands: power."""
    starts = np.arange(0, sound.shape[1] - WINDOW, WINDOW // 2)
    windows = sound[:, starts[:, None] + np.arange(WINDOW)] * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(windows)) ** 2 / WINDOW**2
    edges = np.round(np.array(EDGES + TOP_EDGES) * WINDOW / OPUS_RATE).astype(int)
    return np.stack([power[..., low : max(high, low + 1)].sum(axis=-1) for low, high in itertools.pairwise(edges)], axis=-1)


def decibels(ratio: float) -> float:
    return 10 * float(np.log10(ratio))


def main(seconds: float) -> None:
    for (name, make), bitrate in itertools.product(PROGRAMMES.items(), BITRATES):
        sound = make(seconds, np.random.default_rng(SEED))
        for complexity in COMPLEXITIES:
            heard, cpu = min((coded(sound, bitrate, complexity) for _ in range(ROUNDS)), key=lambda done: done[1])
            length = min(sound.shape[1], heard.shape[1])
            noise = heard[:, :length] - sound[:, :length]
            over = over_mask(sound[:, :length], noise)
            print(
                f"{name:9} {bitrate // 1000:3} kbit/s  complexity {complexity:2}  CPU {cpu * 100:5.3f} %  "
                f"SNR {snr(sound[:, :length], noise):5.2f} dB  over the mask {decibels(float(np.mean(10 ** (over / 10)))):6.2f} dB, "
                f"worst hundredth {np.quantile(over, 0.99):6.2f} dB",
                flush=True,
            )


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)
