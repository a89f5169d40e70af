"""Pictures of a slate, made in a real worker: what is to be seen is seen, in the form of the stream that they stand in for."""

import io
from collections.abc import AsyncIterator
from typing import Any

import av
import numpy as np
import pytest
from av import VideoFrame
from av.video.codeccontext import VideoCodecContext
from PIL import Image

from protocols.media import Codec, EncodedPacket, Track
from tests.unit.transcode.media import pictures
from transcode.host.pool import Workers
from transcode.host.process import Worker
from transcode.limits import WorkerLimits
from transcode.messages import MAX_BODY
from transcode.slate_messages import PICTURES, Clip, SlatePicture

CARD = SlatePicture("livestream:demo", "reconnecting")
DARK, RED = 40, (81, 90, 240)


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    async with Workers(WorkerLimits(hang=5, workers=2)) as pool:
        yield await pool.start("test")


def decoded(clip: Clip, times: int = 1) -> list[VideoFrame]:
    """What a decoder shows of it, shown so many times over."""
    decoder = opened({Codec.H264: "h264", Codec.VP8: "vp8", Codec.AV1: "libdav1d"}[clip.track.codec])
    frames: list[VideoFrame] = []
    for number, (_, data) in enumerate(clip.pictures * times):
        packet = av.Packet(data)
        packet.pts = packet.dts = number
        frames += decoder.decode(packet)
    return [*frames, *decoder.decode(None)]


def opened(name: str) -> VideoCodecContext:
    decoder = av.CodecContext.create(name, "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    return decoder


def luma(frame: VideoFrame) -> Any:
    return frame.to_ndarray(format="gray")


@pytest.mark.parametrize("codec", [Codec.H264, Codec.VP8, Codec.AV1])
async def test_a_card_has_the_size_and_goes_on_over_and_over(worker: Worker, codec: Codec) -> None:
    clip = await worker.slate(Track(7, codec, width=640, height=360, layer="h"), CARD)
    assert clip is not None
    assert (clip.track.id, clip.track.codec, clip.track.layer) == (7, codec, "h")
    assert [keyframe for keyframe, _ in clip.pictures] == [True] + [False] * (PICTURES - 1)
    frames = decoded(clip, times=2)
    assert len(frames) == 2 * PICTURES
    assert {(frame.width, frame.height) for frame in frames} == {(640, 360)}
    for frame in (frames[0], frames[-1]):
        grey = luma(frame)
        assert abs(float(np.median(grey)) - DARK) < 30, "dark"
        for top, bottom in ((110, 180), (190, 240)):
            assert (grey[top:bottom] > 180).sum() > 300, "with a title and a text"


@pytest.mark.parametrize(
    ("profile", "made"),
    [("High", "High"), ("High 10", "High"), ("Main", "Main"), ("Constrained Baseline", "Constrained Baseline"), ("", "High")],
)
async def test_h264_has_the_profile_and_the_level_of_the_stream(worker: Worker, profile: str, made: str) -> None:
    clip = await worker.slate(Track(1, Codec.H264, width=320, height=180, profile=profile, level=51), CARD)
    assert clip is not None
    assert (clip.track.profile, clip.track.level, clip.track.reorder) == (made, 51, 0)
    assert (clip.track.width, clip.track.height) == (320, 180)
    assert clip.track.extradata


@pytest.mark.parametrize("codec", [Codec.H264, Codec.HEVC, Codec.VP9])
async def test_the_last_key_frame_stands_with_a_strip_below(worker: Worker, codec: Codec) -> None:
    source, packets = pictures(codec, seconds=0.2)
    like = Track(1, Codec.H264, width=320, height=180)
    clip = await worker.slate(like, SlatePicture("", "reconnecting", packets[0].data, source))
    assert clip is not None
    shown, was = luma(decoded(clip)[0]).astype(int), luma(_only(codec, packets[0])).astype(int)
    assert np.abs(shown[:160] - was[:160]).mean() < 12
    assert abs(float(np.median(shown[-12:])) - DARK) < 20
    assert (shown[-16:] > 150).any()


def _only(codec: Codec, packet: EncodedPacket) -> VideoFrame:
    decoder = opened({Codec.H264: "h264", Codec.HEVC: "hevc", Codec.VP9: "vp9"}[codec])
    return [*decoder.decode(av.Packet(packet.data)), *decoder.decode(None)][0]


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
async def test_the_operators_picture_is_shown_whole_in_its_own_shape(worker: Worker, form: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (400, 400), "red").save(file, form)
    clip = await worker.slate(Track(1, Codec.H264, width=640, height=360), SlatePicture("", "", file.getvalue()))
    assert clip is not None
    grey = luma(decoded(clip)[-1])
    assert abs(int(grey[180, 320]) - RED[0]) < 25
    assert grey[180, 20] < 40, "black beside it"
    assert grey[4, 320] > 40, "as high as there is room"


@pytest.mark.parametrize(
    ("like", "shown"),
    [
        (Track(1, Codec.H264, width=320, height=180), SlatePicture("", "", b"GIF89a")),
        (Track(1, Codec.H264, width=320, height=180), SlatePicture("", "", b"\x89PNG\r\n\x1a\n broken")),
        (Track(1, Codec.H264, width=320, height=180), SlatePicture("", "", b"\0\0\0\1\x65", Track(1, Codec.H264))),
        (Track(1, Codec.HEVC, width=320, height=180), CARD),
        (Track(1, Codec.H264), CARD),
        (Track(1, Codec.H264, width=320, height=180), SlatePicture("", "", bytes(MAX_BODY))),
    ],
    ids=["gif", "broken", "no picture", "not made here", "no size", "too long"],
)
async def test_what_cannot_be_made_is_answered_and_the_worker_goes_on(worker: Worker, like: Track, shown: SlatePicture) -> None:
    assert await worker.slate(like, shown) is None
    assert await worker.slate(Track(1, Codec.H264, width=320, height=180), CARD) is not None
    assert worker.stats.restarts == 0
