"""The people of a call (members, who is blocked, kicked or muted) and the users of the application."""

from typing import Any

from gateway.api.framework import filters
from gateway.api.framework.errors import ApiError
from gateway.api.framework.paging import fitting
from gateway.api.framework.route import ApiRequest
from gateway.api.framework.services import Services
from gateway.api.schemas import conversion
from gateway.api.schemas.answers import (
    EmptyResponse,
    OneUserResponse,
    QueryMembersResponse,
    QueryUsersResponse,
    UpdateMembersResponse,
    UpsertUsersResponse,
)
from gateway.api.schemas.conversion import stored_member, stored_user
from gateway.api.schemas.requests import (
    EmptyRequest,
    KickRequest,
    MuteUsersRequest,
    QueryMembersRequest,
    QueryUsersRequest,
    UnmuteUsersRequest,
    UpdateMembersRequest,
    UpsertUsersRequest,
    UserOfCallRequest,
)
from gateway.model.events import EventType
from gateway.model.permissions import IN_BACKSTAGE
from gateway.store.calls import muted, unblocked, unmuted
from protocols.media import Kind


async def update_members(services: Services, request: ApiRequest[UpdateMembersRequest]) -> UpdateMembersResponse:
    put, remove = request.body.update_members, request.body.remove_members
    if both := {each.user_id for each in put} & set(remove):
        raise ApiError(400, f"remove_members: {sorted(both)[0]} is in update_members too")
    services.authorizer.check_gives(request.identity, request.cid, (each.role for each in put))
    named = [each.user_id for each in put]
    present = {each.user_id for each in await services.store.calls.members(request.cid, [*named, *remove])}
    await services.store.users.ensure(named, request.now)
    await services.store.calls.update_members(
        request.cid, [stored_member(request.cid, each, request.now, request.identity.api_key) for each in put], remove
    )
    for kind, ids in (
        (EventType.MEMBER_ADDED, [each for each in named if each not in present]),
        (EventType.MEMBER_UPDATED, [each for each in named if each in present]),
        (EventType.MEMBER_REMOVED, [each for each in remove if each in present]),
    ):
        if ids:
            roles = {each.user_id: each.role for each in put}
            services.tell(kind, request.cid, members=[{"user_id": each, "role": roles.get(each)} for each in ids])
    people = await services.people(named)
    members = map(people.member, await services.store.calls.members(request.cid, named))
    return UpdateMembersResponse(members=list(fitting(members)))


async def query_members(services: Services, request: ApiRequest[QueryMembersRequest]) -> QueryMembersResponse:
    body = request.body
    if request.identity.anonymous:
        raise ApiError(401, "members are shown to who has a token: send it as Authorization")
    if not request.access.inside:
        raise ApiError(403, IN_BACKSTAGE)
    page = await services.store.calls.query_members(
        request.cid,
        filters.parsed(body.filter_conditions),
        filters.sorting(body.sort) or filters.OLDEST_FIRST,
        limit=body.limit,
        cursor=filters.cursor(body),
    )
    people = await services.people(each.user_id for each in page.items)
    members = list(fitting(map(people.member, page.items)))
    page = page.first(len(members))
    return QueryMembersResponse(members=members, next=page.next, prev=page.previous)


async def block(services: Services, request: ApiRequest[UserOfCallRequest]) -> EmptyResponse:
    user_id = request.body.user_id
    _check_not_self(request, user_id)
    await services.store.calls.kick(request.cid, user_id, block=True, now=request.now)
    if user_id not in request.access.call.blocked_user_ids:
        services.tell(EventType.USER_BLOCKED, request.cid, user_id=user_id)
    return EmptyResponse()


async def unblock(services: Services, request: ApiRequest[UserOfCallRequest]) -> EmptyResponse:
    user_id = request.body.user_id
    await services.store.calls.change(request.cid, lambda call: unblocked(call, user_id), now=request.now)
    if user_id in request.access.call.blocked_user_ids:
        services.tell(EventType.USER_UNBLOCKED, request.cid, user_id=user_id)
    return EmptyResponse()


async def kick(services: Services, request: ApiRequest[KickRequest]) -> EmptyResponse:
    user_id = request.body.user_id
    if request.body.block:
        _check_not_self(request, user_id)
    await services.store.calls.kick(request.cid, user_id, block=request.body.block, now=request.now)
    services.tell(EventType.USER_KICKED, request.cid, user_id=user_id)
    if request.body.block and user_id not in request.access.call.blocked_user_ids:
        services.tell(EventType.USER_BLOCKED, request.cid, user_id=user_id)
    return EmptyResponse()


def _check_not_self(request: ApiRequest[Any], user_id: str) -> None:
    """Who blocks themselves could not undo it."""
    if user_id == request.identity.user_id:
        raise ApiError(400, "user_id: you cannot block yourself")


async def mute(services: Services, request: ApiRequest[MuteUsersRequest]) -> EmptyResponse:
    body = request.body
    if not body.user_ids and not body.mute_all_users:
        raise ApiError(400, "user_ids: say who, or mute_all_users")
    kinds = _kinds(body)
    if body.mute_all_users:
        users = [seat.user_id for seat in services.seats(request.cid)]
        await services.store.calls.mute_all(request.cid, users, kinds, now=request.now)
    else:
        users = list(dict.fromkeys(body.user_ids))
        await services.store.calls.change(request.cid, lambda call: muted(call, users, kinds), now=request.now)
    for user_id in users:
        services.tell(EventType.USER_MUTED, request.cid, user_id=user_id, audio=body.audio, video=body.video)
    return EmptyResponse()


async def unmute(services: Services, request: ApiRequest[UnmuteUsersRequest]) -> EmptyResponse:
    users, kinds = request.body.user_ids, _kinds(request.body)
    await services.store.calls.change(request.cid, lambda call: unmuted(call, users, kinds), now=request.now)
    return EmptyResponse()


def _kinds(body: MuteUsersRequest | UnmuteUsersRequest) -> frozenset[Kind]:
    return frozenset(kind for kind, wanted in ((Kind.AUDIO, body.audio), (Kind.VIDEO, body.video)) if wanted)


async def upsert_users(services: Services, request: ApiRequest[UpsertUsersRequest]) -> UpsertUsersResponse:
    users = await services.store.users.put(
        [stored_user(each, request.now, request.identity.api_key) for each in request.body.users]
    )
    return UpsertUsersResponse(users={each.id: conversion.user(each) for each in users})


async def get_user(services: Services, request: ApiRequest[EmptyRequest]) -> OneUserResponse:
    user_id = request.path["user_id"]
    if not request.trusted and request.identity.user_id != user_id:
        raise ApiError(403, "a user's token shows that user alone: use a server token")
    user = (await services.store.users.get([user_id])).get(user_id)
    if user is None:
        raise ApiError(404, f"there is no user {user_id}: make it with POST /users")
    return OneUserResponse(user=conversion.user(user))


async def query_users(services: Services, request: ApiRequest[QueryUsersRequest]) -> QueryUsersResponse:
    body = request.body
    page = await services.store.users.query(
        filters.parsed(body.filter_conditions),
        filters.sorting(body.sort) or filters.NEWEST_FIRST,
        limit=body.limit,
        cursor=filters.cursor(body),
    )
    users = list(fitting(map(conversion.user, page.items)))
    page = page.first(len(users))
    return QueryUsersResponse(users=users, next=page.next, prev=page.previous)
