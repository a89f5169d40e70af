"""`gateway token`, `gateway ingress`: credentials for one user of one call, and what to paste into an encoder."""

import argparse
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, get_args

import jwt

from gateway.access import stream_keys
from gateway.access.credentials import Secret, Tokens
from gateway.access.jwt import HOST, VIEWER
from gateway.commands import options as typed
from gateway.commands.options import Commands, awaited
from gateway.config import Config
from gateway.ingress import IngressKey, MakeWay
from gateway.model.records import FIRST_RANK, OnConflict
from protocols.errors import Reason, Rejected

if TYPE_CHECKING:
    from gateway.store.store import Store


def add(commands: Commands) -> None:
    token = commands.add(
        "token",
        awaited(_token),
        "print a token for a call, signed by this gateway: a stream key, or with --watch a viewer's; "
        "`token create`: one of an application's users, or its server",
    )
    token.add_argument(
        "create", nargs="?", choices=["create"], help="a token of an application, signed with its API key's secret"
    )
    token.add_argument(
        "--call", type=typed.call, action="append", help="e.g. livestream:demo; of an application: any without it"
    )
    token.add_argument("--user", type=typed.user, help="who it is, e.g. host")
    token.add_argument("--server", action="store_true", help="for the application's server, which may do everything")
    token.add_argument("--api-key", default="", metavar="KEY", help="the application (default: the only one)")
    token.add_argument("--ttl", type=typed.seconds, default="24h", help="how long it is valid: 30m, 24h, 7d (default: 24h)")
    token.add_argument("--watch", action="store_true", help="for watching only")

    way = commands.add(
        "ingress",
        awaited(_ingress),
        "print what to paste into an encoder, a test picture and the watch page, for one user of a call",
    )
    way.add_argument(
        "way", type=_way, metavar="PROTOCOL", help="what the encoder speaks, e.g. rtmp; any other word is answered with all"
    )
    way.add_argument("--call", type=typed.call, required=True, help="e.g. livestream:demo")
    way.add_argument("--user", type=typed.user, required=True, help="who it is, e.g. host")
    way.add_argument("--ttl", type=typed.seconds, default="24h", help="how long it is valid: 30m, 24h, 7d (default: 24h)")
    way.add_argument(
        "--host", default="", help="name or address by which the encoder reaches this machine (default: found out)"
    )
    way.add_argument("--obs", action="store_true", help="the steps in OBS Studio")
    way.add_argument(
        "--short",
        action="store_true",
        help="with a short stream key, which is kept in the store and can be revoked; a user who is new to the call becomes its host",
    )
    way.add_argument(
        "--rank",
        type=typed.rank,
        default=FIRST_RANK,
        help="with --short: the encoder's place among those of the stream; the first is live, the next ones stand by for it (default: 1)",
    )
    way.add_argument(
        "--on-conflict",
        choices=get_args(OnConflict),
        default="",
        help="with --short: where another encoder is there when one comes with this key (default: as the call says)",
    )


def _way(protocol: str) -> MakeWay:
    """What prints it for one of the protocols that encoders come by."""
    from gateway.wiring.listeners import PROTOCOLS  # it loads all of them, which no other command needs that only prints

    ways = {each.name: each.way for each in PROTOCOLS if each.way is not None}
    if protocol not in ways:
        raise argparse.ArgumentTypeError(f"{protocol!r} is no protocol of encoders: write {' or '.join(ways)}")
    return ways[protocol]


async def _token(options: argparse.Namespace, config: Config) -> int:
    if options.create:
        print(await _of_application(options, config))
        return 0
    if not options.call or not options.user:
        raise Rejected(Reason.BAD_REQUEST, "the following arguments are required: --call, --user")
    role = VIEWER if options.watch else HOST
    print(Tokens(Secret.load(config)).issue(options.user, options.call, options.ttl, role))
    return 0


async def _of_application(options: argparse.Namespace, config: Config) -> str:
    from gateway.commands.apikeys import usable_secret  # it loads the store, which the commands that only print do not need

    if bool(options.user) == options.server:
        raise Rejected(Reason.BAD_REQUEST, "whose token is it? Give --user with a name, or --server")
    key, secret = await usable_secret(config, options.api_key)
    now = int(datetime.now(UTC).timestamp())
    longest = config.auth.max_user_token_s
    if options.user and options.ttl > longest:
        raise Rejected(
            Reason.BAD_REQUEST, f"a user's token is good for {longest} s at most (auth.max_user_token_s): give a shorter --ttl"
        )
    claims: dict[str, object] = {"iat": now, "exp": now + options.ttl}
    claims |= {"user_id": options.user} if options.user else {"server": True}
    if options.call:
        claims["call_cids"] = options.call
    return jwt.encode(claims, secret, algorithm="HS256", headers={"kid": key})


async def _ingress(options: argparse.Namespace, config: Config) -> int:
    if (options.rank != FIRST_RANK or options.on_conflict) and not options.short:
        raise Rejected(Reason.BAD_REQUEST, "--rank and --on-conflict are of a short stream key: add --short")
    tokens = Tokens(Secret.load(config))
    key = await _short_key(options, config, tokens) if options.short else None
    make: MakeWay = options.way
    way = make(config, tokens, call=options.call, user=options.user, ttl_s=options.ttl, host=options.host, key=key)
    print(way.text(options.obs), end="")
    return 0


async def _short_key(options: argparse.Namespace, config: Config, tokens: Tokens) -> IngressKey:
    from gateway.access.rights_cache import OPERATOR
    from gateway.model.records import StreamKey
    from gateway.wiring.store import opened

    now = datetime.now(UTC)
    name = stream_keys.new_name(tokens.secret.value)
    key = StreamKey(
        name,
        options.call,
        options.user,
        OPERATOR,
        now,
        now + timedelta(seconds=options.ttl),
        rank=options.rank,
        on_conflict=options.on_conflict,
    )
    async with opened(config) as store:
        await _let_publish(store, options.call, options.user, now)
        await store.stream_keys.add(key)  # last: a gateway that knows the key knows what it is good for
    return IngressKey.short(tokens.secret.value, name, int(now.timestamp()) + options.ttl)


async def _let_publish(store: "Store", cid: str, user: str, now: datetime) -> None:
    """A short key is good for what its user may do: who is nobody in the call yet becomes a host of it."""
    from gateway.model.permissions import Role
    from gateway.model.records import Member

    call, members = await store.calls.get(cid), await store.calls.members(cid, [user])
    if not members and call is not None and call.created_by_id != user:
        await store.users.ensure([user], now)
        await store.calls.update_members(cid, [Member(cid, user, now, now, Role.HOST)])
