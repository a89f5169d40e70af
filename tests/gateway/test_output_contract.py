"""An output that the gateway has never heard of gets its own form of each stream beside the call's viewers, from the encoder's wire on."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp import web

from gateway.access.credentials import Secret, Tokens
from gateway.app import Running, gateway
from gateway.config.sources import load
from gateway.sessions.capacity import Demand, OutputCost
from gateway.wiring.output import MediaOutput, OutputNeeds
from gateway.wiring.outputs import OUTPUTS
from protocols.bitstream.h26x import NalStream
from protocols.media import Codec, Kind
from tests.support.encoders import X264_LIVE, ffmpeg, programme
from tests.support.gateway_process import fresh_metrics
from tests.support.memory import MemoryOutput
from tests.support.viewer import watching
from tests.support.waiting import eventually

CALL = "livestream:demo"
SECRET = "a secret of these tests, of which nobody else has heard"
HEVC_B_FRAMES = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "bframes=3:b-adapt=0:keyint=30:log-level=error")


class Beside(MemoryOutput):
    """An output with all that others may do for it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.working = asyncio.Event()

    def made(self, needs: OutputNeeds) -> MediaOutput:
        """What stands in `gateway/wiring/` for an output of the gateway's own."""

        async def told(request: web.Request) -> web.Response:
            return web.Response(text=f"{self.name} of {','.join(needs.config.calls.public)}")

        return MediaOutput(self, [web.get(f"/{self.name}", told)], {self.name: self._work})

    async def _work(self) -> None:
        self.working.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.working.clear()


class Recorder(Beside):
    """Takes whatever comes as it comes, B-frames and all."""

    def __init__(self) -> None:
        super().__init__("recorder")
        self.accepts, self.carries, self.reorder = frozenset(Codec), frozenset(), True


class MuxingRecorder(Recorder):
    """The same, with a cost beside what is made for it."""

    overhead = Demand(outputs=(OutputCost("recorder", "the recorder"),))


class Restream(Beside):
    """Takes what the call's viewers take."""

    def __init__(self) -> None:
        super().__init__("restream")
        self.accepts, self.carries = frozenset({Codec.H264, Codec.OPUS}), frozenset()


def nothing(output: MemoryOutput) -> None:
    """It takes nothing from here on."""
    output.accepts = None
    output.changed()


@asynccontextmanager
async def running(tmp_path: Path, *outputs: Beside, sets: Sequence[str] = ()) -> AsyncIterator[Running]:
    ports = [f"{each}.port=0" for each in ("http", "rtmp", "rtmp.tls_port", "webrtc", "srt")]
    settings = [each.replace("tls_port.port", "tls_port") for each in ports]
    settings += ["http.host=127.0.0.1", f"state.directory={tmp_path}", f"calls.public={CALL}", "transcode.pass_again_s=0.2"]
    beside = [each.made for each in outputs]
    async with gateway(load(None, [*settings, f"auth.secret={SECRET}", *sets]), outputs=[*OUTPUTS, *beside]) as it:
        yield it


async def figure(it: Running, name: str) -> float:
    lines = (await fresh_metrics(f"http://127.0.0.1:{it.ports['http']}/metrics")).splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


async def no_workers(it: Running) -> bool:
    return await figure(it, "ingress_workers") == 0


async def becomes(what: Callable[[], bool], output: MemoryOutput) -> None:
    """Asked again with each packet that the output gets."""
    async with asyncio.timeout(60):
        while not what():
            sink = output.sinks[Kind.VIDEO]
            sink.progress.clear()
            await sink.progress.wait()


async def test_each_output_gets_its_form_stages_are_shared_and_nothing_is_made_that_nobody_takes(tmp_path: Path) -> None:
    recorder, restream = Recorder(), Restream()
    restream_wants, restream.accepts = restream.accepts, None
    async with running(tmp_path, recorder, restream) as it:
        key = Tokens(Secret(SECRET.encode())).issue("ada", [CALL], 60)
        source = (*programme(320, 180), *HEVC_B_FRAMES, "-c:a", "aac", "-t", "60", "-f", "flv")
        async with ffmpeg(*source, f"rtmp://127.0.0.1:{it.ports['rtmp']}/live/{key}", version=9):
            hevc = await recorder.sink(Kind.VIDEO)
            await hevc.until(30)
            assert await figure(it, "ingress_workers") == 0, "nobody watches: nothing is made"

            async with watching(f"http://127.0.0.1:{it.ports['http']}/whep/{CALL}") as viewer:
                await viewer.until(frames=30, audio=30)
                assert viewer.in_order
                assert await figure(it, "ingress_workers") == len(Kind), "one of its pictures, one of the sound of all sessions"
                stages = await figure(it, "ingress_treatments_total")

                restream.accepts = restream_wants
                restream.changed()
                h264 = await restream.sink(Kind.VIDEO)
                await h264.until(30)
                assert h264.track.codec is Codec.H264
                assert await figure(it, "ingress_workers") == len(Kind), "one of its pictures, one of the sound of all sessions"
                assert await figure(it, "ingress_treatments_total") == stages, "it shares what the viewer is given"

                nothing(recorder)
                await becomes(lambda: hevc.closed, restream)
                seen = len(viewer.numbers)
                await viewer.until(frames=seen + 30)
                assert not h264.closed

            nothing(restream)
            await eventually(lambda: no_workers(it))
            assert h264.closed

        times = [packet.pts for packet in hevc.packets]
        assert times != sorted(times), "its B-frames are out of order, as they came"
        assert hevc.packets[0].keyframe
        stream = NalStream(Codec.HEVC, 1)
        for packet in hevc.packets:
            stream.annexb(packet.data)
        assert stream.track is not None
        assert (stream.track.width, stream.track.height) == (320, 180)
        presented = [packet.pts for packet in h264.packets]
        assert presented == sorted(presented)
        assert h264.packets[0].keyframe


async def test_an_output_says_all_of_itself_and_nothing_else_names_it(tmp_path: Path) -> None:
    recorder = MuxingRecorder()
    async with running(tmp_path, recorder) as it:
        here = f"http://127.0.0.1:{it.ports['http']}"
        async with aiohttp.ClientSession() as http, http.get(f"{here}/recorder") as response:
            assert await response.text() == f"recorder of {CALL}"
        assert recorder.working.is_set()
        assert await figure(it, "ingress_recorder_sinks_total") == 0
        key = Tokens(Secret(SECRET.encode())).issue("ada", [CALL], 60)
        source = (*programme(320, 180), *X264_LIVE, "-c:a", "aac", "-t", "60", "-f", "flv")
        async with ffmpeg(*source, f"rtmp://127.0.0.1:{it.ports['rtmp']}/live/{key}"):
            await (await recorder.sink(Kind.VIDEO)).until(30)
            await recorder.sink(Kind.AUDIO)
            assert await figure(it, "ingress_recorder_sinks_total") == 2
            assert await figure(it, 'ingress_recorder_read_seconds{protocol="rtmp",quantile="0.5"}') >= 0
            assert 0 < await figure(it, 'ingress_capacity_cost_cores{kind="recorder"}') < 1
    assert not recorder.working.is_set()


async def test_an_output_for_which_there_is_no_room_is_refused_in_its_own_words_and_the_stream_goes_on(tmp_path: Path) -> None:
    recorder = MuxingRecorder()
    async with running(tmp_path, recorder, sets=["capacity.cores=0.02"]) as it:
        key = Tokens(Secret(SECRET.encode())).issue("ada", [CALL], 60)
        source = (*programme(320, 180), *X264_LIVE, "-c:a", "aac", "-t", "60", "-f", "flv")
        async with (
            ffmpeg(*source, f"rtmp://127.0.0.1:{it.ports['rtmp']}/live/{key}"),
            watching(f"http://127.0.0.1:{it.ports['http']}/whep/{CALL}") as viewer,
        ):
            await viewer.until(frames=30)
    assert "the recorder takes about 0.03 of a CPU core here" in recorder.refusals[0].detail
    assert not recorder.all
