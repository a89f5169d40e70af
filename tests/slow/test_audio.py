"""Ten minutes of sound."""

import itertools

import numpy as np
import pytest

from protocols.media import Codec, EncodedPacket, Track
from tests.unit.transcode.media import SECOND, hear, shifted, tone
from tests.unit.transcode.worker.test_audio import STEP, steps
from transcode.plan import AudioTarget
from transcode.worker.audio import AudioTranscoder


def test_ten_minutes_through_two_changes_of_rate_have_no_gap_and_no_drift() -> None:
    parts = [(44_100, "mono", 240), (48_000, "stereo", 240), (32_000, "stereo", 120)]
    transcoder = AudioTranscoder(Track(2, Codec.FLAC), AudioTarget())
    outputs: list[EncodedPacket] = []
    changes: list[int] = []
    begin = 0
    for rate, layout, seconds in parts:
        track, packets = tone(Codec.FLAC, rate, layout, seconds=seconds)
        transcoder.reopen(track)
        changes.append(len(outputs))
        outputs += [output for packet in shifted(packets, begin) for output in transcoder.take(packet)]
        begin += seconds * SECOND
    assert transcoder.errors == 0
    assert steps(outputs) == {STEP}
    assert len(outputs) == pytest.approx(600 * 50, abs=2)
    for start, end in itertools.pairwise([*changes, len(outputs)]):
        phases = []  # of the 1 kHz tone in each minute, whole turns left out: 1 turn is 1 ms
        for at in range(start, end - 2999, 3000):
            samples = hear(outputs[at : at + 3000])
            assert quietest(samples[960:], 960) > 0.1, "20 ms without sound"
            phases += [phase(samples[second * 48_000 : (second + 1) * 48_000]) for second in range(1, 60)]
        turns = np.unwrap(phases) / (2 * np.pi)
        assert np.abs(np.diff(turns)).max() < 0.1, "a click"
        assert np.ptp(turns) < (end - start) / 3000, "1 ms in a minute"


def quietest(samples: np.ndarray, window: int) -> float:
    """The least loudness in any window."""
    return float(np.sqrt((samples[: len(samples) // window * window].reshape(-1, window) ** 2).mean(axis=1)).min())


def phase(samples: np.ndarray) -> float:
    """Of a 1 kHz tone in whole turns' worth of samples at 48 kHz."""
    return float(np.angle((samples * np.exp(-2j * np.pi * np.arange(len(samples)) / 48)).sum()))
