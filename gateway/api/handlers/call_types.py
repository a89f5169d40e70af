"""Call types: what each role may do in calls of a type, and the settings that they begin with."""

from collections.abc import Mapping
from dataclasses import replace

from gateway.api.framework.errors import ApiError
from gateway.api.framework.paging import page
from gateway.api.framework.route import ApiRequest
from gateway.api.framework.services import Services
from gateway.api.schemas import conversion
from gateway.api.schemas.answers import CallTypesResponse, EmptyResponse, OneCallTypeResponse
from gateway.api.schemas.requests import CreateCallTypeRequest, EmptyRequest, UpdateCallTypeRequest
from gateway.model.permissions import BUILT_IN, Capability
from gateway.model.records import MAX_ROLES, CallType, Settings, merged


async def create(services: Services, request: ApiRequest[CreateCallTypeRequest]) -> OneCallTypeResponse:
    body = request.body
    if body.name in services.rights_cache.call_types:
        raise ApiError(409, f"there is a call type {body.name} already: change it with PUT /calltypes/{body.name}")
    settings = merged(Settings(), body.settings.model_dump(exclude_unset=True))
    grants = _grants(body.grants) if body.grants else BUILT_IN["livestream"]
    made = await services.store.call_types.put(CallType(body.name, grants, settings, request.now, request.now))
    return OneCallTypeResponse(call_type=conversion.call_type(made))


async def get_all(services: Services, request: ApiRequest[EmptyRequest]) -> CallTypesResponse:
    shown, after = page(services.rights_cache.call_types, conversion.call_type, request.cursor)
    return CallTypesResponse(call_types=shown, next=after)


async def get(services: Services, request: ApiRequest[EmptyRequest]) -> OneCallTypeResponse:
    return OneCallTypeResponse(call_type=conversion.call_type(services.call_type(request.path["name"])))


async def update(services: Services, request: ApiRequest[UpdateCallTypeRequest]) -> OneCallTypeResponse:
    kind, body = services.call_type(request.path["name"]), request.body
    grants = {**kind.grants, **_grants(body.grants)}
    if len(grants) > MAX_ROLES:
        raise ApiError(
            400, f"grants: a call type grants something to at most {MAX_ROLES} roles, and this one does to {len(kind.grants)}"
        )
    changed = replace(
        kind,
        grants=grants,
        settings=merged(kind.settings, body.settings.model_dump(exclude_unset=True)),
        updated_at=request.now,
    )
    return OneCallTypeResponse(call_type=conversion.call_type(await services.store.call_types.put(changed)))


async def delete(services: Services, request: ApiRequest[EmptyRequest]) -> EmptyResponse:
    name = services.call_type(request.path["name"]).name
    await services.store.call_types.delete(name)
    return EmptyResponse()


def _grants(given: Mapping[str, list[Capability]]) -> dict[str, frozenset[Capability]]:
    return {role: frozenset(held) for role, held in given.items()}
