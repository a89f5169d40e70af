"""A call's life: on air, back in backstage, ended, broadcast as HLS. What follows for viewers and encoders happens where the store is
followed, on every node.
"""

from dataclasses import replace

from gateway.api.framework.broadcasts import follow
from gateway.api.framework.call_access import CallAccess
from gateway.api.framework.errors import ApiError
from gateway.api.framework.route import ApiRequest
from gateway.api.framework.services import Services
from gateway.api.schemas.answers import BroadcastingResponse, CallResponse, EmptyResponse, GoLiveResponse, StopLiveResponse
from gateway.api.schemas.requests import EmptyRequest, GoLiveRequest, StopLiveRequest
from gateway.model import lifecycle
from gateway.model.events import EventType
from gateway.model.permissions import Capability
from gateway.model.records import Call


async def go_live(services: Services, request: ApiRequest[GoLiveRequest]) -> GoLiveResponse:
    before = request.access.call
    if request.body.start_hls:
        _check_hls(services, request.access)
    hls = request.access.settings.broadcasting.hls
    wished = request.body.start_hls or (hls.enabled and hls.auto_on)
    call = await services.store.calls.change(
        request.cid, lambda call: lifecycle.gone_live(call, request.now, broadcasting=wished), now=request.now
    )
    if not before.live:
        services.tell_call(EventType.CALL_LIVE_STARTED, call)
    _follow_hls(services, before, call)
    return GoLiveResponse(
        call=await _shown(services, request), playlist_url=services.broadcasts.playlist_url(call.cid, request.identity)
    )


async def stop_live(services: Services, request: ApiRequest[StopLiveRequest]) -> StopLiveResponse:
    before = request.access.call

    def stopped(call: Call) -> Call:
        after = lifecycle.stopped_live(call, request.now)
        return replace(after, broadcasting=call.broadcasting) if request.body.continue_hls else after

    call = await services.store.calls.change(request.cid, stopped, now=request.now)
    if not before.backstage:
        services.tell_call(EventType.CALL_LIVE_ENDED, call)
    _follow_hls(services, before, call)
    return StopLiveResponse(call=await _shown(services, request))


async def mark_ended(services: Services, request: ApiRequest[EmptyRequest]) -> EmptyResponse:
    before = request.access.call
    call = await services.store.calls.change(request.cid, lambda call: lifecycle.ended(call, request.now), now=request.now)
    if before.ended_at is None:
        services.tell_call(EventType.CALL_ENDED, call)
    _follow_hls(services, before, call)
    return EmptyResponse()


async def start_broadcasting(services: Services, request: ApiRequest[EmptyRequest]) -> BroadcastingResponse:
    _check_hls(services, request.access)
    if request.access.call.ended_at is not None:
        raise ApiError(409, f"the call {request.cid} has ended: create another one")
    call = await services.store.calls.change(request.cid, lambda call: replace(call, broadcasting=True), now=request.now)
    _follow_hls(services, request.access.call, call)
    return BroadcastingResponse(playlist_url=services.broadcasts.playlist_url(request.cid, request.identity))


async def stop_broadcasting(services: Services, request: ApiRequest[EmptyRequest]) -> EmptyResponse:
    call = await services.store.calls.change(request.cid, lambda call: replace(call, broadcasting=False), now=request.now)
    _follow_hls(services, request.access.call, call)
    return EmptyResponse()


async def _shown(services: Services, request: ApiRequest[GoLiveRequest] | ApiRequest[StopLiveRequest]) -> CallResponse:
    access = await services.access(request.identity, request.cid, Capability.GO_LIVE)
    return services.shown(access, await services.people([access.call.created_by_id]), request.origin)


def _check_hls(services: Services, access: CallAccess) -> None:
    """Raises `ApiError` where it is off, and `Rejected` where this gateway has no room for it."""
    if not access.settings.broadcasting.hls.enabled:
        raise ApiError(400, "HLS is off for this call: set settings_override.broadcasting.hls.enabled")
    services.broadcasts.check(access.call.cid)


def _follow_hls(services: Services, before: Call, after: Call) -> None:
    match follow(services.broadcasts, before, after):
        case True:
            services.tell(EventType.HLS_STARTED, after.cid, playlist_url=services.broadcasts.open_playlist_url(after.cid))
        case False:
            services.tell(EventType.HLS_STOPPED, after.cid)
        case None:
            pass
