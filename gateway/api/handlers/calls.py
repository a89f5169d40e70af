"""Calls: get or create, read, change, delete, query. What happens to them while they live is in `live`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gateway.api.framework import filters
from gateway.api.framework.broadcasts import follow
from gateway.api.framework.call_access import Place
from gateway.api.framework.errors import ApiError
from gateway.api.framework.route import Asked
from gateway.api.framework.services import Desk
from gateway.api.schemas.answers import (
    CallStateResponse,
    EmptyResponse,
    GetOrCreateCallResponse,
    QueriedCallResponse,
    QueryCallsResponse,
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


async def get_or_create(desk: Desk, asked: Asked[GetOrCreateCallRequest]) -> GetOrCreateCallResponse:
    created = await desk.known(asked.cid) is None and await _create(desk, asked)
    place = await desk.place(asked.identity, asked.cid, Capability.CREATE_CALL if created else Capability.READ_CALL)
    if created:
        desk.tell_call(EventType.CALL_CREATED, place.call, user={"id": place.call.created_by_id})
    state = await _state(desk, asked, place, asked.body.members_limit)
    return GetOrCreateCallResponse(**dict(state), created=created)


async def _create(desk: Desk, asked: Asked[GetOrCreateCallRequest]) -> bool:
    """Makes the call; False when somebody else did at the same moment."""
    await desk.authority.admit(asked.identity, asked.cid, Capability.CREATE_CALL)
    data, creator = asked.body.data, _creator(asked)
    call = lifecycle.created(
        desk.call_type(asked.path["type"]),
        asked.path["id"],
        creator,
        asked.now,
        starts_at=data.starts_at,
        settings_override=data.settings_override.model_dump(exclude_unset=True),
        custom=data.custom,
    )
    if data.created_by is not None and asked.trusted:
        await desk.store.users.put([stored_user(data.created_by, asked.now)])
    await desk.store.users.ensure({creator, *(each.user_id for each in data.members)}, asked.now)
    members = [stored_member(call.cid, each, asked.now) for each in data.members]
    return (await desk.store.calls.get_or_create(call, members))[1]


def _creator(asked: Asked[GetOrCreateCallRequest]) -> str:
    """Whose call it is to be."""
    data, self_id = asked.body.data, asked.identity.user_id
    named = {each for each in (data.created_by_id, data.created_by.id if data.created_by else None) if each}
    if len(named) > 1:
        raise ApiError(400, "data.created_by: it is another user than data.created_by_id")
    if not asked.trusted and named - {self_id}:
        raise ApiError(403, "a call that you create is yours: leave out created_by_id, or use a server token")
    creator = named.pop() if named else self_id
    if not creator:
        raise ApiError(400, "data.created_by_id: say whose call it is, because the token names no user")
    return creator


async def get(desk: Desk, asked: Asked[EmptyRequest]) -> CallStateResponse:
    return await _state(desk, asked, asked.place)


async def update(desk: Desk, asked: Asked[UpdateCallRequest]) -> CallStateResponse:
    given = asked.body.model_dump(exclude_unset=True)
    call = await desk.store.calls.change(asked.cid, lambda call: _updated(call, given), now=asked.now)
    if call != asked.place.call:
        desk.tell_call(EventType.CALL_UPDATED, call)
    return await _state(desk, asked, await desk.place(asked.identity, asked.cid, Capability.UPDATE_CALL))


def _updated(call: Call, given: Mapping[str, Any]) -> Call:
    """What is given is changed; of the settings each one by itself."""
    changed = replace(call, settings_override=overlaid(call.settings_override, given.get("settings_override", {})))
    return replace(changed, **{name: given[name] for name in ("starts_at", "custom") if name in given})


def overlaid(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """JSON objects merged, the values of `over` winning."""
    both = {name: overlaid(under[name], over[name]) for name in under.keys() & over.keys() if isinstance(over[name], Mapping)}
    return {**under, **over, **both}


async def delete(desk: Desk, asked: Asked[EmptyRequest]) -> EmptyResponse:
    if await desk.store.calls.delete(asked.cid):
        desk.tell(EventType.CALL_DELETED, asked.cid)
    follow(desk.broadcasts, asked.place.call, None)
    return EmptyResponse()


async def query(desk: Desk, asked: Asked[QueryCallsRequest]) -> QueryCallsResponse:
    body = asked.body
    page = await desk.store.calls.query(
        filters.parsed(body.filter_conditions),
        filters.sorting(body.sort) or filters.NEWEST_FIRST,
        limit=body.limit,
        cursor=filters.cursor(body),
    )
    found: list[QueriedCallResponse] = []
    for call in page.items:
        place = await desk.place_if(asked.identity, call.cid, Capability.READ_CALL)
        if place is not None:
            found.append(QueriedCallResponse(**await _shown(desk, asked, place, MEMBERS_SHOWN)))
    return QueryCallsResponse(calls=found, next=page.next, prev=page.previous)


async def _state(desk: Desk, asked: Asked[Any], place: Place, members_limit: int = MEMBERS_SHOWN) -> CallStateResponse:
    return CallStateResponse(**await _shown(desk, asked, place, members_limit))


async def _shown(desk: Desk, asked: Asked[Any], place: Place, members_limit: int) -> dict[str, Any]:
    """A call, its first members, and what the caller is in it."""
    cid, me = place.call.cid, asked.identity.user_id
    members = (await desk.store.calls.query_members(cid, limit=members_limit)).items
    mine = await desk.store.calls.members(cid, [me]) if me else ()
    people = await desk.people([place.call.created_by_id, me, *(each.user_id for each in members)])
    return {
        "call": desk.shown(place, people, asked.origin),
        "members": people.members(members),
        "membership": people.member(mine[0]) if mine else None,
        "own_capabilities": sorted(place.capabilities),
    }
