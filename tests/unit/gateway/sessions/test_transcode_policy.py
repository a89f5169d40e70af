"""How media is treated in a call: what the configuration says reaches the plan."""

from typing import Any

import pytest
from pydantic import ValidationError

from gateway.access.credentials import Grant, Identity
from gateway.config import TranscodeConfig
from gateway.model.records import ContinuitySettings, Settings
from gateway.sessions.slate import SlatePolicy
from gateway.sessions.slate_pictures import SlatePictures
from gateway.sessions.succession import Return
from gateway.sessions.transcode_policy import adapted, configured
from protocols.media import Codec
from tests.support.memory import seat_policy
from transcode.host.pool import Workers
from transcode.plan import Policy

HAVE = frozenset({"libx264", "libvpx", "libsvtav1"})


def test_the_defaults_of_the_configuration_are_those_of_the_plan() -> None:
    assert configured(TranscodeConfig(), "libx264", HAVE) == Policy()


def test_each_key_of_the_configuration_reaches_the_plan() -> None:
    config = TranscodeConfig(
        video="never", max_width=640, max_height=360, max_frame_rate=24.0, max_bitrate_bps=700_000, layers=2, codec="vp8"
    )
    wanted = Policy("never", 640, 360, 24.0, 700_000, 2, "vp8", encoder="libx264")
    assert configured(config, "libx264", HAVE) == wanted


@pytest.mark.parametrize(
    "beyond",
    [
        *({"max_width": 15}, {"max_width": 7681}, {"max_height": 15}, {"max_height": 7681}, {"layers": 0}, {"layers": 4}),
        *({"max_frame_rate": 0.5}, {"max_frame_rate": 241}, {"max_bitrate_bps": 99_999}, {"max_bitrate_bps": 50_000_001}),
        *({"video": ""}, {"codec": ""}),
    ],
    ids=str,
)
def test_the_configuration_says_something_within_the_bounds_of_each_setting(beyond: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(beyond))):
        TranscodeConfig(**beyond)


def test_codecs_of_the_configuration_and_the_encoders_that_there_are() -> None:
    policy = configured(TranscodeConfig(codec="av1", accept=("vp8",)), "h264_nvenc", HAVE - {"libvpx"})
    assert (policy.codec, policy.encoder) == ("av1", "h264_nvenc")
    assert policy.passing == {Codec.H264, Codec.VP8}
    assert policy.missing == {Codec.VP8}


@pytest.mark.parametrize(
    ("of_key", "of_call", "shown"),
    [("", "", ""), ("", "call.png", "call.png"), ("key.mp4", "call.png", "key.mp4"), ("key.mp4", "", "key.mp4")],
)
def test_the_picture_of_the_key_goes_before_that_of_the_call(of_key: str, of_call: str, shown: str) -> None:
    settings = Settings(continuity=ContinuitySettings(picture=of_call, black_seconds=3))
    grant = Grant("ada", "livestream:demo", 0, Identity("ada", stream_key="sk", picture=of_key), settings=settings)
    policy = seat_policy(slate=SlatePolicy(SlatePictures(Workers(), {}, "")))
    slate = adapted(Policy())(policy, grant).slate
    assert slate is not None
    assert (slate.wished, slate.triggers.black_s) == (shown, 3)


@pytest.mark.parametrize(
    ("wished", "kept"),
    [
        (ContinuitySettings(), (30, 5)),
        (ContinuitySettings(0, 1800), (0, 1800)),
        (ContinuitySettings(linger_seconds=60), (60, 5)),
    ],
)
def test_how_long_encoders_are_waited_for_is_up_to_the_call(wished: ContinuitySettings, kept: tuple[int, int]) -> None:
    grant = Grant("ada", "livestream:demo", 0, Identity("ada"), settings=Settings(continuity=wished))
    policy = seat_policy(linger_s=30, stop_linger_s=5)
    adapted_policy = adapted(Policy())(policy, grant)
    assert (adapted_policy.linger_s, adapted_policy.stop_linger_s) == kept


@pytest.mark.parametrize(
    ("wished", "kept"),
    [
        (ContinuitySettings(), (Return.STICKY, 5)),
        (ContinuitySettings(return_to_primary="manual"), (Return.MANUAL, 5)),
        (ContinuitySettings(return_to_primary="revert_after", revert_after_seconds=0), (Return.REVERT_AFTER, 0)),
    ],
)
def test_so_is_how_a_primary_comes_back(wished: ContinuitySettings, kept: tuple[Return, int]) -> None:
    grant = Grant("ada", "livestream:demo", 0, Identity("ada"), settings=Settings(continuity=wished))
    policy = seat_policy(return_to_primary=Return.STICKY, revert_after_s=5)
    adapted_policy = adapted(Policy())(policy, grant)
    assert (adapted_policy.return_to_primary, adapted_policy.revert_after_s) == kept
