"""A stream's workers: one for its pictures, its part in one for sound, and what both have used."""

import pytest

from gateway.sessions.counters import PipelineCounters
from gateway.sessions.transcoders import Transcoders
from protocols.media import Codec, Kind
from tests.unit.transcode.media import tone
from tests.unit.transcode.worker.test_process import Collector, one_by_one, pid_of
from transcode.host.pool import Workers
from transcode.limits import WorkerLimits
from transcode.plan import AudioTarget


def failed(why: str) -> None:
    pytest.fail(why)


async def test_sound_is_made_with_that_of_others_and_pictures_apart() -> None:
    async with Workers(WorkerLimits(hang=20)) as workers:
        one, other = Transcoders(workers, "one", failed), Transcoders(workers, "other", failed)
        pids = [await pid_of(await each.needed(kind)) for each in (one, other) for kind in (Kind.AUDIO, Kind.VIDEO)]
        assert pids[0] == pids[2]
        assert len(set(pids)) == 3
        assert await one.needed(Kind.VIDEO) is await one.needed(Kind.VIDEO)
        await one.keep({Kind.AUDIO})
        assert workers.count == 2
        await other.aclose()
        assert workers.count == 1
        await one.keep(())
        assert workers.count == 0


async def test_what_each_kind_has_used_is_counted_also_when_its_worker_has_gone() -> None:
    track, packets = tone(Codec.AAC, seconds=1)
    totals, out = PipelineCounters(), Collector()
    async with Workers(WorkerLimits(hang=20)) as workers:
        transcoders = Transcoders(workers, "one", failed)
        await transcoders.needed(Kind.VIDEO)
        stage = (await transcoders.needed(Kind.AUDIO)).audio(track, AudioTarget(), out)
        await one_by_one(stage.process, packets, out, lag=3)
        await stage.aclose()
        transcoders.count(totals)
        used = totals.worker_cpu_ns[Kind.AUDIO]
        assert used > 0
        await transcoders.keep(())
        await transcoders.needed(Kind.AUDIO)
        transcoders.count(totals)
        assert totals.worker_cpu_ns[Kind.AUDIO] == used
        await transcoders.aclose()
