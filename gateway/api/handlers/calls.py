"""Calls: get or create, read, change, delete, query. What happens to them while they live is in `live`."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from gateway.api.framework import filters
from gateway.api.framework.broadcasts import follow
from gateway.api.framework.call_access import CallAccess
from gateway.api.framework.errors import ApiError
from gateway.api.framework.paging import fitting
from gateway.api.framework.route import ApiRequest
from gateway.api.framework.services import Services
from gateway.api.schemas.answers import (
    CallStateResponse,
    EmptyResponse,
    GetOrCreateCallResponse,
    QueriedCallResponse,
    QueryCallsResponse,
    WatchTokenResponse,
)
from gateway.api.schemas.conversion import stored_member, stored_user
from gateway.api.schemas.requests import (
    EmptyRequest,
    GetOrCreateCallRequest,
    QueryCallsRequest,
    UpdateCallRequest,
)
from gateway.model import lifecycle
from gateway.model.events import EventType
from gateway.model.permissions import Capability
from gateway.model.records import Call

MEMBERS_SHOWN = 100


async def get_or_create(services: Services, request: ApiRequest[GetOrCreateCallRequest]) -> GetOrCreateCallResponse:
    created = await services.rights_cache.find(request.cid) is None and await _create(services, request)
    access = await services.access(request.identity, request.cid, Capability.CREATE_CALL if created else Capability.READ_CALL)
    if created:
        services.tell_call(EventType.CALL_CREATED, access.call, user={"id": access.call.created_by_id})
    state = await _state(services, request, access, request.body.members_limit)
    return GetOrCreateCallResponse(**dict(state), created=created)


async def _create(services: Services, request: ApiRequest[GetOrCreateCallRequest]) -> bool:
    """Makes the call; False when somebody else did at the same moment."""
    await services.authorizer.admit(request.identity, request.cid, Capability.CREATE_CALL)
    data, creator = request.body.data, _creator(request)
    bound = not (request.trusted or request.identity.server)
    if bound:
        services.quotas.making_call(creator)
    call = lifecycle.created(
        services.call_type(request.path["type"]),
        request.path["id"],
        creator,
        request.now,
        starts_at=data.starts_at,
        settings_override=data.settings_override.model_dump(exclude_unset=True),
        custom=data.custom,
        api_key=request.identity.api_key,
    )
    services.authorizer.check_gives(request.identity, call.cid, (each.role for each in data.members), creating=True)
    if data.created_by is not None and request.trusted:
        await services.store.users.put([stored_user(data.created_by, request.now, request.identity.api_key)])
    await services.store.users.ensure({creator, *(each.user_id for each in data.members)}, request.now)
    members = [stored_member(call.cid, each, request.now, request.identity.api_key) for each in data.members]
    most_open = services.quotas.open_calls if bound else 0
    return (await services.store.calls.get_or_create(call, members, most_open=most_open))[1]


def _creator(request: ApiRequest[GetOrCreateCallRequest]) -> str:
    """Whose call it is to be."""
    data, self_id = request.body.data, request.identity.user_id
    named = {each for each in (data.created_by_id, data.created_by.id if data.created_by else None) if each}
    if len(named) > 1:
        raise ApiError(400, "data.created_by: it is another user than data.created_by_id")
    if not (request.trusted or request.identity.server) and named - {self_id}:
        raise ApiError(403, "a call that you create is yours: leave out created_by_id, or use a server token")
    creator = named.pop() if named else self_id
    if not creator:
        raise ApiError(400, "data.created_by_id: say whose call it is, because the token names no user")
    return creator


async def get(services: Services, request: ApiRequest[EmptyRequest]) -> CallStateResponse:
    return await _state(services, request, request.access)


async def update(services: Services, request: ApiRequest[UpdateCallRequest]) -> CallStateResponse:
    given = request.body.model_dump(exclude_unset=True)
    call = await services.store.calls.change(request.cid, lambda call: _updated(call, given), now=request.now)
    if call != request.access.call:
        services.tell_call(EventType.CALL_UPDATED, call)
    return await _state(services, request, await services.access(request.identity, request.cid, Capability.UPDATE_CALL))


def _updated(call: Call, given: Mapping[str, Any]) -> Call:
    """What is given is changed; of the settings each one by itself."""
    changed = replace(call, settings_override=overlaid(call.settings_override, given.get("settings_override", {})))
    return replace(changed, **{name: given[name] for name in ("starts_at", "custom") if name in given})


def overlaid(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """JSON objects merged, the values of `over` winning."""
    both = {name: overlaid(under[name], over[name]) for name in under.keys() & over.keys() if isinstance(over[name], Mapping)}
    return {**under, **over, **both}


async def delete(services: Services, request: ApiRequest[EmptyRequest]) -> EmptyResponse:
    if await services.store.calls.delete(request.cid):
        services.tell(EventType.CALL_DELETED, request.cid)
    follow(services.broadcasts, request.access.call, None)
    return EmptyResponse()


async def watch_token(services: Services, request: ApiRequest[EmptyRequest]) -> WatchTokenResponse:
    """So that nobody hands on the token by which they publish. It ends with the token that it is made of, and within a day."""
    if not request.identity.user_id:
        raise ApiError(400, "a token for watching is a user's: come with a user's token")
    token, expires_at = services.tokens.for_watching(request.identity, request.cid)
    return WatchTokenResponse(token=token, expires_at=datetime.fromtimestamp(expires_at, UTC))


async def query(services: Services, request: ApiRequest[QueryCallsRequest]) -> QueryCallsResponse:
    body = request.body
    page = await services.store.calls.query(
        filters.parsed(body.filter_conditions),
        filters.sorting(body.sort) or filters.NEWEST_FIRST,
        limit=body.limit,
        cursor=filters.cursor(body),
    )
    reached = {call.cid: await services.access_if(request.identity, call.cid, Capability.READ_CALL) for call in page.items}
    readable = {cid: access for cid, access in reached.items() if access is not None}
    me = request.identity.user_id
    mine = await services.store.calls.memberships(me, readable) if me else {}
    people = await services.people([me, *(access.call.created_by_id for access in readable.values())])
    shown = (
        QueriedCallResponse(
            call=services.shown(access, people, request.origin),
            membership=people.member(mine[cid]) if cid in mine else None,
            own_capabilities=sorted(access.capabilities),
        )
        for cid, access in readable.items()
    )
    calls = list(fitting(shown))
    if len(calls) < len(readable):
        page = page.first(list(reached).index(calls[-1].call.cid) + 1)
    return QueryCallsResponse(calls=calls, next=page.next, prev=page.previous)


async def _state(
    services: Services, request: ApiRequest[Any], access: CallAccess, members_limit: int = MEMBERS_SHOWN
) -> CallStateResponse:
    return CallStateResponse(**await _shown(services, request, access, members_limit))


async def _shown(services: Services, request: ApiRequest[Any], access: CallAccess, members_limit: int) -> dict[str, Any]:
    """A call, its first members, and what the caller is in it."""
    cid, me = access.call.cid, request.identity.user_id
    listed = access.inside and not request.identity.anonymous
    members = (await services.store.calls.query_members(cid, limit=members_limit)).items if listed else ()
    mine = await services.store.calls.members(cid, [me]) if me else ()
    people = await services.people([access.call.created_by_id, me, *(each.user_id for each in members)])
    return {
        "call": services.shown(access, people, request.origin),
        "members": list(fitting(people.members(members))),
        "membership": people.member(mine[0]) if mine else None,
        "own_capabilities": sorted(access.capabilities),
    }
