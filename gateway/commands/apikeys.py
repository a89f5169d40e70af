"""`gateway apikey`: the keys of applications, whose servers and users the API serves.

Kept true: a secret is shown once, when it is made, and never again; what is stored of it is sealed with the gateway's own secret.
"""

import argparse
import base64
import secrets
from datetime import UTC, datetime, timedelta

from gateway.access.credentials import Secret
from gateway.access.sealing import Sealing
from gateway.commands import options as typed
from gateway.commands.options import Commands, awaited
from gateway.config import Config
from gateway.model.records import ApiKey, SealedSecret
from gateway.wiring.store import opened
from protocols.errors import Reason, Rejected


def add(commands: Commands) -> None:
    group = commands.group("apikey", "the keys of applications that use the API")
    creating = group.add("create", awaited(_create), "make a key and print it with its secret, which is shown this once")
    creating.add_argument("--name", default="", help="for whom it is, for people")
    group.add("list", awaited(_list), "print the keys, without secrets")
    rotating = group.add("rotate", awaited(_rotate), "give a key another secret; the former one goes on for a while")
    rotating.add_argument("key", help="as printed by: gateway apikey list")
    rotating.add_argument(
        "--overlap", type=typed.seconds, default="24h", help="how long the former secret is still taken (default: 24h)"
    )
    revoking = group.add("revoke", awaited(_revoke), "take nothing of this key any more, and end what is live with it")
    revoking.add_argument("key", help="as printed by: gateway apikey list")


async def usable_secret(config: Config, key: str) -> tuple[str, str]:
    """An API key, the only one where none is named, and its newest secret. Raises `Rejected` in words."""
    async with opened(config) as store:
        keys = {each.key: each for each in (await store.api_keys.all()).values() if each.revoked_at is None}
    if not key and len(keys) > 1:
        raise Rejected(Reason.BAD_REQUEST, f"which application? Give --api-key with one of {', '.join(sorted(keys))}")
    found = keys.get(key) if key else next(iter(keys.values()), None)
    if found is None:
        raise Rejected(Reason.NOT_FOUND, "there is no such API key: make one with gateway apikey create")
    value = Sealing(Secret.load(config).value).unseal(found.secrets[0].sealed, found.key)
    if value is None:
        raise Rejected(
            Reason.CONFLICT, "the gateway's own secret was changed: give the key another one with gateway apikey rotate"
        )
    return found.key, value.decode()


async def _create(options: argparse.Namespace, config: Config) -> int:
    now = datetime.now(UTC)
    key = base64.b32encode(secrets.token_bytes(10)).decode().lower()[:12]
    secret, sealed = _new_secret(config, key, now)
    async with opened(config) as store:
        await store.api_keys.add(ApiKey(key, options.name, (sealed,), now))
    print(
        f"API key:  {key}\nSecret:   {secret}\nThe secret is shown this once: keep it where your application's server finds it."
    )
    return 0


async def _list(options: argparse.Namespace, config: Config) -> int:
    async with opened(config) as store:
        keys = await store.api_keys.all()
    for key in sorted(keys.values(), key=lambda each: each.created_at):
        print(f"{key.key}  made {key.created_at:%Y-%m-%d %H:%M}  {_state(key)}  {key.name}".rstrip())
    return 0


async def _rotate(options: argparse.Namespace, config: Config) -> int:
    now = datetime.now(UTC)
    until = now + timedelta(seconds=options.overlap)
    secret, sealed = _new_secret(config, options.key, now)
    async with opened(config) as store:
        await store.api_keys.rotate(options.key, sealed, until)
    print(f"API key:  {options.key}\nSecret:   {secret}\nThe former secret is taken until {until:%Y-%m-%d %H:%M} UTC.")
    return 0


async def _revoke(options: argparse.Namespace, config: Config) -> int:
    async with opened(config) as store:
        if not await store.api_keys.revoke(options.key, datetime.now(UTC)):
            raise Rejected(Reason.NOT_FOUND, f"there is no API key {options.key}: list them with gateway apikey list")
    print(f"Revoked: {options.key}")
    return 0


def _new_secret(config: Config, key: str, now: datetime) -> tuple[str, SealedSecret]:
    secret = secrets.token_urlsafe(32)
    return secret, SealedSecret(Sealing(Secret.load(config).value).seal(secret.encode(), key), now)


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return f"revoked {key.revoked_at:%Y-%m-%d %H:%M}"
    ends = [each.expires_at for each in key.secrets if each.expires_at is not None]
    return f"valid, the former secret until {ends[0]:%Y-%m-%d %H:%M}" if ends and ends[0] > datetime.now(UTC) else "valid"
