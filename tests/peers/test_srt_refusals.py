"""Who is refused hears why, and nothing that a caller does disturbs the others."""

import asyncio
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import psutil
import pytest

from protocols.errors import Reason, Rejected
from protocols.srt.admission import Access
from protocols.srt.libsrt import load
from protocols.srt.limits import SrtLimits
from protocols.srt.listener import SrtListener
from protocols.srt.streamid import StreamId
from tests.peers.srt_peers import STEP_S, Collected, Collector, caller, collecting
from tests.support.encoders import X264_LIVE, ffmpeg, programme
from tests.support.waiting import eventually
from tests.unit.protocols.srt.streams import X264, muxed

PASSPHRASE = "correct-horse-battery"
LIVE = (*programme(320, 240), *X264_LIVE, "-g", "30", "-c:a", "aac", "-f", "mpegts")
OPEN = SrtLimits(calls_per_second=10_000, call_burst=10_000, pending_s=1.0, answer_s=1.0)  # not how busy the machine is

REFUSALS = {
    "unknown": Rejected(Reason.NOT_FOUND, "no such stream"),
    "busy": Rejected(Reason.CONFLICT, "somebody publishes there"),
    "expired": Rejected(Reason.UNAUTHORIZED, "the key has expired"),
    "banned": Rejected(Reason.FORBIDDEN, "not you"),
    "full": Rejected(Reason.OVERLOADED, "no room"),
}


async def authorise(stream: StreamId, host: str) -> Access:
    assert host in ("127.0.0.1", "::1")
    if refusal := REFUSALS.get(stream.key):
        raise refusal
    if stream.key == "defect":
        raise ZeroDivisionError
    return Access(PASSPHRASE if stream.key == "encrypted" else None)


def listener(limits: SrtLimits = OPEN) -> SrtListener:
    return SrtListener("127.0.0.1", 0, authorise=authorise, limits=limits)


@asynccontextmanager
async def watched(limits: SrtLimits = OPEN) -> AsyncIterator[tuple[Collector, Collected]]:
    """A listener with one stream running, which must run on whatever happens."""
    async with collecting(listener(limits)) as collector:
        async with ffmpeg(*LIVE, f"srt://127.0.0.1:{collector.listener.port}?streamid=witness"):
            witness = await collector.publisher("witness")
            await witness.until(lambda: len(witness.packets) > 30)
            yield collector, witness
            have = len(witness.packets)
            await witness.until(lambda: len(witness.packets) > have + 30)
            stats = witness.publisher.stats
            assert not witness.over.is_set()
            assert (stats.continuity_errors, stats.packets_dropped, stats.units_dropped) == (0, 0, 0)


@pytest.mark.parametrize(
    ("stream_id", "settings", "code"),
    [
        ("unknown", {}, 1404),
        ("busy", {}, 1409),
        ("expired", {}, 1401),
        ("banned", {}, 1403),
        ("full", {}, 1402),
        ("defect", {}, 1500),
        ("", {}, 1404),
        ("#!::r=cam,m=request", {}, 1405),
        ("#!::r=cam", {}, 1405),
        ("#!::r=cam,m=publish,t=file", {}, 1415),
        ("#!::nonsense", {}, 1400),
        ("encrypted", {"passphrase": "a wrong passphrase"}, 10),
        ("encrypted", {}, 11),
        ("plain", {"passphrase": PASSPHRASE}, 11),
    ],
)
async def test_the_caller_hears_why(stream_id: str, settings: dict[str, Any], code: int) -> None:
    async with collecting(listener()) as collector:
        async with caller(collector.listener.port, stream_id, **settings) as (_, said):
            assert said == {"reject": code}
        assert collector.listener.stats.accepted == 0


@pytest.mark.parametrize("key_bytes", [16, 24, 32])
async def test_every_key_length_is_taken(key_bytes: int) -> None:
    async with collecting(listener()) as collector:
        port = collector.listener.port
        async with caller(port, "encrypted", passphrase=PASSPHRASE, options={"PBKEYLEN": key_bytes}) as (_, said):
            assert said == {"connected": True}


async def test_a_wrong_passphrase_is_counted_when_its_reservation_expires() -> None:
    async with watched() as (collector, witness):
        async with caller(collector.listener.port, "encrypted", passphrase="a wrong passphrase") as (_, said):
            assert said == {"reject": 10}
        await witness.until(lambda: collector.listener.stats.auth_failed == 1)
        assert collector.listener.stats.auth_failed == 1


@pytest.mark.parametrize(
    ("stream_id", "passphrase", "code", "words"),
    [
        ("encrypted", "a wrong passphrase", 10, "its passphrase is wrong (it shows code 10) or missing (code 11)"),
        ("encrypted", "", 11, "its passphrase is wrong (it shows code 10) or missing (code 11)"),
        ("plain", PASSPHRASE, 11, "needs none (it shows code 11): leave it out"),
    ],
)
async def test_a_wrong_passphrase_is_logged_at_once_with_the_address_and_what_the_encoder_shows(
    stream_id: str, passphrase: str, code: int, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with collecting(listener(SrtLimits(pending_s=600.0, answer_s=1.0))) as collector:
        async with caller(collector.listener.port, stream_id, passphrase=passphrase) as (_, said):
            assert said == {"reject": code}

        async def counted() -> bool:
            return collector.listener.stats.auth_failed == 1

        await eventually(counted, within_s=3)
    (line,) = (record.getMessage() for record in caplog.records if "was not connected" in record.getMessage())
    assert line.startswith("SRT: 127.0.0.1:")
    assert words in line
    assert PASSPHRASE not in line


async def test_a_stream_id_that_cannot_be_read_is_logged_with_the_address_and_why(caplog: pytest.LogCaptureFixture) -> None:
    async with collecting(listener()) as collector:
        for _ in range(2):
            async with caller(collector.listener.port, "#!::r=hidden,r=hidden") as (_process, said):
                assert said == {"reject": 1400}
    lines = [record.getMessage() for record in caplog.records if "was refused with 1400" in record.getMessage()]
    assert 1 <= len(lines) <= 2
    assert lines[0].startswith("SRT: 127.0.0.1:")
    assert lines[0].endswith("stream id has a key twice")
    assert "hidden" not in lines[0]


async def test_too_many_calls_from_an_address_are_refused() -> None:
    async with collecting(listener(SrtLimits(calls_per_second=0.01, call_burst=2, answer_s=1.0))) as collector:
        said = []
        for _ in range(3):
            async with caller(collector.listener.port, "unknown") as (_process, answer):
                said.append(answer["reject"])
        assert said == [1404, 1404, 1402]
        assert collector.listener.stats.refused == {"not_found": 2, "too_many_requests": 1}


async def test_no_more_publishers_than_the_limit() -> None:
    async with collecting(listener(SrtLimits(max_publishers=1, answer_s=1.0))) as collector:
        async with caller(collector.listener.port, "one") as (_, said):
            assert said == {"connected": True}
            await collector.publisher("one")
            async with caller(collector.listener.port, "two") as (_, again):
                assert again == {"reject": 1402}


async def test_a_callers_latency_is_capped() -> None:
    async with watched() as (collector, witness):
        async with caller(collector.listener.port, "slow", options={"PEERLATENCY": 60_000}) as (process, said):
            assert said == {"connected": True}
            assert process.stdin is not None
            await witness.until(lambda: collector.listener.stats.latency_too_long == 1)
        assert [one.publisher.credential.key for one in collector.publishers] == ["witness"]


async def test_a_caller_that_dies_is_noticed_within_six_seconds() -> None:
    async with watched() as (collector, _):
        async with caller(collector.listener.port, "dying") as (process, _said):
            dying = await collector.publisher("dying")
            assert process.stdin is not None
            process.stdin.write(muxed(*X264, "-c:a", "aac", seconds=1))
            await dying.until(lambda: len(dying.packets) > 10)
            process.send_signal(signal.SIGKILL)
            await dying.ended(6.0)
        assert "silent" in str(dying.error)


async def test_what_is_no_transport_stream_is_cut_with_advice() -> None:
    async with watched() as (collector, _):
        async with caller(collector.listener.port, "noise") as (process, _said):
            noise = await collector.publisher("noise")
            assert process.stdin is not None
            process.stdin.write(random.Random(1).randbytes(1316 * 300))
            await noise.ended()
        assert "ffmpeg: -f mpegts" in str(noise.error)


async def test_the_longest_stream_id() -> None:
    async with collecting(listener()) as collector:
        async with caller(collector.listener.port, "x" * 512) as (_, said):
            assert said == {"connected": True}
            assert (await collector.publisher("x" * 512)).publisher.credential.key == "x" * 512


async def test_garbage_on_the_port() -> None:
    async with watched() as (collector, witness):
        chance, target = random.Random(2), ("127.0.0.1", collector.listener.port)
        handshake = bytes.fromhex("80" + "00" * 15 + "00000005 00000000 00000001 000005dc 00002000 00000001")
        memory = _resident()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
            for have in range(len(witness.packets), len(witness.packets) + 80, 2):
                for _ in range(250):
                    junk = chance.randbytes(chance.randrange(1, 1400))
                    attacker.sendto(junk if chance.random() < 0.5 else handshake + junk[:40], target)
                await witness.until(partial(lambda wanted: len(witness.packets) > wanted, have))
        assert collector.listener.stats.refused == {}
        assert _resident() - memory < 64 << 20


async def test_a_storm_of_calls() -> None:
    """Two hundred callers a second connect and vanish: all connect, none stays, and memory is flat.

    What libsrt keeps until it has freed the last of them (some 0.5 MB a call) is bounded, and then goes back to the system.
    """
    async with watched() as (collector, witness):
        load().give_back_memory()  # what other tests left must not count for this one
        before, memory = len(asyncio.all_tasks()), _resident()
        process = await asyncio.create_subprocess_exec(*_storm(collector.listener.port), stdout=asyncio.subprocess.PIPE)
        async with asyncio.timeout(3 * STEP_S):
            out, _ = await process.communicate()
        assert int(out) == 400
        for collected in collector.publishers[1:]:
            await collected.ended()
        # Some vanish before they are accepted: nobody is told of those
        assert 200 < collector.listener.stats.accepted == len(collector.publishers) <= 401
        await witness.until(lambda: len(asyncio.all_tasks()) <= before + 1)
        assert _resident() - memory < 256 << 20
        await witness.until(lambda: _resident() - memory < 16 << 20)
        assert _resident() - memory < 16 << 20
        assert not witness.over.is_set()


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


def _storm(port: int) -> list[str]:
    code = f"""
import sys, time
from protocols.srt.libsrt import load, Option
from protocols.srt.address import Address
srt, made = load(), 0
start = time.monotonic()
for n in range(400):
    s = srt.create()
    srt.set(s, Option.STREAMID, f"storm{{n}}")
    srt.connect(s, Address("127.0.0.1", {port}))
    made += 1
    srt.close(s)
    time.sleep(max(0.0, start + (n + 1) / 200 - time.monotonic()))
print(made)
"""
    return [sys.executable, "-c", code]
