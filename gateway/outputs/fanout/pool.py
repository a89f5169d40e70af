"""All fan-out processes (`protocols.whep.fanout.Fanout`): viewers are spread over them, and one that dies is replaced.

Keeps true: there is none before there is a call, so that an idle gateway holds no memory for them; a process that dies takes its own
viewers with it and nobody else; what it has counted stays counted.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Self

from gateway.outputs.fanout.call import SpreadCall
from gateway.outputs.fanout.handle import FanoutProcess, RemoteViewer, ViewerPlaces
from gateway.outputs.fanout.messages import ProcessFigures, ProcessSettings
from gateway.telemetry.log import event
from protocols.back_off import BackOff
from protocols.defects import log_defect
from protocols.errors import Reason, Rejected
from protocols.webrtc.transport.places import Place
from protocols.whep.fanout import ViewerOffer
from protocols.whep.local_fanout import COUNTERS

_WAIT_S = 5.0  # for a process, of who offers
_STEADY_S = 10.0  # of life after which its end is no failure of the start
_BACK_OFF = BackOff(0.2, 10.0)

log = logging.getLogger(__name__)


class FanoutProcesses:
    """Entering it starts nothing yet; leaving it ends them all."""

    def __init__(self, settings: Sequence[ProcessSettings], places: ViewerPlaces) -> None:
        """`settings` of each; `places` are where viewers are counted."""
        self.ends = 0
        """Processes that have died."""
        self._settings = settings
        self._places = places
        self._keepers: list[asyncio.Task[None]] = []
        self._processes: dict[int, FanoutProcess] = {}  # that run, or are about to
        self._ready = asyncio.Event()
        self._past: dict[str, Counter[str]] = {"viewers": Counter(), "transport": Counter(), "own": Counter()}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        if self._keepers:
            await asyncio.wait(self._keepers)

    @property
    def processes(self) -> Sequence[FanoutProcess]:
        """Those that serve viewers now."""
        return [process for process in self._processes.values() if process.up]

    @property
    def ports(self) -> Sequence[int]:
        return [process.port for process in self.processes]

    async def offer(self, offer: ViewerOffer, place: Place) -> RemoteViewer:
        self._begin()
        try:
            async with asyncio.timeout(_WAIT_S):
                while not self.processes:
                    self._ready.clear()
                    await self._ready.wait()
        except TimeoutError:
            raise Rejected(Reason.OVERLOADED, "no process for viewers has started yet: try again in a moment", 2) from None
        return await min(self.processes, key=lambda process: len(process.viewers)).offer(offer, place)

    def call(self, cid: str) -> SpreadCall:
        self._begin()  # whoever comes to watch it need not wait for them
        return SpreadCall(cid)

    def counters(self) -> Iterator[tuple[str, str, int]]:
        totals = self._totals("viewers")
        for name, meaning in COUNTERS.items():
            yield name, meaning, totals[name]

    def transport(self) -> Counter[str]:
        """By name, the totals of the ports of all processes that are or were."""
        return self._totals("transport")

    @property
    def cpu_ns(self) -> int:
        """That all of them have used."""
        return self._totals("own")["cpu_ns"]

    @property
    def left_out(self) -> int:
        """Access units that a process was not given, since it did not read in time."""
        return self._totals("own")["left_out"]

    # Inside

    def _begin(self) -> None:
        if self._keepers:
            return
        for index, settings in enumerate(self._settings):
            keeper = asyncio.get_running_loop().create_task(self._keep(index, settings), name=f"fan-out process {index}")
            keeper.add_done_callback(partial(log_defect, log, "a fan-out process was kept"))
            self._keepers.append(keeper)

    async def _keep(self, index: int, settings: ProcessSettings) -> None:
        """One process after the other, at once; after a wait where they end as soon as they begin."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            process = self._processes[index] = FanoutProcess(index, self._places, self._ready.set)
            began = loop.time()
            try:
                await process.run(settings)
                why = process.exit
            except OSError as error:
                why = f"it cannot be started: {error}"
            finally:
                del self._processes[index]
                self._remember(process)
            self.ends += 1
            failures = 1 if loop.time() - began > _STEADY_S else failures + 1
            event(log, logging.ERROR, "a fan-out process ends, and is replaced", process=index, port=process.port, why=why)
            if failures > 1:
                await asyncio.sleep(_BACK_OFF.wait_s(failures - 1))

    def _remember(self, process: FanoutProcess) -> None:
        for name, counted in _by_part(process).items():
            self._past[name].update(counted)

    def _totals(self, part: str) -> Counter[str]:
        totals = Counter(self._past[part])
        for process in self._processes.values():
            totals.update(_by_part(process)[part])
        return totals


def _by_part(process: FanoutProcess) -> dict[str, Counter[str]]:
    figures: ProcessFigures = process.figures
    own = {"cpu_ns": figures.cpu_ns, "left_out": process.left_out}
    return {"viewers": Counter(figures.viewers), "transport": Counter(figures.transport), "own": Counter(own)}
