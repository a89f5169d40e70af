"""`gateway call`, `gateway store`: calls without the API. They write into the store; a gateway that runs with it notices at once."""

import argparse
from collections.abc import Callable
from datetime import UTC, datetime

from gateway.access.rights_cache import OPERATOR
from gateway.commands import options as typed
from gateway.commands.options import Command, Commands, awaited
from gateway.config import Config
from gateway.model import lifecycle
from gateway.model.records import EVERYTHING, Call, Condition, Filter, Member
from gateway.wiring.store import opened
from protocols.errors import Reason, Rejected

Change = Callable[[Call, datetime], Call]


def add(commands: Commands) -> None:
    group = commands.group("call", "calls in the store of this gateway, whether it runs or not")
    creating = group.add("create", awaited(_create), "make a call, if it is not there")
    creating.add_argument("call", type=typed.call, help="e.g. livestream:demo")
    creating.add_argument("--user", type=typed.user, default=OPERATOR, help="who creates it, and is its host")
    creating.add_argument("--host", type=typed.user, action="append", default=[], help="further hosts")
    group.add("live", _changing(lifecycle.gone_live), "let viewers in").add_argument("call", type=typed.call)
    group.add("stop", _changing(lifecycle.stopped_live), "back into backstage: viewers have to go").add_argument(
        "call", type=typed.call
    )
    group.add("end", _changing(lifecycle.ended), "end it for good: everybody has to go").add_argument("call", type=typed.call)
    listing = group.add("list", awaited(_list), "print the calls that have not ended, the newest first")
    listing.add_argument("--all", action="store_true", help="those that have ended, too")
    commands.group("store", "the store of this gateway").add(
        "migrate", awaited(_migrate), "bring its tables up to date, as each start of the gateway does"
    )


async def _create(options: argparse.Namespace, config: Config) -> int:
    now = datetime.now(UTC)
    name, _, call_id = options.call.partition(":")
    async with opened(config) as store:
        await store.call_types.ensure_built_in(now, development=config.calls.development)
        kinds = await store.call_types.all()
        if name not in kinds:
            raise Rejected(Reason.NOT_FOUND, f"there is no call type {name}: choose from {', '.join(sorted(kinds))}")
        users = [*dict.fromkeys([options.user, *options.host])]
        await store.users.ensure(users, now)
        members = [Member(options.call, user, now, now, "host") for user in users]
        call, made = await store.calls.get_or_create(lifecycle.created(kinds[name], call_id, options.user, now), members)
    print(f"{call.cid}: {_state(call)}{'' if made else ' (it was there already)'}")
    return 0


def _changing(change: Change) -> Command:
    async def command(options: argparse.Namespace, config: Config) -> int:
        now = datetime.now(UTC)
        async with opened(config) as store:
            call = await store.calls.change(options.call, lambda call: change(call, now), now=now)
        print(f"{call.cid}: {_state(call)}")
        return 0

    return awaited(command)


async def _list(options: argparse.Namespace, config: Config) -> int:
    wanted: Filter = EVERYTHING if options.all else Condition("ended_at", "exists", False)
    cursor: str | None = None
    async with opened(config) as store:
        while True:
            page = await store.calls.query(wanted, limit=100, cursor=cursor)
            for call in page.items:
                print(f"{call.cid}  {_state(call)}  made {call.created_at:%Y-%m-%d %H:%M} by {call.created_by_id}")
            if (cursor := page.next) is None:
                return 0


async def _migrate(options: argparse.Namespace, config: Config) -> int:
    async with opened(config):
        print("The store is up to date.")
    return 0


def _state(call: Call) -> str:
    if call.ended_at is not None:
        return f"ended {call.ended_at:%Y-%m-%d %H:%M}"
    if call.backstage:
        return "in backstage"
    return f"live since {call.live_started_at:%Y-%m-%d %H:%M}" if call.live_started_at else "open"
