"""What a worker sees and hears of a stream, with real media."""

from collections.abc import AsyncIterator, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from av import VideoFrame

from protocols.errors import ProtocolError
from protocols.media import Codec, EncodedPacket, Track
from tests.unit.transcode.media import coded_sound, tone
from transcode.host.pool import Workers
from transcode.host.process import Worker
from transcode.limits import WorkerLimits
from transcode.look_messages import Look, LookedAt, pack_look, read_look, read_looked

SIZE = (640, 360)
NOISE = np.random.default_rng(16)


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    async with Workers(WorkerLimits(hang=5, workers=2)) as pool:
        yield await pool.start("test")


def keyframes(name: str, pictures: Sequence[np.ndarray]) -> list[bytes]:
    """Each of these as a key frame, by one encoder that saves bits as an encoder in use does."""
    encoder = av.CodecContext.create(name, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = *SIZE, "yuv420p", Fraction(1, 1)
    encoder.bit_rate, encoder.thread_count, encoder.gop_size = 400_000, 1, 1
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency"} if name == "libx264" else {}
    coded = list[bytes]()
    for number, picture in enumerate(pictures):
        frame = VideoFrame.from_ndarray(picture, format="gray").reformat(format="yuv420p")
        frame.pts = number
        coded += (bytes(packet) for packet in encoder.encode(frame))
    return coded + [bytes(packet) for packet in encoder.encode(None)]


def scene(moved: int = 0) -> Any:
    """Something with edges and slopes, a little of which has moved, as a camera sees it."""
    rows, columns = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    picture = 128 + 60 * np.sin(rows / 23) + 40 * np.sign(np.sin(columns / 40))
    picture[100:160, 100 + moved : 160 + moved] = 230
    return picture.astype(np.uint8)


def black(noise: float = 0.0) -> Any:
    picture = 16 + noise * NOISE.standard_normal(SIZE[::-1])
    return np.clip(picture, 0, 255).astype(np.uint8)


async def seen(worker: Worker, pictures: Sequence[np.ndarray], codec: Codec = Codec.H264, name: str = "libx264") -> list[Look]:
    track = Track(1, codec, width=SIZE[0], height=SIZE[1])
    return [await worker.look(LookedAt(track, data, None, ())) for data in keyframes(name, pictures)]


@pytest.mark.parametrize(("codec", "name"), [(Codec.H264, "libx264"), (Codec.HEVC, "libx265"), (Codec.VP8, "libvpx")])
async def test_black_is_told_from_dark_and_from_a_picture(worker: Worker, codec: Codec, name: str) -> None:
    dark = (16 + (scene() - 16.0) / 4).astype(np.uint8)
    looks = await seen(worker, [black(), black(noise=3), scene(), dark], codec, name)
    told = [look.dark for look in looks]
    assert all(each is not None for each in told)
    assert [each is not None and each >= 0.98 for each in told] == [True, True, False, False]


async def test_the_same_picture_coded_again_has_not_changed_and_a_camera_s_has(worker: Worker) -> None:
    still = await seen(worker, [scene()] * 4)
    assert still[0].changed is None, "there was none before"
    assert all(look.changed is not None and look.changed < 0.0005 for look in still[1:]), still
    moving = await seen(worker, [scene(moved=number * 6) for number in range(4)])
    assert all(look.changed is not None and look.changed > 0.0005 for look in moving[1:]), moving


@pytest.mark.parametrize("codec", [Codec.AAC, Codec.OPUS, Codec.MP3, Codec.FLAC, Codec.PCM, Codec.G711_ULAW])
async def test_sound_is_told_from_silence(worker: Worker, codec: Codec) -> None:
    rate = 8000 if codec is Codec.G711_ULAW else 48_000
    track, loud = tone(codec, rate=rate, seconds=1)
    _, silent = coded_sound(codec, rate, "stereo", np.zeros((2, rate), dtype=np.float32))
    _, hiss = coded_sound(codec, rate, "stereo", 1e-4 * NOISE.standard_normal((2, rate)).astype(np.float32))
    levels = [await level(worker, track, packets) for packets in (loud, silent, hiss)]
    assert -12 < levels[0] < -6
    assert levels[1] < -100 or codec is Codec.G711_ULAW
    assert levels[2] < -60


async def level(worker: Worker, track: Track, packets: list[EncodedPacket]) -> float:
    look = await worker.look(LookedAt(None, b"", track, tuple(packet.data for packet in packets)))
    assert look.level_dbfs is not None
    return look.level_dbfs


async def test_what_cannot_be_decoded_is_not_judged_and_the_worker_goes_on(worker: Worker) -> None:
    picture, sound = Track(1, Codec.H264, width=640, height=360), Track(2, Codec.AAC)
    assert await worker.look(LookedAt(picture, b"\0\0\0\1\x65" + bytes(100), sound, (b"\xff" * 50,))) == Look()
    assert await worker.look(LookedAt(None, b"", None, ())) == Look()
    assert (await seen(worker, [black()]))[0].dark == 1.0
    assert worker.stats.restarts == 0


def test_the_messages_say_what_was_put_in() -> None:
    at = LookedAt(Track(1, Codec.H264, width=4, height=2), b"key", Track(2, Codec.OPUS, channels=2), (b"one", b"", b"two"))
    assert read_look(memoryview(pack_look(at))[12:]) == at
    for broken in (b"", bytes(11), b"\0\0\xc0\x7f" * 3):  # the last are no numbers
        with pytest.raises(ProtocolError):
            read_looked(memoryview(broken))
