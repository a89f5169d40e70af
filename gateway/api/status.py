"""What is live right now, and the figures for machines: `/api/streams`, `/metrics`."""

import json
from collections.abc import Callable, Collection, Iterable
from time import monotonic_ns
from typing import Final, Literal

from aiohttp import web

from gateway.access.authorizer import Authorizer
from gateway.access.credentials import NOBODY, Identity
from gateway.api.framework.paging import page
from gateway.api.framework.quotas import Quotas
from gateway.api.metrics import CONTENT_TYPE
from gateway.api.schemas.answers import LinkResponse, StandbyResponse, StandbyTrackResponse, StreamResponse, TrackResponse
from gateway.model.permissions import Capability
from gateway.model.records import FIRST_RANK
from gateway.sessions.diagnostics import findings, wrong_with
from gateway.sessions.input import Input
from gateway.sessions.registry import Registry
from gateway.sessions.seat import Seat
from gateway.sessions.track_pipeline import TrackPipeline
from protocols.publisher import LinkReading
from protocols.webrtc.http import bearer

_SELDOM: Final = 20  # times as long as it took to make it


class Streams:
    """Reads the registry for people: the figures of each live stream and what its streamer should change."""

    def __init__(
        self,
        registry: Registry,
        metrics: Callable[[], bytes],
        authorizer: Authorizer,
        quotas: Quotas,
        now: Callable[[], int] = monotonic_ns,
    ) -> None:
        """`metrics` gives the text of `/metrics`; `now` monotonic ns."""
        self._registry = registry
        self._metrics = metrics
        self._authorizer = authorizer
        self._quotas = quotas
        self._now = now
        self._text, self._fresh_until = "", 0

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/streams", self._streams),
            web.get("/metrics", self._scrape),
        ]

    async def _streams(self, request: web.Request) -> web.Response:
        """Those of calls that whoever asks may watch now; without a token those that anybody may. `?call=` of one call, `?next=` those that
        did not fit into an earlier answer."""
        remote, call, cursor = request.remote or "", request.query.get("call"), request.query.get("next")
        self._quotas.asked(NOBODY, remote, for_list=False)
        identity = self._authorizer.identify(bearer(request), address=remote)
        if identity.anonymous and call is None and cursor is None:
            text = self._told_everybody()
        else:
            self._quotas.asked(identity, remote, for_list=identity.anonymous)
            text = self._told(identity, call, cursor)
        return web.Response(text=text, content_type="application/json", headers={"Cache-Control": "no-store"})

    def _told_everybody(self) -> str:
        """The page of live streams asks every two seconds, and many look at it: they get the same text while that is fresh, which is the
        longer the more there is to it, so that making it takes a share of all time, however often it is asked for."""
        began = self._now()
        if began >= self._fresh_until:
            self._text = self._told(NOBODY, None, None)
            ended = self._now()
            self._fresh_until = ended + (ended - began) * _SELDOM
        return self._text

    def _told(self, identity: Identity, call: str | None, cursor: str | None) -> str:
        seats = [each for each in self._registry.seats.values() if call is None or each.call_cid == call]
        shown, after = streams_page(self._registry, listed(self._authorizer, identity, seats), cursor)
        return f'{{"streams":[{",".join(each.model_dump_json() for each in shown)}],"next":{json.dumps(after)}}}'

    async def _scrape(self, request: web.Request) -> web.Response:
        return web.Response(body=self._metrics(), headers={"Content-Type": CONTENT_TYPE})


def listed(authorizer: Authorizer, identity: Identity, seats: Collection[Seat]) -> list[Seat]:
    """Those of `sessions` whose calls let this one list their streams."""
    by_call: dict[str, bool] = {}
    for seat in seats:
        if seat.call_cid not in by_call:
            by_call[seat.call_cid] = authorizer.may(identity, seat.call_cid, Capability.LIST_STREAMS)
    return [each for each in seats if by_call[each.call_cid]]


def streams_page(registry: Registry, seats: Iterable[Seat], cursor: str | None) -> tuple[list[StreamResponse], str | None]:
    """A page of these seats as they are shown, by call and user, and the cursor of the next one (see `paging.page`)."""
    keyed = {f"{each.call_cid} {each.user_id}": each for each in seats}
    shown, after = page(keyed, lambda each: stream(each, registry.viewers(each.call_cid)), cursor)
    return list(shown.values()), after


def stream(seat: Seat, viewers: int) -> StreamResponse:
    """One seat as it is shown; nothing in it is secret, and the encoder's address stays in the log."""
    track_pipelines = list(seat.pipeline.track_pipelines.values()) if seat.pipeline is not None else []
    publisher = seat.publisher
    known = publisher.stats.link if publisher is not None else None
    return StreamResponse(
        id=seat.id,
        call=seat.call_cid,
        user=seat.user_id,
        protocol=seat.protocol,
        software=publisher.software if publisher is not None else "",
        started_at=seat.started_at.replace(microsecond=0),
        state=seat.state.value,
        bitrate_bps=sum(track_pipeline.meter.bitrate for track_pipeline in track_pipelines),
        round_trip_ms=round(publisher.stats.round_trip_ns / 1e6, 2) if publisher is not None else None,
        link=link(known) if known is not None else None,
        reconnects=seat.reconnects,
        rank=seat.inputs.live.rank,
        role=_role(seat.inputs.live),
        standbys=[_standby(each) for each in sorted(seat.inputs.standing_by, key=lambda each: each.rank)],
        tracks=[track(track_pipeline) for track_pipeline in track_pipelines],
        viewers=viewers,
        warnings=[finding.text for finding in findings(seat, monotonic_ns())],
    )


def _role(it: Input) -> Literal["primary", "backup"]:
    return "primary" if it.rank == FIRST_RANK else "backup"


def _standby(it: Input) -> StandbyResponse:
    stats = it.publisher.stats
    return StandbyResponse(
        id=it.publisher.id,
        rank=it.rank,
        role=_role(it),
        state="silent" if it.well_since(monotonic_ns()) is None else "standby",
        protocol=it.publisher.protocol,
        software=it.publisher.software,
        started_at=it.started_at.replace(microsecond=0),
        bitrate_bps=it.bitrate,
        round_trip_ms=round(stats.round_trip_ns / 1e6, 2),
        link=link(stats.link) if stats.link is not None else None,
        tracks=[
            StandbyTrackResponse(kind=each.kind.value, codec=each.codec.value, width=each.width, height=each.height)
            for each in it.tracks
        ],
        warnings=list(wrong_with(it)),
    )


def link(known: LinkReading) -> LinkResponse:
    """What the protocol knows of the connection: packets since the start, and the last reading."""
    return LinkResponse(
        latency_ms=known.latency_ms,
        buffer_ms=known.buffer_ms,
        capacity_mbps=round(known.capacity_mbps, 1),
        packets_received=known.packets_received,
        packets_lost=known.packets_lost,
        packets_retransmitted=known.packets_retransmitted,
        packets_dropped=known.packets_dropped,
        packets_belated=known.packets_belated,
    )


def track(track_pipeline: TrackPipeline) -> TrackResponse:
    facts, total = track_pipeline.track, track_pipeline.delays.total.get(track_pipeline.mode)
    return TrackResponse(
        kind=facts.kind.value,
        codec=facts.codec.value,
        layer=facts.layer,
        profile=facts.profile,
        width=facts.width,
        height=facts.height,
        frame_rate=track_pipeline.meter.frame_rate,
        sample_rate=facts.sample_rate,
        channels=facts.channels,
        bitrate_bps=track_pipeline.meter.bitrate,
        keyframe_interval_ms=round(track_pipeline.meter.keyframe_interval / 1e6),
        mode=track_pipeline.mode,
        reason=track_pipeline.decision.why.label,
        why=track_pipeline.decision.why.text,
        advice=track_pipeline.decision.why.advice,
        delay_ms_p50=_rounded(total.quantile(0.5) if total else None),
        delay_ms_p95=_rounded(total.quantile(0.95) if total else None),
        delay_ms_by_stage={step.value: _rounded(h.quantile(0.5)) for step, h in track_pipeline.delays.steps.items()},
    )


def _rounded(value: float | None) -> float | None:
    return round(value, 2) if value is not None else None
