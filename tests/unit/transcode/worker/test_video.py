"""Any video becomes H.264 in presentation order: every picture, once, at its time."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from av import VideoFrame
from av.video.codeccontext import VideoCodecContext

from protocols.bitstream.h26x import NalStream
from protocols.media import Codec, EncodedPacket, Track
from tests.support.memory import as_a_call
from tests.unit.transcode.media import MS, SECOND, grey, pictures, see, shifted
from transcode.adaptation import Effort
from transcode.encoder_table import ENCODERS, HARDWARE, VideoEncoder
from transcode.plan import Policy, Transcode, VideoTarget, plan
from transcode.settings import MadeCodec
from transcode.worker.encoders import open_video
from transcode.worker.video import VideoTranscoder

B_FRAMES = {"bf": "3", "b_strategy": "0", "preset": "veryfast"}

SOURCES = [
    pytest.param(Codec.H264, "", {}, id="h264"),
    pytest.param(Codec.H264, "", {**B_FRAMES, "bf": "2"}, id="h264-2-b-frames"),
    pytest.param(Codec.H264, "", {**B_FRAMES, "x264-params": "b-pyramid=normal"}, id="h264-b-pyramid"),
    pytest.param(Codec.H264, "", {**B_FRAMES, "x264-params": "open-gop=1"}, id="h264-open-gop"),
    pytest.param(Codec.H264, "yuv420p10le", {}, id="h264-10-bit"),
    pytest.param(Codec.H264, "yuv422p", {}, id="h264-4:2:2"),
    pytest.param(Codec.H264, "yuv444p", {}, id="h264-4:4:4"),
    pytest.param(Codec.H264, "", {"x264-params": "slices=4"}, id="h264-slices"),
    pytest.param(Codec.HEVC, "", {}, id="hevc"),
    pytest.param(Codec.HEVC, "yuv420p10le", {}, id="hevc-10-bit"),
    pytest.param(Codec.AV1, "", {}, id="av1"),
    pytest.param(Codec.VP9, "", {}, id="vp9"),
    pytest.param(Codec.VP8, "", {}, id="vp8"),
]


def target(track: Track, policy: Policy | None = None) -> VideoTarget:
    decision = plan(track, as_a_call(frozenset({Codec.H264})), policy or Policy(policy="always"))
    assert isinstance(decision, Transcode)
    assert isinstance(decision.target, VideoTarget)
    return decision.target


def transcode(
    track: Track, packets: list[EncodedPacket], policy: Policy | None = None
) -> tuple[list[EncodedPacket], VideoTranscoder]:
    transcoder = VideoTranscoder(track, target(track, policy))
    outputs = [output for packet in packets for output in transcoder.take(packet)]
    return outputs + list(transcoder.finish()), transcoder


@pytest.mark.parametrize(("codec", "pix_fmt", "options"), SOURCES)
def test_every_picture_comes_out_once_and_in_order(codec: Codec, pix_fmt: str, options: dict[str, str]) -> None:
    track, packets = pictures(codec, pix_fmt=pix_fmt, options=options)
    outputs, transcoder = transcode(track, packets)
    assert (transcoder.errors, transcoder.dropped) == (0, 0)
    assert [output.pts for output in outputs] == sorted(packet.pts for packet in packets)
    assert all(output.dts == output.pts for output in outputs)
    # and bears the stamps of the packet that it came from, whatever the order they came in
    assert [(output.begun, output.arrival) for output in outputs] == [(output.pts + 1, output.pts + 2) for output in outputs]
    frames = see(outputs)
    assert [frame.pts for frame in frames] == [output.pts for output in outputs]
    assert {frame.format.name for frame in frames} == {"yuv420p"}


def test_a_stream_with_intra_refresh_that_is_joined_late_is_shown_once_it_is_whole() -> None:
    track, packets = pictures(
        Codec.H264, options={"preset": "veryfast", "bf": "0", "x264-params": "intra-refresh=1"}, seconds=4
    )
    stream = NalStream(Codec.H264, 1)
    units = [stream.annexb(packet.data) for packet in packets]
    read = [packet._replace(keyframe=u.keyframe, data=u.data) for packet, u in zip(packets, units, strict=True)]
    starts = [number for number, packet in enumerate(read) if packet.keyframe]
    assert starts[:2] == [0, 30]
    outputs, transcoder = transcode(track, read[starts[1] - 5 :])  # five that no decoder can use
    assert transcoder.dropped == 5
    assert [output.pts for output in outputs] == [packet.pts for packet in packets[-len(outputs) :]]
    assert len(packets) - 30 - 30 <= len(outputs)
    originals = see(packets)[-len(outputs) :]
    for original, result in zip(originals, see(outputs), strict=True):
        assert np.abs(grey(original) - grey(result)).mean() < 4


def test_what_is_seen_is_what_was_sent() -> None:
    track, packets = pictures(Codec.H264, options=B_FRAMES)
    outputs, _ = transcode(track, packets)
    originals = see(packets)
    for original, result in zip(originals, see(outputs), strict=True):
        assert np.abs(grey(original) - grey(result)).mean() < 4


def test_a_picture_without_reordering_leaves_at_once() -> None:
    track, packets = pictures(Codec.H264)
    transcoder = VideoTranscoder(track, target(track))
    for packet in packets:
        assert [output.pts for output in transcoder.take(packet)] == [packet.pts]


def test_the_output_is_what_an_sdp_with_42e01f_promises() -> None:
    outputs, transcoder = transcode(*pictures(Codec.H264, options=B_FRAMES))
    first = outputs[0].data
    assert outputs[0].keyframe
    # a 4-byte start code and the SPS: baseline (66), constraint_set1 (RFC 6184 §8.1), and no delimiter before it
    assert first[:6] == b"\0\0\0\1\x67\x42"
    assert first[6] & 0x40
    (output,) = transcoder.outputs
    assert (output.codec, output.width, output.height, output.reorder, output.level) == (Codec.H264, 320, 180, 0, first[7])
    assert output.extradata
    assert first.startswith(output.extradata[:8])
    for packet in outputs:
        kinds = [unit[0] & 0x1F for unit in packet.data.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if unit]
        assert (7 in kinds and 8 in kinds and 5 in kinds) == packet.keyframe
        assert not {9, 12} & set(kinds)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p10le"])
def test_the_colours_are_told_as_the_source_told_them(pix_fmt: str) -> None:
    colours = {"colorspace": "bt709", "color_primaries": "bt709", "color_trc": "bt709", "color_range": "tv"}
    outputs, _ = transcode(*pictures(Codec.H264, pix_fmt=pix_fmt, options=colours))
    frame = see(outputs)[0]
    assert (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range) == (1, 1, 1, 1)


def test_full_range_becomes_what_browsers_take() -> None:
    track, packets = pictures(Codec.H264, pix_fmt="yuvj420p", options={"color_range": "pc"})
    outputs, _ = transcode(track, packets)
    original, result = see(packets)[0], see(outputs)[0]
    assert original.color_range == 2
    assert result.color_range in (0, 1)  # unsaid is limited (H.264 E.2.1)
    luma = [frame.to_ndarray()[:180].astype(float) for frame in (original, result)]
    assert np.abs(luma[0] * 219 / 255 + 16 - luma[1]).mean() < 3


def test_a_timeline_that_starts_below_zero_loses_nothing() -> None:
    track, packets = pictures(Codec.H264, options=B_FRAMES, start=-500 * MS)
    outputs, _ = transcode(track, packets)
    assert len(outputs) == len(packets)


def test_interlaced_becomes_progressive() -> None:
    track, packets = pictures(Codec.H264, interlaced=True, options={"preset": "veryfast"})
    outputs, _ = transcode(replace(track, interlaced=False), packets)  # found by the pictures' own flag
    assert [output.pts for output in outputs] == sorted(packet.pts for packet in packets)
    assert not any(frame.interlaced_frame for frame in see(outputs))


def test_a_key_frame_comes_within_two_pictures_of_the_request() -> None:
    track, packets = pictures(Codec.H264, options=B_FRAMES)
    transcoder = VideoTranscoder(track, target(track))
    outputs: list[EncodedPacket] = []
    asked = 0
    for number, packet in enumerate(packets):
        if number == 25:
            transcoder.request_keyframe()
            asked = len(outputs)
        outputs += transcoder.take(packet)
    assert any(output.keyframe for output in outputs[asked : asked + 2])
    assert sum(output.keyframe for output in outputs) == 2


def test_a_new_size_goes_on_with_a_key_frame_and_is_told() -> None:
    track, packets = pictures(Codec.H264, options=B_FRAMES)
    _, larger = pictures(Codec.H264, size=(640, 480), start=2 * SECOND)
    transcoder = VideoTranscoder(track, target(track))
    sizes = []
    outputs = []
    for packet in packets + larger:
        for output in transcoder.take(packet):
            sizes.append((transcoder.outputs[0].width, transcoder.outputs[0].height, output.keyframe))
            outputs.append(output)
    assert sizes[0] == (320, 180, True)
    change = [size[0] for size in sizes].index(640)
    assert change == len(packets)
    assert sizes[change] == (640, 480, True)
    assert len(see(outputs)) == len(outputs) == len(packets) + len(larger)


def test_a_change_of_depth_in_mid_stream_loses_nothing() -> None:
    track, packets = pictures(Codec.H264)
    _, deeper = pictures(Codec.H264, pix_fmt="yuv422p10le", start=2 * SECOND)
    outputs, _ = transcode(track, packets + deeper)
    assert [output.pts for output in outputs] == [packet.pts for packet in packets + deeper]


@pytest.mark.parametrize(
    ("size", "limit", "result"), [((640, 360), (320, 180), (320, 180)), ((180, 320), (160, 90), (90, 160))]
)
def test_a_larger_source_is_scaled_to_the_limits(
    size: tuple[int, int], limit: tuple[int, int], result: tuple[int, int]
) -> None:
    track, packets = pictures(Codec.H264, size=size)
    outputs, transcoder = transcode(track, packets, Policy(max_width=limit[0], max_height=limit[1]))
    assert (transcoder.outputs[0].width, transcoder.outputs[0].height) == result
    assert {(frame.width, frame.height) for frame in see(outputs)} == {result}


def test_more_pictures_than_the_limit_are_thinned_evenly() -> None:
    track, packets = pictures(Codec.H264, rate=60)
    outputs, transcoder = transcode(track, packets, Policy(max_frame_rate=30.0))
    assert len(outputs) == pytest.approx(60, abs=1)
    assert {round((b.pts - a.pts) / MS) for a, b in itertools.pairwise(outputs)} == {33}
    assert transcoder.dropped + len(outputs) == len(packets)


def test_a_varying_rate_stays_varying() -> None:
    track, packets = pictures(Codec.H264)
    times, pts = [], 0
    for number in range(len(packets)):
        times.append(pts)
        pts += (33 if number % 3 else 150) * MS
    varied = [packet._replace(pts=time, dts=time) for packet, time in zip(packets, times, strict=True)]
    outputs, _ = transcode(track, varied)
    assert [output.pts for output in outputs] == times


def bits(outputs: list[EncodedPacket], since: int, until: int) -> float:
    return sum(len(output.data) * 8 for output in outputs if since <= output.pts < until) / ((until - since) / SECOND)


def test_the_bitrate_follows_the_call() -> None:
    track, packets = pictures(Codec.H264, size=(640, 360), seconds=15, noise=20, options={"b": "6M"})
    transcoder = VideoTranscoder(track, replace(target(track), bitrate=600_000))
    outputs: list[EncodedPacket] = []
    told = {5 * SECOND: 150_000, 10 * SECOND: 1_000_000_000}
    for packet in packets:
        if packet.pts in told:
            transcoder.set_bitrate(told[packet.pts])
        outputs += transcoder.take(packet)
    before, after = bits(outputs, 2 * SECOND, 5 * SECOND), bits(outputs, 6 * SECOND, 10 * SECOND)
    assert after < 250_000
    assert before > 1.5 * after
    again = bits(outputs, 12 * SECOND, 15 * SECOND)
    assert 1.5 * after < again < 1.2 * before, "as planned, whatever more there is room for"
    assert len(see(outputs)) == len(packets)


def test_a_key_frame_for_a_way_that_has_narrowed_takes_a_fifth_of_a_second_of_it() -> None:
    track, packets = pictures(Codec.H264, size=(640, 360), seconds=3, noise=20, options={"b": "6M"})
    transcoder = VideoTranscoder(track, replace(target(track), bitrate=600_000))
    outputs: list[EncodedPacket] = []
    for packet in packets:
        if packet.pts == 2 * SECOND:
            transcoder.set_bitrate(150_000)
            transcoder.request_keyframe()
        outputs += transcoder.take(packet)
    (size,) = [len(output.data) for output in outputs if output.keyframe and output.pts > SECOND]
    assert size * 8 <= 0.2 * 150_000
    assert bits(outputs, 2 * SECOND, 3 * SECOND) > 100_000


def test_a_size_that_was_not_planned_for_gets_its_own_bitrate() -> None:
    track, small = pictures(Codec.H264, noise=20)
    _, large = pictures(Codec.H264, size=(960, 540), start=2 * SECOND, seconds=3, noise=20)
    outputs, _ = transcode(track, small + large)
    assert bits(outputs, 0, 2 * SECOND) < 700_000
    assert bits(outputs, 3 * SECOND, 5 * SECOND) > 1_000_000


def test_garbage_is_counted_and_the_next_key_frame_mends_it() -> None:
    track, packets = pictures(Codec.H264, gop=15)
    broken = [packet._replace(data=bytes(range(256))) if 20 <= number < 32 else packet for number, packet in enumerate(packets)]
    outputs, transcoder = transcode(track, broken)
    assert transcoder.errors >= 8
    assert transcoder.errors + transcoder.dropped + len(outputs) == len(packets)
    assert {packet.pts for packet in packets[45:]} <= {output.pts for output in outputs}


def test_nothing_is_decoded_before_a_key_frame() -> None:
    track, packets = pictures(Codec.H264)
    outputs, transcoder = transcode(track, packets[5:])
    assert transcoder.dropped == 25
    assert outputs[0].pts == packets[30].pts
    assert outputs[0].keyframe


def test_silent_packets_are_references_only() -> None:
    track, packets = pictures(Codec.H264)
    transcoder = VideoTranscoder(track, target(track))
    outputs = [output for number, packet in enumerate(packets) for output in transcoder.take(packet, silent=number < 20)]
    assert outputs[0].pts == packets[20].pts
    assert outputs[0].keyframe
    assert np.abs(grey(see(packets)[20]) - grey(see(outputs)[0])).mean() < 4


def test_a_source_that_starts_its_clock_anew_goes_on() -> None:
    track, packets = pictures(Codec.H264, options=B_FRAMES)
    outputs, _ = transcode(track, [*shifted(packets, 60 * SECOND), *packets])
    assert len(outputs) == 2 * len(packets)


def test_it_gets_cheaper_at_once_with_a_key_frame_and_dearer_with_the_next_one() -> None:
    track, packets = pictures(Codec.H264, size=(640, 360), seconds=4)
    transcoder = VideoTranscoder(track, target(track))
    outputs: list[EncodedPacket] = []
    efforts = {20: Effort(lower=2), 40: Effort(lower=2, scale=2 / 3), 60: Effort(lower=2), 80: Effort()}
    for number, packet in enumerate(packets):
        if number in efforts:
            transcoder.set_effort(efforts[number])
        if number == 100:
            transcoder.request_keyframe()
        outputs += transcoder.take(packet)
    assert [output.pts for output in outputs] == [packet.pts for packet in packets]
    assert [number for number, output in enumerate(outputs) if output.keyframe] == [0, 20, 40, 60, 100]
    sizes = [(frame.width, frame.height) for frame in see(outputs)]
    assert [len(list(same)) for _, same in itertools.groupby(sizes)] == [40, 20, 60]
    assert sizes[50] == (426, 240)
    assert (transcoder.outputs[0].width, transcoder.outputs[0].height) == (640, 360)
    # x264 writes its settings into the first packet that each encoder makes
    searches = [re.search(rb" me=(\w+) subme=(\d+)", outputs[number].data) for number in (0, 20)]
    assert [found and found.groups() for found in searches] == [(b"hex", b"2"), (b"dia", b"0")]


@pytest.mark.parametrize("hardware", HARDWARE, ids=lambda encoder: encoder.name)
@pytest.mark.parametrize("size", [(320, 180), (2560, 1440)], ids=["as it is", "scaled"])
def test_without_the_hardware_x264_goes_on_from_the_first_picture(hardware: VideoEncoder, size: tuple[int, int]) -> None:
    notes: list[str] = []
    track, packets = pictures(Codec.H264, size=size, options=B_FRAMES, seconds=0.4)
    aim = target(track, Policy(policy="always", encoder=hardware.name))
    assert aim.encoder == hardware.name
    transcoder = VideoTranscoder(track, aim, note=notes.append)
    outputs = [output for packet in packets for output in transcoder.take(packet)] + list(transcoder.finish())
    assert [output.pts for output in outputs] == sorted(packet.pts for packet in packets)
    assert {(frame.width, frame.height) for frame in see(outputs)} == {min(size, (1920, 1080))}
    (note,) = notes
    assert note.startswith(f"{hardware.label} has failed")


@pytest.mark.parametrize("hardware", ["h264_nvenc", "h264_qsv"])  # of which one takes I420 and one NV12
def test_hardware_that_fails_in_mid_stream_is_replaced_by_x264_without_a_picture_lost(hardware: str) -> None:
    notes: list[str] = []
    opened: list[tuple[str, VideoCodecContext]] = []

    def stand_in(like: VideoFrame, frame_rate: float, bitrate: int, preset: str, name: str) -> VideoCodecContext:
        """x264 in the place of the hardware that this machine does not have."""
        assert like.format.name == ENCODERS[name].pix_fmt
        encoder = open_video(like, frame_rate, bitrate, preset)
        opened.append((name, encoder))
        return encoder

    track, packets = pictures(Codec.H264)
    aim = target(track, Policy(policy="always", encoder=hardware))
    transcoder = VideoTranscoder(track, aim, note=notes.append, open_encoder=stand_in)
    outputs: list[EncodedPacket] = []
    for number, packet in enumerate(packets):
        if number == 20:
            opened[0][1].encode(None)  # after its end it refuses every picture
        outputs += transcoder.take(packet)
    assert [output.pts for output in outputs] == [packet.pts for packet in packets]
    assert [number for number, output in enumerate(outputs) if output.keyframe] == [0, 20]
    assert [name for name, _ in opened] == [hardware, "libx264"]
    assert len(see(outputs[20:])) == len(packets) - 20
    assert len(notes) == 1


LAYERS = Policy(policy="always", layers=3)


def by_layer(outputs: list[EncodedPacket]) -> dict[str, list[EncodedPacket]]:
    found: dict[str, list[EncodedPacket]] = {}
    for output in outputs:
        found.setdefault(output.layer, []).append(output)
    return found


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p10le"])
def test_layers_show_the_same_in_each_size_with_the_same_key_frames(pix_fmt: str) -> None:
    track, packets = pictures(Codec.H264, size=(960, 720), pix_fmt=pix_fmt, options=B_FRAMES if pix_fmt == "yuv420p" else {})
    transcoder = VideoTranscoder(track, target(track, LAYERS))
    outputs: list[EncodedPacket] = []
    for number, packet in enumerate(packets):
        if number in (20, 40):
            transcoder.request_keyframe()
        outputs += transcoder.take(packet)
    outputs += transcoder.finish()
    layers = by_layer(outputs)
    assert [(output.layer, output.width, output.height) for output in transcoder.outputs] == [
        ("f", 960, 720),
        ("h", 480, 360),
        ("q", 240, 180),
    ]
    assert list(layers) == ["f", "h", "q"]
    keyframes = {name: [packet.pts for packet in found if packet.keyframe] for name, found in layers.items()}
    assert len(keyframes["f"]) == 3
    assert keyframes["f"] == keyframes["h"] == keyframes["q"]
    originals = see(packets)
    for name, output in zip(layers, transcoder.outputs, strict=True):
        assert [packet.pts for packet in layers[name]] == sorted(packet.pts for packet in packets)
        assert output.extradata
        for original, result in zip(originals, see(layers[name]), strict=True):
            small = original.reformat(output.width, output.height, "gray").to_ndarray().astype(np.float64)
            assert np.abs(small - grey(result)).mean() < 6


def test_key_frames_stay_the_same_in_all_layers_when_one_comes_back_or_the_bitrate_falls() -> None:
    track, packets = pictures(Codec.H264, size=(640, 480), seconds=6, gop=180)
    transcoder = VideoTranscoder(track, target(track, Policy(policy="always", layers=2)))
    outputs: list[EncodedPacket] = []
    changes = {
        30: lambda: transcoder.set_effort(Effort(shed=1)),
        60: lambda: transcoder.set_effort(Effort()),
        90: lambda: transcoder.set_bitrate(200_000),
    }
    for number, packet in enumerate(packets):
        changes.get(number, lambda: None)()
        outputs += transcoder.take(packet)
    layers = by_layer(outputs)
    assert [packet.pts for packet in layers["h"]] == [packet.pts for packet in packets]
    top = [packet.pts for packet in layers["f"]]
    assert top == [packet.pts for packet in packets[:30] + packets[60:]]
    shared = [{packet.pts for packet in found if packet.keyframe} for found in layers.values()]
    assert shared[0] == shared[1]
    assert shared[0] == {packets[number].pts for number in (0, 60, 90)}
    assert len(see(layers["h"])) == len(packets)
    assert len(see([packet for packet in layers["f"] if packet.pts >= packets[60].pts])) == 120


def test_layers_below_one_that_passes_have_key_frames_where_the_source_has() -> None:
    track, packets = pictures(Codec.H264, size=(640, 480), seconds=12, gop=150)
    aim = replace(target(track, Policy(policy="always", layers=2)), passed=True)
    transcoder = VideoTranscoder(track, aim)
    outputs: list[EncodedPacket] = []
    for number, packet in enumerate(packets):
        if number == 200:
            transcoder.set_effort(Effort(shed=1))  # nothing is left to encode, and so nothing to decode for
            assert transcoder.outputs == ()
        if number == 220:
            transcoder.set_effort(Effort())
        outputs += transcoder.take(packet)
    assert {output.layer for output in outputs} == {"h"}
    assert [output.pts for output in outputs if output.keyframe] == [packet.pts for packet in packets if packet.keyframe]
    assert [output.pts for output in outputs] == [packet.pts for packet in packets[:200] + packets[300:]]
    assert transcoder.decoded == 260
    assert transcoder.dropped == 80  # until the key frame at which it comes back
    assert transcoder.encoded == 260


def test_a_source_that_gets_smaller_has_fewer_layers() -> None:
    track, packets = pictures(Codec.H264, size=(640, 480))
    _, smaller = pictures(Codec.H264, size=(320, 240), start=2 * SECOND)
    transcoder = VideoTranscoder(track, target(track, LAYERS))
    told = []
    for packet in packets + smaller:
        for _ in transcoder.take(packet):
            told.append([(output.layer, output.width) for output in transcoder.outputs])
    assert [list(key) for key, _ in itertools.groupby(told, tuple)] == [[("f", 640), ("h", 320)], [("f", 320)]]


def test_hardware_that_fails_in_mid_stream_costs_no_layer_a_picture() -> None:
    opened: list[VideoCodecContext] = []

    def stand_in(like: VideoFrame, frame_rate: float, bitrate: int, preset: str, name: str) -> VideoCodecContext:
        assert like.format.name == ENCODERS[name].pix_fmt
        opened.append(open_video(like, frame_rate, bitrate, preset))
        return opened[-1]

    track, packets = pictures(Codec.H264, size=(640, 480))
    aim = target(track, Policy(policy="always", encoder="h264_qsv", layers=2))
    notes: list[str] = []
    transcoder = VideoTranscoder(track, aim, note=notes.append, open_encoder=stand_in)
    outputs: list[EncodedPacket] = []
    for number, packet in enumerate(packets):
        if number == 20:
            opened[1].encode(None)  # that of the lower layer
        outputs += transcoder.take(packet)
    layers = by_layer(outputs)
    assert (
        [packet.pts for packet in layers["f"]] == [packet.pts for packet in layers["h"]] == [packet.pts for packet in packets]
    )
    assert len(opened) == 4
    assert len(notes) == 1


@pytest.mark.parametrize("made", ["vp8", "av1"])
def test_other_codecs_are_made_as_well_in_layers_with_the_same_key_frames(made: MadeCodec) -> None:
    codec = Codec(made)
    track, packets = pictures(Codec.H264, size=(480, 360), options=B_FRAMES, seconds=1)
    decision = plan(track, as_a_call(frozenset({codec})), Policy(policy="always", layers=2, codec=made))
    assert isinstance(decision, Transcode)
    assert isinstance(decision.target, VideoTarget)
    assert decision.codec is codec
    transcoder = VideoTranscoder(track, replace(decision.target, layers=2))  # though no plan has more than one of AV1
    outputs: list[EncodedPacket] = []
    for number, packet in enumerate(packets):
        if number == 15:
            transcoder.request_keyframe()
        outputs += transcoder.take(packet)
    outputs += transcoder.finish()
    layers = by_layer(outputs)
    assert [(output.codec, output.layer, output.width) for output in transcoder.outputs] == [
        (codec, "f", 480),
        (codec, "h", 240),
    ]
    keyframes = [[packet.pts for packet in found if packet.keyframe] for found in layers.values()]
    assert keyframes[0] == keyframes[1]
    assert len(keyframes[0]) == 2
    originals = see(packets)
    for found, output in zip(layers.values(), transcoder.outputs, strict=True):
        assert [packet.pts for packet in found] == sorted(packet.pts for packet in packets)
        for original, result in zip(originals, see(found, codec), strict=True):
            small = original.reformat(output.width, output.height, "gray").to_ndarray().astype(np.float64)
            assert np.abs(small - grey(result)).mean() < 6
    if codec is Codec.AV1:  # `protocols/media.py`: the sequence header before each key frame, and no temporal delimiters
        assert all((packet.data[0] >> 3 == 1) == packet.keyframe for packet in outputs)
        assert transcoder.outputs[0].extradata == outputs[0].data[: len(transcoder.outputs[0].extradata)]
