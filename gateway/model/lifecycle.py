"""A call's life as pure functions: created, live, back in backstage, ended. Sans-IO. The store runs them in a transaction
(`store.calls.change`)."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from gateway.model.records import Call, CallType, merged
from protocols.errors import Reason, Rejected


def created(
    kind: CallType,
    call_id: str,
    created_by_id: str,
    now: datetime,
    *,
    starts_at: datetime | None = None,
    settings_override: Mapping[str, Any] | None = None,
    custom: Mapping[str, Any] | None = None,
    api_key: str = "",
) -> Call:
    """A new call: in backstage where its settings say so. Raises `Rejected` (BAD_REQUEST) for settings that are none."""
    override = dict(settings_override or {})
    try:
        settings = merged(kind.settings, override)
    except ValueError as error:
        raise Rejected(Reason.BAD_REQUEST, str(error)) from None
    return Call(
        type=kind.name,
        id=call_id,
        created_by_id=created_by_id,
        created_at=now,
        updated_at=now,
        backstage=settings.backstage.enabled,
        starts_at=starts_at,
        settings_override=override,
        custom=dict(custom or {}),
        api_key=api_key,
    )


def gone_live(call: Call, now: datetime, *, broadcasting: bool = False) -> Call:
    """Viewers may come. A live call stays as it is, but HLS may be asked for in addition."""
    _not_ended(call)
    if call.live:
        return replace(call, broadcasting=call.broadcasting or broadcasting)
    return replace(
        call, backstage=False, live_started_at=now, live_ended_at=None, broadcasting=call.broadcasting or broadcasting
    )


def stopped_live(call: Call, now: datetime) -> Call:
    """Back in backstage: viewers go, hosts stay, HLS ends."""
    _not_ended(call)
    return replace(call, backstage=True, live_ended_at=now if call.live else call.live_ended_at, broadcasting=False)


def ended(call: Call, now: datetime) -> Call:
    """Over for good: nobody is muted in it any more. A second time changes nothing."""
    if call.ended_at is not None:
        return call
    return replace(
        call,
        backstage=True,
        live_ended_at=now if call.live else call.live_ended_at,
        ended_at=now,
        broadcasting=False,
        muted_users={},
    )


def _not_ended(call: Call) -> None:
    if call.ended_at is not None:
        raise Rejected(Reason.CONFLICT, f"the call {call.cid} has ended: create another one")
