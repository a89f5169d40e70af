"""WebRTC as the configuration wants it: the UDP port that viewers and WHIP share, or processes that serve viewers, each on its own."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gateway.config import Config
from gateway.node.cpu import available_cores
from gateway.outputs.fanout.messages import ProcessSettings
from gateway.outputs.fanout.pool import FanoutProcesses
from protocols.webrtc.transport.peer import Limits
from protocols.webrtc.transport.udp_mux import UdpMux
from protocols.whep.fanout import Fanout
from protocols.whep.local_fanout import LocalFanout


def udp_mux(config: Config) -> UdpMux:
    return UdpMux(
        config.webrtc.host,
        config.webrtc.port,
        external_addresses=[str(address) for address in config.webrtc.external_addresses],
        limits=Limits(peers=config.webrtc.max_viewers, connect=config.webrtc.connect_timeout_s),
    )


@dataclass(frozen=True, slots=True)
class WebrtcServices:
    """`mux` is the main process's port; `fanout` serves viewers, by `processes` where there may be any. As metrics know it
    (`gateway.api.metrics.Transport`), all ports together are one."""

    mux: UdpMux
    fanout: Fanout
    processes: FanoutProcesses | None = field(default=None)

    @property
    def ports(self) -> Sequence[int]:
        return [self.mux.port, *(self.processes.ports if self.processes is not None else ())]

    @property
    def cpu_ns(self) -> int:
        """Of the processes, since the start."""
        return self.processes.cpu_ns if self.processes is not None else 0

    def counters(self) -> Iterator[tuple[str, str, int]]:
        beside: Mapping[str, int] = self.processes.transport() if self.processes is not None else Counter()
        for name, meaning, value in self.mux.counters():
            yield name, meaning, value + beside.get(name, 0)
        ends, left_out = (self.processes.ends, self.processes.left_out) if self.processes is not None else (0, 0)
        yield "processes_ended", "Fan-out processes that died and were replaced", ends
        yield "units_left_out", "Access units that a fan-out process was not given: it did not read in time", left_out


@asynccontextmanager
async def webrtc_services(config: Config) -> AsyncIterator[WebrtcServices]:
    webrtc = config.webrtc
    ports = webrtc.process_ports(available_cores(config.capacity.cores))
    async with udp_mux(config) as mux:
        if not ports:
            yield WebrtcServices(mux, LocalFanout(mux))
            return
        addresses = tuple(map(str, webrtc.external_addresses))
        settings = [
            ProcessSettings(webrtc.host, port, addresses, webrtc.max_viewers, webrtc.connect_timeout_s) for port in ports
        ]
        async with FanoutProcesses(settings, mux.turns) as processes:
            yield WebrtcServices(mux, processes, processes)
