"""Call types: what each role may do in calls of a type, and the settings that they begin with."""

from collections.abc import Mapping
from dataclasses import replace

from gateway.api.framework.errors import ApiError
from gateway.api.framework.route import Asked
from gateway.api.framework.services import Desk
from gateway.api.schemas import conversion
from gateway.api.schemas.answers import CallTypesResponse, EmptyResponse, OneCallTypeResponse
from gateway.api.schemas.requests import CreateCallTypeRequest, EmptyRequest, UpdateCallTypeRequest
from gateway.model.permissions import BUILT_IN, Capability
from gateway.model.records import CallType, Settings, merged


async def create(desk: Desk, asked: Asked[CreateCallTypeRequest]) -> OneCallTypeResponse:
    body = asked.body
    if body.name in desk.directory.call_types:
        raise ApiError(409, f"there is a call type {body.name} already: change it with PUT /calltypes/{body.name}")
    settings = merged(Settings(), body.settings.model_dump(exclude_unset=True))
    grants = _grants(body.grants) if body.grants else BUILT_IN["livestream"]
    made = await desk.store.call_types.put(CallType(body.name, grants, settings, asked.now, asked.now))
    return OneCallTypeResponse(call_type=conversion.call_type(made))


async def get_all(desk: Desk, asked: Asked[EmptyRequest]) -> CallTypesResponse:
    return CallTypesResponse(call_types={name: conversion.call_type(kind) for name, kind in desk.directory.call_types.items()})


async def get(desk: Desk, asked: Asked[EmptyRequest]) -> OneCallTypeResponse:
    return OneCallTypeResponse(call_type=conversion.call_type(desk.call_type(asked.path["name"])))


async def update(desk: Desk, asked: Asked[UpdateCallTypeRequest]) -> OneCallTypeResponse:
    kind, body = desk.call_type(asked.path["name"]), asked.body
    changed = replace(
        kind,
        grants={**kind.grants, **_grants(body.grants)},
        settings=merged(kind.settings, body.settings.model_dump(exclude_unset=True)),
        updated_at=asked.now,
    )
    return OneCallTypeResponse(call_type=conversion.call_type(await desk.store.call_types.put(changed)))


async def delete(desk: Desk, asked: Asked[EmptyRequest]) -> EmptyResponse:
    name = desk.call_type(asked.path["name"]).name
    await desk.store.call_types.delete(name)
    return EmptyResponse()


def _grants(given: Mapping[str, list[Capability]]) -> dict[str, frozenset[Capability]]:
    return {role: frozenset(held) for role, held in given.items()}
