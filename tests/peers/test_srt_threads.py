"""The packet loop shares its interpreter with no busy thread, and is held up by nobody: threads wait, turns are bounded, callers hear in
time."""

import asyncio
import itertools
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from time import monotonic_ns

from protocols.errors import ProtocolError
from protocols.srt.address import Address
from protocols.srt.admission import Access
from protocols.srt.libsrt import FAILED, READABLE, Option, load
from protocols.srt.limits import SrtLimits
from protocols.srt.listener import Authorise, SrtListener
from protocols.srt.receiver import SrtReceiver
from protocols.srt.streamid import StreamId
from protocols.srt.tracks import TsDemuxer
from tests.peers.srt_peers import STEP_S, caller, collecting
from tests.support.encoders import X264_LIVE, ffmpeg, programme
from tests.support.waiting import eventually
from tests.unit.protocols.srt.streams import X264, muxed

LATE_S = 0.1
LIVE = (*programme(320, 240), *X264_LIVE, "-g", "30", "-c:a", "aac", "-f", "mpegts")
OPEN = SrtLimits(calls_per_second=10_000, call_burst=10_000)
ROOT = Path(__file__).parents[2]
WAITING = {
    ("protocols/srt/threads.py", "_run"),  # of the doorbell
    ("protocols/srt/libsrt.py", "wait"),  # srt_epoll_uwait
    ("protocols/srt/libsrt.py", "called"),  # the listen callback,
    ("protocols/srt/listener.py", "_called"),  # which asks the loop
    ("protocols/srt/threads.py", "ask"),
}
"""The only functions of ours that may be found in another thread than the event loop's."""


async def anybody(stream: StreamId, host: str) -> Access:
    return Access()


def listener(authorise: Authorise = anybody, limits: SrtLimits = OPEN) -> SrtListener:
    return SrtListener("127.0.0.1", 0, authorise=authorise, limits=limits)


class Sampler:
    """Which of our functions other threads were found in, and how often."""

    def __init__(self) -> None:
        self.found: Counter[tuple[str, str]] = Counter()

    def sample(self) -> None:
        for thread, top in sys._current_frames().items():
            frame = top if thread != threading.get_ident() else None
            while frame is not None:
                file = Path(frame.f_code.co_filename)
                if file.is_relative_to(ROOT) and ".venv" not in file.parts:
                    self.found[file.relative_to(ROOT).as_posix(), frame.f_code.co_name] += 1
                frame = frame.f_back


async def test_every_other_thread_only_waits() -> None:
    sampler = Sampler()

    async def authorise(stream: StreamId, host: str) -> Access:
        sampler.sample()  # the caller's thread waits for this
        return Access()

    async with collecting(listener(authorise)) as collector:
        port = collector.listener.port
        async with ffmpeg(*LIVE, f"srt://127.0.0.1:{port}?streamid=live"):
            live = await collector.publisher("live")
            for n in range(5):
                async with caller(port, f"passing{n}") as (_, said):
                    assert said == {"connected": True}
                have = len(live.packets)
                for more in range(1, 21):
                    await live.until(lambda wanted=have + more: len(live.packets) >= wanted)  # type: ignore[misc]
                    sampler.sample()
            assert live.error is None
    assert set(sampler.found) == WAITING
    assert sampler.found["protocols/srt/threads.py", "ask"] >= 6


def test_a_thread_that_does_more_is_found() -> None:
    stream, stop, sampler = muxed(*X264, seconds=1), threading.Event(), Sampler()

    def work() -> None:
        while not stop.is_set():
            TsDemuxer().feed(stream, 0)

    thread = threading.Thread(target=work)
    thread.start()
    begun = threading.Event()
    try:
        while ("protocols/srt/tracks.py", "feed") not in sampler.found:
            begun.wait(0.001)  # the other thread's turn
            sampler.sample()
    finally:
        stop.set()
        thread.join()


class Insatiable:
    """A socket that is always readable: nothing is read from it, at 2 ms each time."""

    events = READABLE | FAILED

    def __init__(self, socket: int, happened: list[int]) -> None:
        self.socket = socket
        self._happened = happened

    def ready(self, now: int) -> None:
        self._happened.append(self.socket)
        while monotonic_ns() < now + 2_000_000:
            pass

    def sweep(self, now: int) -> None:
        pass

    def ended(self, error: ProtocolError | None, now: int) -> None:
        assert error is None


async def test_busy_sockets_take_turns_with_each_other_and_with_all_else() -> None:
    srt, happened = load(), list[int]()
    listening = srt.create()
    srt.bind(listening, "127.0.0.1", 0)
    srt.listen(listening, 4, lambda socket, sockaddr, raw: 0, lambda error: None)
    calling, accepted = [], []
    for _ in range(2):
        calling.append(srt.create())
        srt.connect(calling[-1], Address("127.0.0.1", srt.local_port(listening)))
        srt.send(calling[-1], bytes(1316))
        accepted.append(srt.accept(listening) or 0)
    async with SrtReceiver(srt) as receiver, asyncio.timeout(STEP_S):
        for socket in accepted:
            receiver.watch(Insatiable(socket, happened))
        while min(map(happened.count, accepted)) < 10:
            happened.append(0)
            await asyncio.sleep(0)
    reads = [socket for socket in happened if socket]
    both = reads[max(map(reads.index, accepted)) :]  # from where the second is readable, too
    assert abs(both.count(accepted[0]) - both.count(accepted[1])) <= 1
    between = [after for before, after in itertools.pairwise(happened) if before]
    assert not any(between), "others come in between any two reads that fill a turn"
    for socket in (*calling, listening):
        srt.close(socket)


async def test_what_must_be_looked_up_for_long_is_known_when_the_caller_comes_again() -> None:
    known, looked_up = asyncio.Event(), asyncio.Event()

    async def authorise(stream: StreamId, host: str) -> Access:
        if stream.key == "slow":
            await known.wait()
            looked_up.set()
        return Access()

    async with collecting(listener(authorise)) as collector:
        port = collector.listener.port
        for _ in range(3):
            async with caller(port, "slow") as (_process, said):
                assert said == {"reject": 1402}
            async with caller(port, "fast") as (_process, said):
                assert said == {"connected": True}
        assert collector.listener.stats.refused == {"overloaded": 3}
        known.set()
        await asyncio.wait_for(looked_up.wait(), STEP_S)
        async with caller(port, "slow") as (_process, said):
            assert said == {"connected": True}


async def test_a_caller_is_let_in_though_the_loop_is_late() -> None:
    async def authorise(_stream: StreamId, _host: str) -> Access:
        time.sleep(LATE_S)  # noqa: ASYNC251 (nothing is waited for: this is the loop that is late)
        return Access()

    async with collecting(listener(authorise)) as collector, caller(collector.listener.port, "live") as (_, said):
        assert said == {"connected": True}


async def test_while_the_loop_is_held_up_callers_hear_that_it_is_overloaded() -> None:
    async with collecting(listener()) as collector:
        settings = json.dumps({"port": collector.listener.port, "stream_id": "late"})
        command = [sys.executable, "-m", "tests.peers.srt_peers", settings]
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=STEP_S)  # noqa: ASYNC221 (that is the point)
        assert json.loads(done.stdout) == {"reject": 1402}
        async with caller(collector.listener.port, "later") as (_, said):
            assert said == {"connected": True}
            await collector.publisher("later")
        assert collector.listener.stats.refused == {"overloaded": 1}
        assert len(collector.listener._admission) == 0


async def test_a_caller_that_was_refused_is_not_admitted_by_a_repetition_of_its_handshake() -> None:
    """It calls four times a second until it hears something: another call is at the port when the first was not answered in time."""
    admitted, limits, srt = list[str](), SrtLimits(answer_s=0.6), load()

    async def authorise(stream: StreamId, _host: str) -> Access:
        if not admitted:
            time.sleep(limits.answer_s + LATE_S)  # noqa: ASYNC251 (nothing is waited for: this is the loop that is late)
        admitted.append(stream.key)
        return Access()

    async with collecting(listener(authorise, limits)) as collector:
        late = srt.create()
        srt.set(late, Option.RCVSYN, 0)  # as ffmpeg calls; one that blocks repeats itself once a second
        srt.set(late, Option.STREAMID, "late")
        srt.connect(late, Address("127.0.0.1", collector.listener.port))

        async def refused() -> bool:
            return srt.over(late)

        await eventually(refused)
        assert srt.reject_reason(late) == 1402
        async with caller(collector.listener.port, "later") as (_, said):  # whose turn at the port is after the late one's
            assert said == {"connected": True}
            await collector.publisher("later")
        srt.close(late)
        assert [one.publisher.credential.key for one in collector.publishers] == ["later"]
        assert collector.listener.stats.refused == {"overloaded": 1}
        assert admitted == ["late", "later"]


async def test_closing_a_listener_takes_no_time_though_callers_come() -> None:
    async with collecting(listener()) as collector:
        async with ffmpeg(*LIVE, f"srt://127.0.0.1:{collector.listener.port}?streamid=live"):
            live = await collector.publisher("live")
            await live.until(lambda: len(live.packets) > 10)
            begun = monotonic_ns()
            await collector.listener.__aexit__()
            assert monotonic_ns() - begun < 1_000_000_000
            await live.ended()
            assert live.error is None
