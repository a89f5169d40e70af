"""What may be set of transcoding: standards within their bounds, and a call that sets some of it for itself."""

from dataclasses import asdict

import pytest

from transcode.plan import Policy
from transcode.settings import SETTINGS, MadeCodec, Transcoding


def test_what_nobody_says_has_its_standard_value_within_the_bounds() -> None:
    assert not any(asdict(Transcoding()).values())
    for name, setting in SETTINGS.items():
        assert getattr(Policy(), name) == setting.standard
        assert setting.least is None or setting.least <= setting.standard
        assert setting.most is None or setting.standard <= setting.most


@pytest.mark.parametrize(
    ("wanted", "codec", "layers", "height"),
    [
        (Transcoding(), "vp8", 2, 720),
        (Transcoding(codec="h264", layers=3), "h264", 3, 720),  # the call's choice
        (Transcoding(codec="av1", layers=1), "av1", 1, 720),
        (Transcoding(max_height=480), "vp8", 2, 480),
        (Transcoding(max_height=1080), "vp8", 2, 720),  # no more than the gateway allows
    ],
)
def test_a_call_chooses_codec_and_layers_and_may_narrow_the_limits(
    wanted: Transcoding, codec: MadeCodec, layers: int, height: int
) -> None:
    policy = Policy(codec="vp8", layers=2, max_height=720).narrowed(wanted)
    assert (policy.codec, policy.layers, policy.max_height) == (codec, layers, height)


def test_a_call_may_ask_for_all_video_to_be_transcoded_and_for_none() -> None:
    assert [Policy().narrowed(Transcoding(policy=each)).policy for each in ("always", "never")] == ["always", "never"]
    assert Policy(encoder="h264_nvenc", pass_bitrate=9).narrowed(Transcoding(layers=2)).encoder == "h264_nvenc"
