"""Rows as records and records as rows."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from gateway.model.kept import KeptSeat
from gateway.model.permissions import Capability
from gateway.model.records import (
    MAX_CUSTOM_BYTES,
    ApiKey,
    Call,
    CallType,
    Delivery,
    Json,
    Member,
    SealedSecret,
    Settings,
    StreamKey,
    User,
    merged,
    to_json,
)
from protocols.errors import Reason, Rejected
from protocols.media import Kind


def call_row(call: Call) -> dict[str, Any]:
    check_custom(call.custom)
    merged(Settings(), call.settings_override)
    muted = {user_id: sorted(kinds) for user_id, kinds in call.muted_users.items()}
    return asdict(call) | {"cid": call.cid, "blocked_user_ids": list(call.blocked_user_ids), "muted_users": muted}


def call(row: Any) -> Call:
    values = dict(row._mapping)
    del values["cid"]
    muted = {user_id: frozenset(map(Kind, kinds)) for user_id, kinds in values["muted_users"].items()}
    return Call(**values | {"blocked_user_ids": tuple(values["blocked_user_ids"]), "muted_users": muted})


def member_row(member: Member) -> dict[str, Any]:
    check_custom(member.custom)
    return asdict(member)


def member(row: Any) -> Member:
    return Member(**row._mapping)


def user_row(user: User) -> dict[str, Any]:
    check_custom(user.custom)
    return asdict(user)


def user(row: Any) -> User:
    return User(**row._mapping)


def call_type_row(kind: CallType) -> dict[str, Any]:
    return {
        "name": kind.name,
        "grants": {role: sorted(held) for role, held in kind.grants.items()},
        "settings": to_json(kind.settings),
        "built_in": kind.built_in,
        "created_at": kind.created_at,
        "updated_at": kind.updated_at,
    }


def call_type(row: Any) -> CallType:
    return CallType(
        name=row.name,
        grants={role: frozenset(_known(held)) for role, held in row.grants.items()},
        settings=merged(Settings(), row.settings, strict=False),
        created_at=row.created_at,
        updated_at=row.updated_at,
        built_in=row.built_in,
    )


def _known(held: Iterable[str]) -> Iterable[Capability]:
    """A newer gateway on the same store may know more."""
    return (Capability(each) for each in held if each in Capability._value2member_map_)


def api_key(row: Any, secrets: Iterable[Any]) -> ApiKey:
    sealed = tuple(SealedSecret(each.sealed, each.created_at, each.expires_at) for each in secrets)
    return ApiKey(row.key, row.name, sealed, row.created_at, row.revoked_at)


def stream_key(row: Any) -> StreamKey:
    return StreamKey(**row._mapping)


def delivery(row: Any) -> Delivery:
    return Delivery(**row._mapping)


def seat_row(seat: KeptSeat) -> dict[str, Any]:
    values = asdict(seat)
    values["grace_ms"] = round(values.pop("grace_s") * 1000)
    return values


def seat(row: Any) -> KeptSeat:
    values = dict(row._mapping)
    grace_s = values.pop("grace_ms") / 1000
    return KeptSeat(**values, grace_s=grace_s)


def check_custom(custom: Json | Mapping[str, Any]) -> None:
    """Raises `Rejected` (BAD_REQUEST) for custom data that is too large or no JSON."""
    try:
        size = len(json.dumps(custom, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        raise Rejected(Reason.BAD_REQUEST, "the custom data is no JSON") from None
    if size > MAX_CUSTOM_BYTES:
        raise Rejected(Reason.BAD_REQUEST, f"the custom data has {size} bytes: at most {MAX_CUSTOM_BYTES} are taken")
