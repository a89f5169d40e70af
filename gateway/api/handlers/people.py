"""The people of a call (members, who is blocked, kicked or muted) and the users of the application."""

from gateway.api.framework import filters
from gateway.api.framework.errors import ApiError
from gateway.api.framework.route import Asked
from gateway.api.framework.services import Desk
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
from gateway.store.calls import unblocked
from protocols.media import Kind


async def update_members(desk: Desk, asked: Asked[UpdateMembersRequest]) -> UpdateMembersResponse:
    put, remove = asked.body.update_members, asked.body.remove_members
    if both := {each.user_id for each in put} & set(remove):
        raise ApiError(400, f"remove_members: {sorted(both)[0]} is in update_members too")
    named = [each.user_id for each in put]
    present = {each.user_id for each in await desk.store.calls.members(asked.cid, [*named, *remove])}
    await desk.store.users.ensure(named, asked.now)
    await desk.store.calls.update_members(asked.cid, [stored_member(asked.cid, each, asked.now) for each in put], remove)
    for kind, ids in (
        (EventType.MEMBER_ADDED, [each for each in named if each not in present]),
        (EventType.MEMBER_UPDATED, [each for each in named if each in present]),
        (EventType.MEMBER_REMOVED, [each for each in remove if each in present]),
    ):
        if ids:
            roles = {each.user_id: each.role for each in put}
            desk.tell(kind, asked.cid, members=[{"user_id": each, "role": roles.get(each)} for each in ids])
    people = await desk.people(named)
    return UpdateMembersResponse(members=people.members(await desk.store.calls.members(asked.cid, named)))


async def query_members(desk: Desk, asked: Asked[QueryMembersRequest]) -> QueryMembersResponse:
    body = asked.body
    page = await desk.store.calls.query_members(
        asked.cid,
        filters.parsed(body.filter_conditions),
        filters.sorting(body.sort) or filters.OLDEST_FIRST,
        limit=body.limit,
        cursor=filters.cursor(body),
    )
    people = await desk.people(each.user_id for each in page.items)
    return QueryMembersResponse(members=people.members(page.items), next=page.next, prev=page.previous)


async def block(desk: Desk, asked: Asked[UserOfCallRequest]) -> EmptyResponse:
    user_id = asked.body.user_id
    await desk.store.calls.kick(asked.cid, user_id, block=True, now=asked.now)
    if user_id not in asked.place.call.blocked_user_ids:
        desk.tell(EventType.USER_BLOCKED, asked.cid, user_id=user_id)
    return EmptyResponse()


async def unblock(desk: Desk, asked: Asked[UserOfCallRequest]) -> EmptyResponse:
    user_id = asked.body.user_id
    await desk.store.calls.change(asked.cid, lambda call: unblocked(call, user_id), now=asked.now)
    if user_id in asked.place.call.blocked_user_ids:
        desk.tell(EventType.USER_UNBLOCKED, asked.cid, user_id=user_id)
    return EmptyResponse()


async def kick(desk: Desk, asked: Asked[KickRequest]) -> EmptyResponse:
    user_id = asked.body.user_id
    await desk.store.calls.kick(asked.cid, user_id, block=asked.body.block, now=asked.now)
    desk.tell(EventType.USER_KICKED, asked.cid, user_id=user_id)
    if asked.body.block and user_id not in asked.place.call.blocked_user_ids:
        desk.tell(EventType.USER_BLOCKED, asked.cid, user_id=user_id)
    return EmptyResponse()


async def mute(desk: Desk, asked: Asked[MuteUsersRequest]) -> EmptyResponse:
    body = asked.body
    if not body.user_ids and not body.mute_all_users:
        raise ApiError(400, "user_ids: say who, or mute_all_users")
    present = desk.participants(asked.cid)
    for user_id in list(present) if body.mute_all_users else body.user_ids:
        if (participant := present.get(user_id)) is None:
            continue
        participant.mute(_kinds(body))
        desk.tell(EventType.USER_MUTED, asked.cid, user_id=user_id, audio=body.audio, video=body.video)
    return EmptyResponse()


async def unmute(desk: Desk, asked: Asked[UnmuteUsersRequest]) -> EmptyResponse:
    present = desk.participants(asked.cid)
    for user_id in asked.body.user_ids:
        if (participant := present.get(user_id)) is not None:
            participant.unmute(_kinds(asked.body))
    return EmptyResponse()


def _kinds(body: MuteUsersRequest | UnmuteUsersRequest) -> frozenset[Kind]:
    return frozenset(kind for kind, wanted in ((Kind.AUDIO, body.audio), (Kind.VIDEO, body.video)) if wanted)


async def upsert_users(desk: Desk, asked: Asked[UpsertUsersRequest]) -> UpsertUsersResponse:
    users = await desk.store.users.put([stored_user(each, asked.now) for each in asked.body.users])
    return UpsertUsersResponse(users={each.id: conversion.user(each) for each in users})


async def get_user(desk: Desk, asked: Asked[EmptyRequest]) -> OneUserResponse:
    user_id = asked.path["user_id"]
    if not asked.trusted and asked.identity.user_id != user_id:
        raise ApiError(403, "a user's token shows that user alone: use a server token")
    user = (await desk.store.users.get([user_id])).get(user_id)
    if user is None:
        raise ApiError(404, f"there is no user {user_id}: make it with POST /users")
    return OneUserResponse(user=conversion.user(user))


async def query_users(desk: Desk, asked: Asked[QueryUsersRequest]) -> QueryUsersResponse:
    body = asked.body
    page = await desk.store.users.query(
        filters.parsed(body.filter_conditions),
        filters.sorting(body.sort) or filters.NEWEST_FIRST,
        limit=body.limit,
        cursor=filters.cursor(body),
    )
    return QueryUsersResponse(users=[conversion.user(each) for each in page.items], next=page.next, prev=page.previous)
