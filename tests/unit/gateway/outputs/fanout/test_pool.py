"""Real fan-out processes under a call of this process, watched by viewers that do ICE and DTLS and decode nothing."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic_ns

import aiohttp
import pytest
from aiohttp import web

from gateway.outputs.embedded.call import EmbeddedCall, Participant
from gateway.outputs.fanout.messages import ProcessSettings
from gateway.outputs.fanout.pool import FanoutProcesses
from gateway.sessions.output import Sink
from protocols.errors import Reason, Rejected
from protocols.media import Codec, EncodedPacket, Track
from protocols.webrtc.transport.dtls import Certificate
from protocols.webrtc.transport.peer import Limits
from protocols.webrtc.transport.places import Place, Standing
from protocols.webrtc.transport.udp_mux import UdpMux
from protocols.whep.fanout import CallViewer, ViewerOffer
from protocols.whep.resource import WhepResource
from tests.bench.viewers import Viewer
from tests.support.memory import SeatOf
from tests.support.waiting import eventually

CALL = "livestream:demo"
FRAME_NS = 33_333_333
KEY, DELTA = (bytes((0, 0, 0, 1, head)) + b"\x80" * 3000 for head in (0x65, 0x41))


class Heard:
    """What came back of a track."""

    def __init__(self) -> None:
        self.keyframes = 0
        self.comes = False
        """A key frame, where one is asked for."""
        self.sent_pts: list[int] = []

    def keyframe(self) -> bool:
        self.keyframes += 1
        return self.comes

    def bitrate(self, bits_per_second: int) -> None:
        pass

    def sent(self, packet: EncodedPacket, ready: int, sent: int) -> None:
        assert packet.arrival <= ready <= sent <= monotonic_ns()
        self.sent_pts.append(packet.pts)


class Gateway:
    """One call, its WHEP resource and the processes that serve its viewers."""

    def __init__(self, mux: UdpMux, processes: FanoutProcesses) -> None:
        self.mux = mux
        self.processes = processes
        self.call = EmbeddedCall(CALL, max_participants=4, on_empty=lambda cid: None, fanout=processes.call(CALL))
        self.resource = WhepResource(mux, self, processes)
        self.url = ""
        self.changed = asyncio.Event()

    @property
    def replays(self) -> int:
        """Groups of pictures that were sent again, as its processes said last."""
        return next(value for name, _, value in self.resource.counters() if name == "replays")

    known, user = True, ""

    async def admit(self, call: str, token: str | None, address: str) -> "Gateway":
        return self

    def add_viewer(self, viewer: CallViewer) -> None:
        self.call.add_viewer(viewer)
        self.changed.set()

    def remove_viewer(self, viewer: CallViewer) -> None:
        self.call.remove_viewer(viewer)
        self.changed.set()

    async def until_viewers(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.call.viewers) != count:
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def served(count: int, most_viewers: int = 100) -> AsyncIterator[Gateway]:
    settings, limits = ProcessSettings("127.0.0.1", 0, (), most_viewers, 10.0), Limits(peers=most_viewers)
    async with UdpMux("127.0.0.1", limits=limits) as mux, FanoutProcesses([settings] * count, mux.turns) as processes:
        gateway = Gateway(mux, processes)
        application = web.Application()
        application.add_routes(gateway.resource.routes())
        runner = web.AppRunner(application, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()

        async def up() -> bool:
            return len(processes.processes) == count

        await eventually(up, every_s=0.01)
        gateway.url = f"http://127.0.0.1:{runner.addresses[0][1]}/whep/{CALL}"
        try:
            yield gateway
        finally:
            await gateway.resource.aclose()
            await runner.cleanup()


@asynccontextmanager
async def streaming(participant: Participant, heard: Heard) -> AsyncIterator[Sink]:
    """A picture at 30 frames a second with a key frame each second."""
    sink = participant.publish(Track(1, Codec.H264, width=320, height=180), heard)

    async def run() -> None:
        number = 0
        while True:
            now = monotonic_ns()
            sink.push(
                EncodedPacket(1, number * FRAME_NS, number * FRAME_NS, not number % 30, DELTA if number % 30 else KEY, now, now)
            )
            number += 1
            await asyncio.sleep(FRAME_NS / 1e9)

    task = asyncio.create_task(run())
    try:
        yield sink
    finally:
        task.cancel()
        sink.close()


@asynccontextmanager
async def joined(gateway: Gateway) -> AsyncIterator[Viewer]:
    """One that has a picture."""
    viewer = Viewer(Certificate.generate(), measuring=True)
    async with aiohttp.ClientSession() as http:
        await viewer.join(http, gateway.url)
    try:
        await until_pictures(viewer, 1)
        yield viewer
    finally:
        viewer.close()


async def until_pictures(viewer: Viewer, count: int) -> None:
    async def came() -> bool:
        viewer.drain()
        return len(viewer.seen.video) >= count

    await eventually(came, within_s=10, every_s=0.01)


async def test_viewers_are_spread_have_pictures_at_once_and_their_feedback_comes_back() -> None:
    heard = Heard()
    async with served(2) as gateway:
        participant = await gateway.call.join(SeatOf("host"), lambda: None)
        async with streaming(participant, heard), joined(gateway) as one, joined(gateway) as two:
            first, second = gateway.processes.processes
            assert (len(first.viewers), len(second.viewers)) == (1, 1)
            for viewer in (one, two):
                await until_pictures(viewer, len(viewer.seen.video) + 60)
                assert not viewer.seen.missing
            assert heard.sent_pts == sorted(set(heard.sent_pts))
            assert len(heard.sent_pts) >= 30
            assert heard.keyframes <= 2, "who joins has the group of pictures so far"
            counted = {name: value for name, _, value in gateway.resource.counters()}
            assert counted["frames"] > 60
        for each in list(gateway.call.viewers):
            each.close("over")
        await gateway.until_viewers(0)
        assert not first.sources
        assert not second.sources


@pytest.mark.parametrize("comes", [True, False])
async def test_nothing_is_sent_again_for_a_key_frame_that_comes_by_now(comes: bool) -> None:
    heard = Heard()
    async with served(1) as gateway:
        participant = await gateway.call.join(SeatOf("host"), lambda: None)
        async with streaming(participant, heard), joined(gateway) as viewer:
            await until_pictures(viewer, len(viewer.seen.video) + 60)
            before, heard.comes, asked = gateway.replays, comes, heard.keyframes
            viewer.lack_keyframe()
            await until_pictures(viewer, len(viewer.seen.video) + 90)  # figures come once a second
            assert heard.keyframes > asked
            assert gateway.replays - before == (not comes)


async def test_an_offer_is_refused_as_it_would_be_here_and_costs_no_place() -> None:
    most = 4
    async with served(1, most_viewers=most) as gateway, aiohttp.ClientSession() as http:
        for offer, status, words in (
            (b"nonsense", 400, "v=0"),
            (b"v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n", 400, ""),
        ):
            async with http.post(gateway.url, data=offer, headers={"Content-Type": "application/sdp"}) as response:
                assert response.status == status
                assert words in (await response.json())["detail"]
            for _ in range(most):
                async with http.post(gateway.url, data=offer, headers={"Content-Type": "application/sdp"}) as response:
                    assert response.status == status
        assert not gateway.processes.processes[0].viewers
        participant = await gateway.call.join(SeatOf("host"), lambda: None)
        async with streaming(participant, Heard()), joined(gateway):
            assert len(gateway.processes.processes[0].viewers) == 1


async def test_a_process_that_is_killed_takes_its_own_viewers_and_is_replaced() -> None:
    heard = Heard()
    async with served(2) as gateway:
        participant = await gateway.call.join(SeatOf("host"), lambda: None)
        async with streaming(participant, heard), joined(gateway), joined(gateway) as kept:
            doomed, other = gateway.processes.processes
            os.kill(doomed.pid, signal.SIGKILL)
            await asyncio.wait_for(doomed.ended.wait(), 1)
            await gateway.until_viewers(1)
            async with asyncio.timeout(2), joined(gateway):
                assert len(other.viewers) == 2
            await until_pictures(kept, len(kept.seen.video) + 30)
            assert not kept.seen.missing

            async def replaced() -> bool:
                return len(gateway.processes.processes) == 2 and doomed not in gateway.processes.processes

            await eventually(replaced, every_s=0.01)
            assert gateway.processes.ends == 1


async def test_a_process_that_does_not_read_loses_pictures_and_then_is_ended() -> None:
    heard = Heard()
    async with served(2) as gateway:
        participant = await gateway.call.join(SeatOf("host"), lambda: None)
        async with streaming(participant, heard), joined(gateway), joined(gateway) as kept:
            stopped, _ = gateway.processes.processes
            os.kill(stopped.pid, signal.SIGSTOP)
            await until_pictures(kept, len(kept.seen.video) + 150)
            assert not kept.seen.missing
            await asyncio.wait_for(stopped.ended.wait(), 10)
            await gateway.until_viewers(1)


async def test_who_does_not_wait_for_the_answer_leaves_nothing_behind() -> None:
    async with served(1) as gateway:
        place = Place(Standing.KNOWN, None)
        sdp = Viewer(Certificate.generate(), measuring=False)._offer().encode()
        asking = asyncio.create_task(gateway.processes.offer(ViewerOffer(sdp), place))

        async def asked() -> bool:
            return any(process.viewers for process in gateway.processes.processes)

        await eventually(asked, every_s=0)
        asking.cancel()

        async def gone() -> bool:
            return not any(process.viewers for process in gateway.processes.processes)

        await eventually(gone, every_s=0.01)
        assert not place.used


async def test_without_a_process_there_is_a_refusal_in_words_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    async with UdpMux("127.0.0.1") as mux:
        await no_process_starts(mux, ProcessSettings("127.0.0.1", mux.port, (), 100, 10.0))  # a port that is taken
    assert f"cannot listen on UDP port {mux.port}: Address already in use" in str([vars(each) for each in caplog.records])


async def no_process_starts(mux: UdpMux, settings: ProcessSettings) -> None:
    async with FanoutProcesses([settings], mux.turns) as processes:
        with pytest.raises(Rejected) as refused:
            await processes.offer(ViewerOffer(b""), Place(Standing.KNOWN, None))
        assert refused.value.reason is Reason.OVERLOADED
