"""Any audio becomes Opus: right pitch, exact steps, in time, through gaps, drift and changes."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from protocols.media import Codec, EncodedPacket, Track
from tests.support.flv import tags
from tests.unit.transcode.media import MS, SECOND, hear, onset, pitch, shifted, tone
from transcode.plan import AudioTarget
from transcode.worker.audio import AudioTranscoder

STEP = 20 * MS

SOURCES = [
    pytest.param(Codec.AAC, 48_000, "stereo", id="aac-48k-stereo"),
    pytest.param(Codec.AAC, 44_100, "mono", id="aac-44.1k-mono"),
    pytest.param(Codec.AAC, 22_050, "stereo", id="aac-22.05k"),
    pytest.param(Codec.AAC, 96_000, "stereo", id="aac-96k"),
    pytest.param(Codec.AAC, 48_000, "5.1", id="aac-5.1"),
    pytest.param(Codec.MP3, 44_100, "stereo", id="mp3"),
    pytest.param(Codec.MP2, 48_000, "stereo", id="mp2"),
    pytest.param(Codec.AC3, 48_000, "5.1", id="ac3-5.1"),
    pytest.param(Codec.EAC3, 48_000, "stereo", id="eac3"),
    pytest.param(Codec.FLAC, 44_100, "stereo", id="flac"),
    pytest.param(Codec.OPUS, 48_000, "mono", id="opus-mono"),
    pytest.param(Codec.G711_ALAW, 8_000, "mono", id="G.711 A-law"),
    pytest.param(Codec.G711_ULAW, 8_000, "stereo", id="G.711 µ-law"),
    pytest.param(Codec.PCM, 44_100, "stereo", id="pcm"),
    pytest.param(Codec.PCM, 11_025, "mono", id="pcm-mono"),
]


def transcode(track: Track, packets: list[EncodedPacket]) -> tuple[list[EncodedPacket], AudioTranscoder]:
    transcoder = AudioTranscoder(track, AudioTarget())
    return [output for packet in packets for output in transcoder.take(packet)], transcoder


def steps(packets: list[EncodedPacket]) -> set[int]:
    return {b.pts - a.pts for a, b in itertools.pairwise(packets)}


@pytest.mark.parametrize(("codec", "rate", "layout"), SOURCES)
def test_pitch_steps_and_time_are_kept(codec: Codec, rate: int, layout: str) -> None:
    outputs, transcoder = transcode(*tone(codec, rate, layout, silent_until=1.0))
    assert transcoder.errors == 0
    assert steps(outputs) == {STEP}
    assert len(outputs) * STEP == pytest.approx(3 * SECOND, abs=80 * MS)
    samples = hear(outputs)
    assert pitch(samples[72_000:120_000]) == pytest.approx(1000, abs=2)
    assert abs(samples[72_000:120_000]).max() > 0.2
    assert onset(samples, outputs[0].pts) == pytest.approx(1000, abs=10)


def test_pcm_of_8_bits() -> None:
    track, packets = tone(Codec.PCM, 22_050, "mono")
    narrow = [packet._replace(data=bytes(byte ^ 0x80 for byte in packet.data[1::2])) for packet in packets]
    outputs, transcoder = transcode(replace(track, bit_depth=8), narrow)
    assert transcoder.errors == 0
    assert pitch(hear(outputs)[48_000:96_000]) == pytest.approx(1000, abs=2)


def test_speex_keeps_to_a_steady_tone() -> None:
    """Of libspeex; libav's own decoder leaves it after 3 s."""
    frames = [tag for tag in tags("rtmp-speex") if tag.kind == 8]
    packets = [EncodedPacket(2, tag.time * MS, tag.time * MS, True, tag.body[1:], 1, 2) for tag in frames]
    outputs, transcoder = transcode(Track(2, Codec.SPEEX, sample_rate=16_000, channels=1), packets)
    assert transcoder.errors == 0
    samples = hear(outputs)
    for second in range(4):
        part = samples[second * 48_000 : (second + 1) * 48_000 - 4_800]
        assert pitch(part) == pytest.approx(1000, abs=2)
        assert 0.05 < np.sqrt(np.mean(part**2)) < 0.11


def test_a_surround_opus_becomes_stereo() -> None:
    outputs, transcoder = transcode(*tone(Codec.OPUS, 48_000, "5.1"))
    assert transcoder.errors == 0
    assert steps(outputs) == {STEP}
    assert pitch(hear(outputs)[48_000:96_000]) == pytest.approx(1000, abs=2)


def test_an_output_names_the_packet_that_completed_it() -> None:
    track, packets = tone(Codec.AAC, 48_000)
    transcoder = AudioTranscoder(track, AudioTarget())
    for packet in packets:
        for output in transcoder.take(packet):
            assert (output.begun, output.arrival) == (packet.begun, packet.arrival)
            # the whole of it had come, and no more than one source frame (21.3 ms) had to wait
            assert 0 <= packet.pts + 22 * MS - (output.pts + STEP) < 45 * MS


def test_a_change_of_rate_and_channels_ends_nothing() -> None:
    first_track, first = tone(Codec.AAC, 48_000, "stereo", seconds=2)
    second_track, second = tone(Codec.AAC, 44_100, "mono", seconds=2)
    transcoder = AudioTranscoder(first_track, AudioTarget())
    outputs = [output for packet in first for output in transcoder.take(packet)]
    before = len(outputs)
    transcoder.reopen(second_track)
    offset = first[-1].pts + 21 * MS - second[0].pts
    outputs += [output for packet in shifted(second, offset) for output in transcoder.take(packet)]
    assert transcoder.errors == 0
    assert steps(outputs) == {STEP}
    assert len(outputs) - before == pytest.approx(100, abs=4)
    assert pitch(hear(outputs)[-72_000:-24_000]) == pytest.approx(1000, abs=2)


def test_a_gap_starts_the_steps_anew_at_the_sources_time() -> None:
    track, packets = tone(Codec.AAC, 48_000)
    outputs, _ = transcode(track, packets[:50] + packets[60:])
    gap = max(steps(outputs))
    assert steps(outputs) == {STEP, gap}
    assert gap == pytest.approx(10 * 1024 * SECOND // 48_000, abs=45 * MS)
    after = next(b for a, b in itertools.pairwise(outputs) if b.pts - a.pts == gap)
    assert after.pts == packets[60].pts - 2_500_000  # less the encoder's look-ahead


def test_a_jump_back_starts_anew() -> None:
    track, packets = tone(Codec.AAC, 48_000)
    outputs, _ = transcode(track, [*packets, *shifted(packets, -10 * SECOND)])
    assert sum(b.pts < a.pts for a, b in itertools.pairwise(outputs)) == 1
    assert outputs[-1].pts == pytest.approx(packets[-1].pts - 10 * SECOND, abs=45 * MS)


@pytest.mark.parametrize("parts_per_million", [-300, 300])
def test_a_drifting_clock_is_followed_without_a_gap(parts_per_million: int) -> None:
    track, packets = tone(Codec.AAC, 48_000, seconds=56, silent_until=55.0)
    stretched = [
        EncodedPacket(2, pts, pts, True, packet.data, 0, 0)
        for packet in packets
        for pts in [(packet.pts + packet.pts * parts_per_million // 1_000_000) // MS * MS]
    ]
    outputs, _ = transcode(track, stretched)
    assert steps(outputs) == {STEP}
    # unfollowed it would be 16.5 ms away by now
    assert onset(hear(outputs), outputs[0].pts) == pytest.approx(55_000 * (1 + parts_per_million / 1e6), abs=4)


def test_rounded_times_are_not_taken_for_drift() -> None:
    exact, _ = transcode(*tone(Codec.AAC, 44_100, rounded=False, seconds=20))
    rounded, _ = transcode(*tone(Codec.AAC, 44_100, rounded=True, seconds=20))
    assert [packet.data for packet in exact] == [packet.data for packet in rounded]


def test_a_refused_packet_is_counted_and_the_rest_is_heard() -> None:
    track, packets = tone(Codec.AAC, 48_000)
    broken = [packet._replace(data=b"\xff" * 40) if number in (20, 21) else packet for number, packet in enumerate(packets)]
    outputs, transcoder = transcode(track, broken)
    assert transcoder.errors == 2
    assert len(outputs) > 140
    assert pitch(hear(outputs)[-72_000:-24_000]) == pytest.approx(1000, abs=2)


def test_a_broken_configuration_is_counted_for_each_packet() -> None:
    track, packets = tone(Codec.AAC, 48_000)
    outputs, transcoder = transcode(Track(2, Codec.AAC, extradata=b"\xff\xff\xff\xff\xff"), packets[:10])
    assert not outputs
    assert transcoder.errors == 10
    transcoder.reopen(track)
    assert any(list(transcoder.take(packet)) for packet in packets[10:20])


def test_what_came_before_a_jump_is_heard_up_to_it() -> None:
    track, packets = tone(Codec.AAC, 48_000)
    outputs, _ = transcode(track, [*packets[:50], *shifted(packets[50:], 5 * SECOND)])
    before = [packet for packet in outputs if packet.pts < packets[50].pts]
    assert packets[50].pts <= before[-1].pts + STEP + 2_500_000 < packets[50].pts + STEP
    samples = hear(before)
    assert np.abs(samples[(packets[49].pts - before[0].pts) * 48 // MS :]).max() > 0.2


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_many_jumps_leave_the_sound_at_its_time(rate: int) -> None:
    track, packets = tone(Codec.AAC, rate, seconds=8, silent_until=7.55, rounded=False)
    jumping = [packet._replace(pts=packet.pts + number // 10 * SECOND) for number, packet in enumerate(packets)]
    outputs, transcoder = transcode(track, jumping)
    assert transcoder.errors == 0
    assert sum(step != STEP for step in (b.pts - a.pts for a, b in itertools.pairwise(outputs))) == (len(packets) - 1) // 10
    loud = int(np.flatnonzero(np.abs(hear(outputs)) > 0.1)[0])
    begun = outputs[loud // 960].pts + loud % 960 * MS // 48
    source = max(number for number, packet in enumerate(packets) if packet.pts <= 7550 * MS)
    assert begun == pytest.approx(7550 * MS + source // 10 * SECOND, abs=3 * MS)


def test_a_packet_of_more_than_a_second_is_refused() -> None:
    track = Track(2, Codec.G711_ALAW, sample_rate=8_000, channels=1)
    packets = [EncodedPacket(2, pts * SECOND, pts * SECOND, True, bytes(size), 0, 0) for pts, size in ((0, 8_000), (1, 8_001))]
    outputs, transcoder = transcode(track, packets)
    assert transcoder.errors == 1
    assert len(outputs) * STEP == pytest.approx(SECOND, abs=STEP)
