"""A call's life: on air, back in backstage, ended, broadcast as HLS. What follows for viewers and encoders happens where the store is
followed, on every node.
"""

from dataclasses import replace

from gateway.api.framework.broadcasts import follow
from gateway.api.framework.call_access import Place
from gateway.api.framework.errors import ApiError
from gateway.api.framework.route import Asked
from gateway.api.framework.services import Desk
from gateway.api.schemas.answers import BroadcastingResponse, CallResponse, EmptyResponse, GoLiveResponse, StopLiveResponse
from gateway.api.schemas.requests import EmptyRequest, GoLiveRequest, StopLiveRequest
from gateway.model import lifecycle
from gateway.model.events import EventType
from gateway.model.permissions import Capability
from gateway.model.records import Call


async def go_live(desk: Desk, asked: Asked[GoLiveRequest]) -> GoLiveResponse:
    before = asked.place.call
    if asked.body.start_hls:
        _check_hls(desk, asked.place)
    hls = asked.place.settings.broadcasting.hls
    wished = asked.body.start_hls or (hls.enabled and hls.auto_on)
    call = await desk.store.calls.change(
        asked.cid, lambda call: lifecycle.gone_live(call, asked.now, broadcasting=wished), now=asked.now
    )
    if not before.live:
        desk.tell_call(EventType.CALL_LIVE_STARTED, call)
    _follow_hls(desk, before, call)
    return GoLiveResponse(
        call=await _shown(desk, asked), playlist_url=desk.broadcasts.playlist_url(call.cid, asked.identity.user_id)
    )


async def stop_live(desk: Desk, asked: Asked[StopLiveRequest]) -> StopLiveResponse:
    before = asked.place.call

    def stopped(call: Call) -> Call:
        after = lifecycle.stopped_live(call, asked.now)
        return replace(after, broadcasting=call.broadcasting) if asked.body.continue_hls else after

    call = await desk.store.calls.change(asked.cid, stopped, now=asked.now)
    if not before.backstage:
        desk.tell_call(EventType.CALL_LIVE_ENDED, call)
    _follow_hls(desk, before, call)
    return StopLiveResponse(call=await _shown(desk, asked))


async def mark_ended(desk: Desk, asked: Asked[EmptyRequest]) -> EmptyResponse:
    before = asked.place.call
    call = await desk.store.calls.change(asked.cid, lambda call: lifecycle.ended(call, asked.now), now=asked.now)
    if before.ended_at is None:
        desk.tell_call(EventType.CALL_ENDED, call)
    _follow_hls(desk, before, call)
    return EmptyResponse()


async def start_broadcasting(desk: Desk, asked: Asked[EmptyRequest]) -> BroadcastingResponse:
    _check_hls(desk, asked.place)
    if asked.place.call.ended_at is not None:
        raise ApiError(409, f"the call {asked.cid} has ended: create another one")
    call = await desk.store.calls.change(asked.cid, lambda call: replace(call, broadcasting=True), now=asked.now)
    _follow_hls(desk, asked.place.call, call)
    return BroadcastingResponse(playlist_url=desk.broadcasts.playlist_url(asked.cid, asked.identity.user_id))


async def stop_broadcasting(desk: Desk, asked: Asked[EmptyRequest]) -> EmptyResponse:
    call = await desk.store.calls.change(asked.cid, lambda call: replace(call, broadcasting=False), now=asked.now)
    _follow_hls(desk, asked.place.call, call)
    return EmptyResponse()


async def _shown(desk: Desk, asked: Asked[GoLiveRequest] | Asked[StopLiveRequest]) -> CallResponse:
    place = await desk.place(asked.identity, asked.cid, Capability.GO_LIVE)
    return desk.shown(place, await desk.people([place.call.created_by_id]), asked.origin)


def _check_hls(desk: Desk, place: Place) -> None:
    """Raises `ApiError` where it is off, and `Rejected` where this gateway has no room for it."""
    if not place.settings.broadcasting.hls.enabled:
        raise ApiError(400, "HLS is off for this call: set settings_override.broadcasting.hls.enabled")
    desk.broadcasts.check(place.call.cid)


def _follow_hls(desk: Desk, before: Call, after: Call) -> None:
    match follow(desk.broadcasts, before, after):
        case True:
            desk.tell(EventType.HLS_STARTED, after.cid, playlist_url=desk.broadcasts.open_playlist_url(after.cid))
        case False:
            desk.tell(EventType.HLS_STOPPED, after.cid)
        case None:
            pass
