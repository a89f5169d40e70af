"""An encoder that falls silent, dies, is stopped and comes back, as everybody else sees it."""

import asyncio
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from av import CodecContext, Packet, VideoFrame
from av.video.codeccontext import VideoCodecContext

from gateway.access.credentials import Secret, Tokens
from protocols.media import Kind
from tests.gateway.test_output_contract import SECRET, Recorder, running
from tests.support.encoders import X264_LIVE, ffmpeg, programme
from tests.support.gateway_process import running_gateway
from tests.support.listener import Client, listening
from tests.support.publishing import PROTOCOLS, Pasted, publishing
from tests.support.slow import slow
from tests.support.viewer import LOUD, Viewer, watching

CALL = "livestream:demo"
CONNECT = "/api/v2/video/connect"
BFRAMES = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-b_strategy", "0", "-g", "60", "-threads", "1")
INTERRUPTED = ("ingress.stalled", "ingress.slate", "ingress.resumed")


def told(client: Client) -> list[tuple[str, Any]]:
    """What happened to the encoder's media, with the cause."""
    return [(event["type"], event["payload"]["cause"]) for event in client.told if event["type"] in INTERRUPTED]


@pytest.mark.parametrize("protocol", ["rtmp", slow("srt"), slow("whip")])
async def test_a_pause_and_a_death_are_told_to_who_watches_and_counted(protocol: str) -> None:
    async with running_gateway() as gateway, listening(gateway.url(CONNECT), CALL) as viewer:
        pasted = Pasted.of_gateway(gateway, CALL)
        async with publishing(protocol, pasted) as encoder:
            session = (await gateway.stream(tracks=2))["id"]
            encoder.send_signal(signal.SIGSTOP)
            await viewer.until("ingress.slate")
            assert told(viewer) == [("ingress.stalled", "silent"), ("ingress.slate", "silent")]
            (shown,) = (await gateway.json("/api/streams"))["streams"]
            assert (shown["id"], shown["state"]) == (session, "slate")
            encoder.send_signal(signal.SIGCONT)
            resumed = (await viewer.until("ingress.resumed"))["payload"]
            assert resumed["gap_seconds"] > 1.4
            assert set(resumed) == {"user_id", "cause", "gap_seconds"}, "viewers are told nothing of the hosts' equipment"
            viewer.told.clear()
            encoder.kill()
            await viewer.until("ingress.slate")
            if protocol == "rtmp":  # by the others nothing is noticed yet but the silence
                assert (await gateway.logged("encoder gone"))["why"] == "the connection broke off"
        async with publishing(protocol, pasted):
            await viewer.until("ingress.resumed")
            again = await gateway.stream(tracks=2)
            assert (again["id"], again["reconnects"]) == (session, 1)
            counted = {cause: await gateway.metric(_interruptions(protocol, cause)) for cause in ("silent", "closed")}
            assert counted["silent"] >= 1
            assert sum(counted.values()) >= 2
            assert await gateway.metric("ingress_interruption_seconds_count") == sum(counted.values())


def _interruptions(protocol: str, cause: str) -> str:
    return f'ingress_interruptions_total{{cause="{cause}",protocol="{protocol}"}}'


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_after_an_encoder_that_was_stopped_nobody_waits(protocol: str) -> None:
    async with running_gateway() as gateway, listening(gateway.url(CONNECT), CALL) as viewer:
        async with publishing(protocol, Pasted.of_gateway(gateway, CALL), version=9):
            await gateway.stream(tracks=2)
        left = await viewer.until("call.session_participant_left", timeout=10)
        assert left["payload"]["reason"] == "the encoder ended the stream"
        assert ("ingress.slate", "closed") not in told(viewer)


@pytest.mark.parametrize(
    ("protocol", "codec"),  # by WHIP ffmpeg sends no B-frames
    [
        pytest.param("rtmp", X264_LIVE, id="rtmp-passing"),
        pytest.param("rtmp", BFRAMES, id="rtmp-transcoded"),
        pytest.param("srt", X264_LIVE, id="srt-passing", marks=pytest.mark.slow),
        pytest.param("srt", BFRAMES, id="srt-transcoded", marks=pytest.mark.slow),
        pytest.param("whip", X264_LIVE, id="whip-passing", marks=pytest.mark.slow),
    ],
)
async def test_viewers_see_that_the_encoder_is_away_and_then_what_it_sends(protocol: str, codec: tuple[str, ...]) -> None:
    async with running_gateway() as gateway, watching(gateway.url(f"/whep/{CALL}"), viewer=Seeing()) as viewer:
        assert isinstance(viewer, Seeing)
        pasted = Pasted.of_gateway(gateway, CALL)
        async with publishing(protocol, pasted, video=codec) as encoder:
            await viewer.until(frames=60, audio=50)
            encoder.kill()
            gone = asyncio.get_running_loop().time()
            await viewer.until_look(viewer.is_strip)
            if protocol != "srt":  # which notices only after a while
                assert asyncio.get_running_loop().time() - gone < 2.5
            await viewer.until_look(viewer.is_card)
            async with watching(gateway.url(f"/whep/{CALL}"), viewer=Seeing()) as late:
                assert isinstance(late, Seeing)
                await late.until_look(late.is_card, 10)  # who comes now is shown the same
            heard = viewer.audio_frames
            await viewer.until(audio=heard + 50)
            assert viewer.loudness < LOUD, "it is silent"
        async with publishing(protocol, pasted, video=codec, size=(320, 240)):
            before, sounding = len(viewer.numbers), viewer.sounding
            await viewer.until_look(viewer.is_programme)
            await viewer.until(frames=before + 60)
            await viewer.until_sounding(sounding + 50)
            stream = await gateway.stream(tracks=2)
        assert stream["reconnects"] == 1
        assert viewer.sizes == [(640, 360), (320, 240)]
        assert viewer.frequency == pytest.approx(1000, rel=0.05)


async def test_every_output_sees_one_stream_that_goes_on(tmp_path: Path) -> None:
    recorder = Recorder()
    async with running(tmp_path, recorder) as it:
        key = Tokens(Secret(SECRET.encode())).issue("ada", [CALL], 60)
        address = f"rtmp://127.0.0.1:{it.ports['rtmp']}/live/{key}"
        source = (*programme(320, 180), *X264_LIVE, "-c:a", "aac", "-f", "flv", address)
        async with ffmpeg(*source) as encoder:
            video, sound = await recorder.sink(Kind.VIDEO), await recorder.sink(Kind.AUDIO)
            await video.until(30)
            encoder.kill()
            await encoder.wait()
        own = len(video.packets)
        await video.until(own + 20)
        assert video.packets[own].keyframe
        async with ffmpeg(*source):
            before = len(sound.packets)
            await video.until(len(video.packets) + 60)
            await sound.until(before + 100)
    assert len(recorder.all) == len(Kind), "there was never another track"
    for sink in (video, sound):
        times = [packet.dts for packet in sink.packets]
        steps = [later - earlier for earlier, later in pairwise(times)]
        assert min(steps) > 0, "no time goes back"
        assert max(steps) < 1_500_000_000, "nothing is missing for long"
    decoder = CodecContext.create("h264", "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    shown = [frame for packet in video.packets for frame in decoder.decode(Packet(packet.data))] + decoder.decode(None)
    assert len(shown) == len(video.packets), "to a decoder it is one encoder's"


class Seeing(Viewer):
    """One who looks at the pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.frame: VideoFrame | None = None

    def look(self, frame: VideoFrame) -> None:
        self.frame = frame

    async def until_look(self, like: Callable[[], bool], timeout: float = 60) -> None:
        async with asyncio.timeout(timeout):
            while not like():
                self.progress.clear()
                await self.progress.wait()

    def grey(self) -> Any:
        assert self.frame is not None
        return self.frame.to_ndarray(format="gray")

    def is_strip(self) -> bool:
        """A picture of the programme, with words on a dark strip below it."""
        return self.frame is not None and self._dark(self.grey()[-14:]) and not self._dark(self.grey()[40:-60])

    def is_card(self) -> bool:
        return self.frame is not None and self._dark(self.grey())

    def is_programme(self) -> bool:
        return self.frame is not None and not self._dark(self.grey()[-14:]) and not self._dark(self.grey())

    @staticmethod
    def _dark(part: Any) -> bool:
        """Mostly the grey of a slate, and something white on it."""
        return bool((abs(part.astype(int) - 40) < 25).mean() > 0.6 and (part > 170).any())
