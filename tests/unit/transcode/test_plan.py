"""The decision for a track and its reason, for every kind of track that there is."""

import itertools
from dataclasses import replace

import pytest

from protocols.media import Codec, Kind, Track
from tests.support.memory import as_a_call
from transcode.adaptation import preset
from transcode.ladder import fit, start_bitrate
from transcode.plan import (
    AudioTarget,
    Decision,
    Label,
    Passthrough,
    Policy,
    Refuse,
    Transcode,
    VideoTarget,
    cores,
    plan,
    same_treatment,
    spare_cores,
)
from transcode.settings import MadeCodec

BROWSERS = as_a_call(frozenset({Codec.H264, Codec.VP8, Codec.OPUS}))
H264 = Track(1, Codec.H264, width=1920, height=1080, frame_rate=30.0, reorder=0)
AUTO, NEVER, ALWAYS = Policy(), Policy(policy="never"), Policy(policy="always")

AUDIO = [
    (Track(2, Codec.AAC, channels=2), Transcode, Label.CODEC),
    (Track(2, Codec.MP3), Transcode, Label.CODEC),
    (Track(2, Codec.MP2), Transcode, Label.CODEC),
    (Track(2, Codec.G711_ALAW), Transcode, Label.CODEC),
    (Track(2, Codec.G711_ULAW), Transcode, Label.CODEC),
    (Track(2, Codec.PCM), Transcode, Label.CODEC),
    (Track(2, Codec.SPEEX), Transcode, Label.CODEC),
    (Track(2, Codec.AC3, channels=6), Transcode, Label.CODEC),
    (Track(2, Codec.EAC3), Transcode, Label.CODEC),
    (Track(2, Codec.FLAC), Transcode, Label.CODEC),
    (Track(2, Codec.OPUS), Passthrough, Label.SAME_CODEC),
    (Track(2, Codec.OPUS, channels=1), Passthrough, Label.SAME_CODEC),
    (Track(2, Codec.OPUS, channels=2, extradata=b"OpusHead\1\2" + bytes(9)), Passthrough, Label.SAME_CODEC),
    (Track(2, Codec.OPUS, channels=6), Transcode, Label.CHANNELS),
    (Track(2, Codec.OPUS, extradata=b"OpusHead\1\6" + bytes(8) + b"\1\4\2"), Transcode, Label.CHANNELS),
    (Track(2, Codec.OPUS, channels=2, extradata=b"OpusHead\1\2" + bytes(8) + b"\1\2\0"), Transcode, Label.CHANNELS),
]
VIDEO = [
    (H264, Passthrough, Label.SAME_CODEC),
    (replace(H264, reorder=None), Passthrough, Label.SAME_CODEC),
    (replace(H264, width=0, height=0, frame_rate=0.0), Passthrough, Label.SAME_CODEC),
    (replace(H264, width=1080, height=1920), Passthrough, Label.SAME_CODEC),
    (replace(H264, frame_rate=60.9), Passthrough, Label.SAME_CODEC),
    (Track(1, Codec.VP8), Passthrough, Label.SAME_CODEC),
    (replace(H264, reorder=1), Transcode, Label.B_FRAMES),
    (replace(H264, reorder=3), Transcode, Label.B_FRAMES),
    (replace(H264, open_gop=True), Transcode, Label.OPEN_GOP),
    (replace(H264, bit_depth=10), Transcode, Label.BIT_DEPTH),
    (replace(H264, chroma="4:2:2"), Transcode, Label.CHROMA),
    (replace(H264, chroma="4:4:4"), Transcode, Label.CHROMA),
    (replace(H264, chroma="4:0:0"), Transcode, Label.CHROMA),
    (replace(H264, interlaced=True), Transcode, Label.INTERLACED),
    (replace(H264, width=2560, height=1440), Transcode, Label.SIZE),
    (replace(H264, width=1440, height=2560), Transcode, Label.SIZE),
    (replace(H264, frame_rate=120.0), Transcode, Label.FRAME_RATE),
    (Track(1, Codec.HEVC), Transcode, Label.CODEC),
    (Track(1, Codec.AV1), Transcode, Label.VIEWER),
    (Track(1, Codec.VP9), Transcode, Label.VIEWER),
]


@pytest.mark.parametrize(("track", "kind", "label"), AUDIO + VIDEO)
def test_a_track_and_its_reason(track: Track, kind: type[Decision], label: Label) -> None:
    decision = plan(track, BROWSERS, AUTO)
    assert (type(decision), decision.why.label) == (kind, label)


@pytest.mark.parametrize(("track", "kind", "label"), VIDEO)
def test_where_video_is_never_transcoded_it_is_refused_for_the_same_reason(
    track: Track, kind: type[Decision], label: Label
) -> None:
    decision = plan(track, BROWSERS, NEVER)
    assert (type(decision), decision.why.label) == (Refuse if kind is Transcode else Passthrough, label)
    assert decision.why.advice or kind is Passthrough


@pytest.mark.parametrize(("track", "kind", "label"), VIDEO)
def test_where_video_is_always_transcoded_the_real_reason_is_kept(track: Track, kind: type[Decision], label: Label) -> None:
    decision = plan(track, BROWSERS, ALWAYS)
    assert (type(decision), decision.why.label) == (Transcode, label if kind is Transcode else Label.POLICY)


@pytest.mark.parametrize(("track", "kind", "label"), VIDEO)
def test_advice_names_the_setting_in_obs_and_what_it_saves_here(track: Track, kind: type[Decision], label: Label) -> None:
    advice = plan(track, BROWSERS, AUTO).why.advice
    if kind is Passthrough:
        assert advice == ""
        return
    assert "OBS: " in advice
    assert "of a CPU core here." in advice
    assert "OBS: " in plan(track, BROWSERS, NEVER).why.advice
    assert plan(track, BROWSERS, ALWAYS).why.advice == "", "it would be transcoded all the same"


def test_the_saving_grows_with_reordering_and_size() -> None:
    assert plan(replace(H264, reorder=2), BROWSERS, AUTO).why.advice.endswith(
        "about 80 ms of delay and 0.5 of a CPU core here."
    )
    small = replace(H264, width=640, height=360, chroma="4:2:2")
    assert plan(small, BROWSERS, AUTO).why.advice.endswith("about 20 ms of delay and 0.1 of a CPU core here.")


def test_a_policy_is_named_in_the_reason() -> None:
    assert "transcode.video = always" in plan(H264, BROWSERS, ALWAYS).why.text
    refused = plan(replace(H264, reorder=1), BROWSERS, NEVER).why.text
    assert "B-frames" in refused
    assert "transcode.video = never" in refused


def test_every_codec_has_a_decision_in_every_call_under_every_policy() -> None:
    calls = [frozenset(), BROWSERS.codecs, frozenset({Codec.OPUS}), frozenset({Codec.H264}), frozenset(Codec)]
    for codec, accepts, policy in itertools.product(Codec, calls, [AUTO, NEVER, ALWAYS]):
        decision = plan(Track(1, codec), as_a_call(accepts), policy)
        assert decision.why.text.endswith(".")
        match decision:
            case Passthrough():
                assert codec in accepts
            case Transcode(target=VideoTarget()):
                assert codec.kind is Kind.VIDEO
                assert decision.codec is Codec.H264
                assert Codec.H264 in accepts
            case Transcode(target=AudioTarget()):
                assert codec.kind is Kind.AUDIO
                assert decision.codec is Codec.OPUS
                assert Codec.OPUS in accepts
            case Refuse():
                assert policy is NEVER or (codec not in accepts and Codec.H264 not in accepts) or Codec.OPUS not in accepts


def test_a_call_without_the_codec_that_we_make_gets_nothing() -> None:
    assert plan(Track(1, Codec.HEVC), as_a_call(frozenset({Codec.OPUS})), AUTO).why.label is Label.CODEC
    assert isinstance(plan(H264, as_a_call(frozenset({Codec.VP8})), AUTO), Refuse)
    assert plan(Track(2, Codec.AAC), as_a_call(frozenset({Codec.H264})), AUTO).why.label is Label.NOT_SUPPORTED


def test_the_target_fits_the_limits() -> None:
    decision = plan(replace(H264, width=3840, height=2160, frame_rate=120.0), BROWSERS, AUTO)
    assert isinstance(decision, Transcode)
    target = decision.target
    assert isinstance(target, VideoTarget)
    assert (target.width, target.height, target.frame_rate, target.bitrate) == (1920, 1080, 60.0, 6_000_000)


def test_a_target_of_unknown_size_starts_like_720p() -> None:
    decision = plan(Track(1, Codec.AV1), BROWSERS, Policy(audio_bitrate=64_000))
    assert isinstance(decision, Transcode)
    assert decision.target == VideoTarget(0, 0, 1920, 1080, 0.0, 60.0, 2_500_000, 6_000_000)


@pytest.mark.parametrize(
    ("source", "limits", "result"),
    [
        ((1280, 720), (1920, 1080), (1280, 720)),
        ((1920, 1080), (1280, 720), (1280, 720)),
        ((1080, 1920), (1280, 720), (720, 1280)),
        ((2560, 1080), (1920, 1080), (1920, 810)),
        ((853, 480), (1920, 1080), (852, 480)),
        ((1, 1), (1920, 1080), (2, 2)),
        ((16_000, 2), (1920, 1080), (1920, 2)),
        ((1000, 1000), (1280, 720), (720, 720)),
    ],
)
def test_fit(source: tuple[int, int], limits: tuple[int, int], result: tuple[int, int]) -> None:
    assert fit(*source, *limits) == result


def test_the_start_bitrate_grows_with_size_and_rate() -> None:
    sizes = [(320, 180), (640, 360), (960, 540), (1280, 720), (1920, 1080), (2560, 1440), (3840, 2160)]
    rates = [start_bitrate(*size, 30.0) for size in sizes]
    assert rates == sorted(set(rates))
    assert start_bitrate(1280, 720, 60.0) > start_bitrate(1280, 720, 30.0) == start_bitrate(720, 1280, 0.0)


def test_the_preset_is_cheaper_from_1080p() -> None:
    assert (preset(1920, 1080), preset(1080, 1920), preset(1280, 720)) == ("superfast", "superfast", "veryfast")


@pytest.mark.parametrize(
    ("track", "policy", "layers"),
    [
        (H264, Policy(), None),
        (H264, Policy(layers=2), ["h"]),
        (H264, Policy(layers=3), ["h", "q"]),
        (replace(H264, width=640, height=360), Policy(layers=3), ["h"]),
        (replace(H264, width=320, height=180), Policy(layers=3), None),
        (replace(H264, width=0, height=0), Policy(layers=3), None),
        (replace(H264, layer="h"), Policy(layers=3), None),  # the publisher brings its own layers
        (
            Track(1, Codec.VP8, width=1920, height=1080),
            Policy(layers=3),
            None,
        ),  # a viewer cannot change the codec between layers
        (H264, Policy(layers=3, policy="never"), None),
        (H264, Policy(layers=3, codec="vp8"), None),
        (Track(1, Codec.VP8, width=1920, height=1080), Policy(layers=3, codec="vp8"), ["h", "q"]),
    ],
)
def test_what_passes_has_layers_below_it_where_the_call_wants_them(
    track: Track, policy: Policy, layers: list[str] | None
) -> None:
    decision = plan(track, BROWSERS, policy)
    assert isinstance(decision, Passthrough)
    assert (decision.below and [rung.layer for rung in decision.below.encoded]) == layers


def test_what_is_transcoded_has_all_layers_from_one_decoding() -> None:
    decision = plan(replace(H264, reorder=2), BROWSERS, Policy(layers=3, max_width=1280, max_height=720))
    assert isinstance(decision, Transcode)
    assert isinstance(decision.target, VideoTarget)
    assert [(rung.layer, rung.height) for rung in decision.target.encoded] == [("f", 720), ("h", 360), ("q", 180)]


def test_a_codec_that_may_not_pass_is_transcoded_though_the_viewers_take_it() -> None:
    only_h264 = Policy(passing=frozenset({Codec.H264}))
    decision = plan(Track(1, Codec.VP8), BROWSERS, only_h264)
    assert (type(decision), decision.why.label) == (Transcode, Label.POLICY)
    assert "transcode.accept" in decision.why.text
    assert isinstance(plan(Track(1, Codec.VP8), BROWSERS, replace(only_h264, policy="never")), Refuse)


def test_the_reason_tells_a_viewer_who_does_not_take_it_from_a_codec_that_no_call_carries() -> None:
    assert plan(Track(1, Codec.AV1), BROWSERS, AUTO).why.text == "A viewer's player does not take AV1."
    assert plan(Track(1, Codec.HEVC), BROWSERS, AUTO).why.text == "The call does not take HEVC."


ALL = BROWSERS.codecs | {Codec.AV1, Codec.VP9}
B_FRAMES = replace(H264, reorder=2)


@pytest.mark.parametrize(
    ("accepts", "policy", "made", "more"),
    [
        (ALL, Policy(), Codec.H264, ""),
        (ALL, Policy(codec="vp8"), Codec.VP8, ""),
        (ALL, Policy(codec="av1"), Codec.AV1, ""),
        (BROWSERS.codecs, Policy(codec="av1"), Codec.H264, "and not AV1: a viewer's player does not take it."),
        (
            ALL,
            Policy(codec="av1", missing=frozenset({Codec.AV1})),
            Codec.H264,
            "and not AV1: there is no encoder here.",
        ),
        (ALL, Policy(codec="vp8", passing=frozenset({Codec.H264})), Codec.VP8, ""),  # what is made need not pass
        (ALL, Policy(codec="av1", layers=3), Codec.AV1, "It has one layer, since more of AV1 cost too much."),
    ],
)
def test_video_becomes_the_codec_that_is_chosen_where_all_viewers_take_it(
    accepts: frozenset[Codec], policy: Policy, made: Codec, more: str
) -> None:
    decision = plan(B_FRAMES, as_a_call(accepts), policy)
    assert isinstance(decision, Transcode)
    assert decision.codec is made
    assert decision.why.label is Label.B_FRAMES
    assert decision.why.text.endswith(more or "carry.")


@pytest.mark.parametrize(("codec", "layers"), [("h264", 3), ("vp8", 3), ("av1", 1)])
def test_h264_and_vp8_are_made_in_layers_and_av1_in_one(codec: MadeCodec, layers: int) -> None:
    decision = plan(B_FRAMES, as_a_call(ALL), Policy(codec=codec, layers=3))
    assert isinstance(decision, Transcode)
    assert isinstance(decision.target, VideoTarget)
    assert len(decision.target.encoded) == layers


@pytest.mark.parametrize(("codec", "cost"), [("h264", 0.45), ("vp8", 0.87), ("av1", 1.5)])
def test_what_another_codec_costs_is_in_the_advice_and_in_the_reckoning(codec: MadeCodec, cost: float) -> None:
    decision = plan(B_FRAMES, as_a_call(ALL), Policy(codec=codec))
    assert f"{cost:.1f} of a CPU core" in decision.why.advice
    assert cores(1920, 1080, 30.0, codec=Codec(codec)) == pytest.approx(cost, abs=0.01)


def test_other_output_is_another_treatment_and_another_reason_is_not() -> None:
    vp8, h264 = (plan(B_FRAMES, as_a_call(accepts), Policy(codec="vp8")) for accepts in (ALL, frozenset({Codec.H264})))
    assert not same_treatment(vp8, h264)
    assert same_treatment(vp8, plan(replace(H264, interlaced=True), as_a_call(ALL), Policy(codec="vp8")))
    assert not same_treatment(vp8, plan(H264, as_a_call(ALL), AUTO))


def test_what_can_be_spared_leaves_one_layer_or_the_one_that_passes() -> None:
    layers = Policy(layers=3)
    transcoded, passed = plan(replace(H264, reorder=2), BROWSERS, layers), plan(H264, BROWSERS, layers)
    assert isinstance(transcoded, Transcode)
    assert isinstance(transcoded.target, VideoTarget)
    assert isinstance(passed, Passthrough)
    assert passed.below is not None
    assert cores(1920, 1080, 30.0, 3) > spare_cores(transcoded.target) > 2 * spare_cores(passed.below) > 0
    assert cores(1920, 1080, 30.0, 3) > cores(1920, 1080, 30.0)
