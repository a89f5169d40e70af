"""Pictures of a slate, made in a real worker: what is to be seen is seen, in the form of the stream that they stand in for."""

import io
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import av
import numpy as np
import pytest
from av import VideoFrame
from av.container import OutputContainer
from av.video.codeccontext import VideoCodecContext
from PIL import Image

from protocols.media import Codec, EncodedPacket, Track
from tests.unit.transcode.media import pictures
from transcode.host.pool import Workers
from transcode.host.process import Worker
from transcode.limits import WorkerLimits
from transcode.messages import MAX_BODY
from transcode.slate_messages import PICTURES, RATE, Clip, SlatePicture

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
    assert isinstance(clip, Clip)
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
    assert isinstance(clip, Clip)
    assert (clip.track.profile, clip.track.level, clip.track.reorder) == (made, 51, 0)
    assert (clip.track.width, clip.track.height) == (320, 180)
    assert clip.track.extradata


@pytest.mark.parametrize("codec", [Codec.H264, Codec.HEVC, Codec.VP9])
async def test_the_last_key_frame_stands_with_a_strip_below(worker: Worker, codec: Codec) -> None:
    source, packets = pictures(codec, seconds=0.2)
    like = Track(1, Codec.H264, width=320, height=180)
    clip = await worker.slate(like, SlatePicture("", "reconnecting", packets[0].data, source))
    assert isinstance(clip, Clip)
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
    assert isinstance(clip, Clip)
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
    why = await worker.slate(like, shown)
    assert isinstance(why, str)
    assert why, "in words"
    assert isinstance(await worker.slate(Track(1, Codec.H264, width=320, height=180), CARD), Clip)
    assert worker.stats.restarts == 0


def mp4(
    seconds: float, *, rate: int = 30, size: tuple[int, int] = (160, 90), picture: bool = True, sound: bool = False
) -> bytes:
    """A clip that becomes brighter from black to white, and a tone."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        assert isinstance(container, OutputContainer)
        seen = container.add_stream("libx264", rate=rate) if picture else None
        heard = container.add_stream("aac", rate=48_000) if sound else None
        if seen is not None:
            seen.width, seen.height, seen.pix_fmt = *size, "yuv420p"
            count = round(seconds * rate)
            for number in range(count):
                grey = np.full((size[1], size[0]), 16 + 219 * number // count, dtype=np.uint8)
                container.mux(seen.encode(VideoFrame.from_ndarray(grey, format="gray")))
            container.mux(seen.encode(None))
        if heard is not None:
            for _ in range(round(seconds * 48_000) // 1024):
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
                frame.sample_rate = 48_000
                container.mux(heard.encode(frame))
            container.mux(heard.encode(None))
    return file.getvalue()


@pytest.mark.parametrize("codec", [Codec.H264, Codec.VP8])
async def test_a_clip_is_five_pictures_a_second_of_the_size_of_the_stream(worker: Worker, codec: Codec) -> None:
    clip = await worker.slate(Track(1, codec, width=640, height=360), SlatePicture("", "", mp4(3, sound=True)))
    assert isinstance(clip, Clip)
    assert [keyframe for keyframe, _ in clip.pictures] == [number % PICTURES == 0 for number in range(15)]
    frames = decoded(clip, times=2)
    assert {(frame.width, frame.height) for frame in frames} == {(640, 360)}
    light = [float(luma(frame).mean()) for frame in frames]
    assert len(light) == 30
    rises = np.diff(light)
    assert all(rise > 5 for number, rise in enumerate(rises) if number != 14), "each is another one"
    assert rises[14] < -150, "and then it begins again"


async def test_a_clip_with_few_or_many_frames_a_second_has_its_own_speed(worker: Worker) -> None:
    for rate in (2, 60):
        clip = await worker.slate(Track(1, Codec.H264, width=160, height=90), SlatePicture("", "", mp4(4, rate=rate)))
        assert isinstance(clip, Clip)
        assert abs(len(clip.pictures) - 4 * RATE) <= 3, rate


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (partial(mp4, 12, rate=5), "it lasts 12.0 s: cut it to 10 s"),
        (partial(mp4, 0.5), "it is shorter than a second"),
        (partial(mp4, 2, picture=False, sound=True), "it has no picture"),
        (lambda: mp4(2)[:600], ""),
        (lambda: b"\0\0\0\x18ftypisom" + bytes(100), ""),
    ],
    ids=["long", "short", "sound alone", "cut off", "nothing"],
)
async def test_a_clip_that_cannot_be_shown_is_refused_in_words(worker: Worker, file: Callable[[], bytes], words: str) -> None:
    why = await worker.slate(Track(1, Codec.H264, width=320, height=180), SlatePicture("", "", file()))
    assert isinstance(why, str)
    assert words in why
    assert isinstance(await worker.slate(Track(1, Codec.H264, width=320, height=180), CARD), Clip)
