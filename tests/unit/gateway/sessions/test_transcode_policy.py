"""How media is treated in a call: the configuration, and what the call's settings say instead."""

import pytest

from gateway.config import TranscodeConfig
from gateway.model.records import Transcoding
from gateway.sessions.transcode_policy import configured, narrowed
from protocols.media import Codec
from transcode.plan import Policy

HAVE = frozenset({"libx264", "libvpx", "libsvtav1"})


def test_the_defaults_of_the_configuration_are_those_of_the_plan() -> None:
    assert configured(TranscodeConfig(), "libx264", HAVE) == Policy()


def test_codecs_of_the_configuration_and_the_encoders_that_there_are() -> None:
    policy = configured(TranscodeConfig(codec="av1", accept=("vp8",)), "h264_nvenc", HAVE - {"libvpx"})
    assert (policy.codec, policy.encoder) == (Codec.AV1, "h264_nvenc")
    assert policy.passing == {Codec.H264, Codec.VP8}
    assert policy.missing == {Codec.VP8}


@pytest.mark.parametrize(
    ("wanted", "codec", "layers", "height"),
    [
        (Transcoding(), Codec.VP8, 2, 720),
        (Transcoding(codec="h264", layers=3), Codec.H264, 3, 720),  # the call's choice
        (Transcoding(codec="av1", layers=1), Codec.AV1, 1, 720),
        (Transcoding(max_height=480), Codec.VP8, 2, 480),
        (Transcoding(max_height=1080), Codec.VP8, 2, 720),  # no more than the gateway allows
    ],
)
def test_a_call_chooses_codec_and_layers_and_may_narrow_the_limits(
    wanted: Transcoding, codec: Codec, layers: int, height: int
) -> None:
    policy = narrowed(Policy(codec=Codec.VP8, layers=2, max_height=720), wanted)
    assert (policy.codec, policy.layers, policy.max_height) == (codec, layers, height)
