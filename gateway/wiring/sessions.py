"""Who may stream and how it is treated, put together: seats, the calls that they go into, and the room for them."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import time_ns

from gateway.access.credentials import Tokens
from gateway.access.viewers import Viewers
from gateway.api.framework.broadcasts import Broadcasts, NoBroadcasts
from gateway.config import Config
from gateway.config.sources import ConfigError, ConfigProblem
from gateway.model.permissions import Capability
from gateway.model.records import MAX_PARTICIPANTS
from gateway.node.cpu import CpuRoom, available_cores, available_memory
from gateway.node.drain import Drain
from gateway.node.identity import node_name
from gateway.outputs.embedded.call import EmbeddedCall
from gateway.sessions.admission import Admission
from gateway.sessions.capacity import Capacity
from gateway.sessions.kept_seats import KeptSeats
from gateway.sessions.pacer import LiveEdgePolicy
from gateway.sessions.registry import MakeCall, Registry
from gateway.sessions.seat import SeatPolicy
from gateway.sessions.socket_watch import WatchPolicy
from gateway.sessions.succession import Return
from gateway.sessions.transcode_policy import adapted, configured
from gateway.telemetry.log import event
from gateway.telemetry.tracing import Begin
from gateway.wiring.events import EventServices
from gateway.wiring.output import MakeOutput, MediaOutput, OutputNeeds
from gateway.wiring.slate import slates
from gateway.wiring.store import StoreAccess
from protocols.whep.fanout import Fanout
from transcode.encoder_table import HARDWARE
from transcode.host.pool import Workers
from transcode.host.probe import choose
from transcode.limits import WALLS, WALLS_MENDED, WorkerLimits
from transcode.plan import plan

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SessionServices:
    """`outputs` take media beside the call, `policy` is how seats behave, `kept` what outlives the process, `viewers` who may watch."""

    registry: Registry
    capacity: Capacity
    outputs: Sequence[MediaOutput]
    drain: Drain
    policy: SeatPolicy
    admission: Admission
    viewers: Viewers
    kept: KeptSeats

    @property
    def broadcasts(self) -> Broadcasts:
        return next((each.broadcasts for each in self.outputs if each.broadcasts is not None), NoBroadcasts())


async def session_services(
    config: Config,
    http_port: int,
    tokens: Tokens,
    access: StoreAccess,
    told: EventServices,
    workers: Workers,
    trace: Begin,
    outputs: Sequence[MakeOutput],
    fanout: Fanout,
) -> SessionServices:
    """`http_port` is the bound one; `fanout` serves the viewers of calls, `outputs` take media beside the call. Tries the
    encoders. Raises `ConfigError`."""
    registry = Registry(_make_call(config, fanout))
    limits, authorizer = config.capacity, access.authorizer
    capacity = Capacity(available_cores(limits.cores), limits.reserve, limits.enabled)
    _walled(config, workers)
    treatment = configured(config.transcode, await _encoder(config, workers), workers.encoders)
    needs = OutputNeeds(config, http_port, tokens.secret.value, authorizer, capacity)
    beside = [output for make in outputs if (output := make(needs)) is not None]
    drain = Drain(registry)
    kept = _kept(config, registry, access, told, beside)
    edge = config.live_edge
    policy = SeatPolicy(
        decide=lambda track, want: plan(track, want, treatment),
        live_edge=LiveEdgePolicy(free=edge.ahead_ms * 1_000_000, hold=edge.hold_ms * 1_000_000, late=edge.late_ms * 1_000_000),
        watch=WatchPolicy(),
        linger_s=config.calls.linger_s,
        stop_linger_s=config.calls.stop_linger_s,
        return_to_primary=Return(config.calls.return_to_primary),
        revert_after_s=config.calls.revert_after_s,
        slate=await slates(config.slate, workers),
        max_bitrate=config.calls.max_bitrate_bps,
        on_retired=registry.retire,
        room=CpuRoom(capacity, registry),
        on_change=kept.changed,
    )
    admission = Admission(
        registry,
        authorizer,
        workers,
        [each.destination for each in beside],
        max_sessions=config.calls.max_streams,
        on_conflict=config.calls.on_conflict,
        closing=drain,
        adapt=adapted(treatment),
        fits=capacity.admit_any,
        on_refused=told.producers.refused,
        trace=trace,
        awaited=kept,
    )
    viewers = Viewers(
        registry.call,
        authorizer.watch,
        still=lambda who, cid: authorizer.judge(who, cid, Capability.JOIN_CALL),
        on_change=_counting(registry, told),
    )
    return SessionServices(registry, capacity, beside, drain, policy, admission, viewers, kept)


def _kept(
    config: Config, registry: Registry, access: StoreAccess, told: EventServices, outputs: Sequence[MediaOutput]
) -> KeptSeats:
    return KeptSeats(
        registry,
        access.store.seats,
        [each.resumable for each in outputs if each.resumable is not None],
        told.producers.seat_changed,
        told.producers,
        node=node_name(config),
        epoch=time_ns() // 1_000_000,
    )


def worker_limits(config: Config) -> WorkerLimits:
    wanted = config.transcode
    return WorkerLimits(
        workers=wanted.workers_max,
        sharing=wanted.sound_sessions,
        memory=wanted.memory_mib << 20,
        memory_together=wanted.memory_all_mib << 20 or available_memory() // 2,
        niceness=wanted.nice,
        sound_niceness=max(0, wanted.nice - 5),
    )


def _make_call(config: Config, fanout: Fanout) -> MakeCall:
    def made(cid: str, on_empty: Callable[[str], None]) -> EmbeddedCall:
        patience_s = config.transcode.pass_again_s
        shown = fanout.call(cid)
        return EmbeddedCall(cid, max_participants=MAX_PARTICIPANTS, on_empty=on_empty, patience_s=patience_s, fanout=shown)

    return made


def _counting(registry: Registry, told: EventServices) -> Callable[[str], None]:
    def changed(cid: str) -> None:
        told.producers.viewers(cid, lambda: registry.viewers(cid))

    return changed


def _walled(config: Config, workers: Workers) -> None:
    """Raises `ConfigError` where workers are not confined as the configuration insists."""
    if missing := sorted(WALLS - workers.walls):
        words = f"transcoding is not confined here by {' and '.join(missing)}: {WALLS_MENDED}"
        if config.transcode.sandbox == "required":
            raise ConfigError([ConfigProblem("transcode.sandbox", "the configuration", config.transcode.sandbox, words)])
        event(log, logging.WARNING, words)


async def _encoder(config: Config, workers: Workers) -> str:
    """The H.264 encoder to use, and in the log why it is not the one that was asked for."""
    choice = await choose(workers, config.transcode.encoder, HARDWARE)
    for encoder, why_not in choice.refused.items():
        event(log, logging.WARNING, f"{encoder} does not work here: {why_not}")
    event(log, logging.INFO, f"video is encoded by {choice.encoder}")
    return choice.encoder
