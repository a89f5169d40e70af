"""Credentials that the gateway makes: its one secret, and what is derived from it.

A stream key is a token (`jwt`) that names a user, the calls and an expiry, signed with the gateway's secret; nothing of it is stored, so
nothing can leak from a store. Encoders that ask for a user name and a password (Adobe authentication), or for a stream id and a passphrase
(SRT), get a name that says the same and a password derived from it. Short keys, which are stored, are in `stream_keys`; who may do
what with any of them is decided in `authorizer`.

Kept true: every token expires; the secret file is the owner's alone.
"""

import base64
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import jwt

from gateway.access.jwt import HOST, VIEWER, WATCHER, Claims, Signer, date, expired
from gateway.config import USER_ID, Config
from gateway.config.sources import ConfigError, ConfigProblem
from gateway.model.permissions import ALL, SENDING, WATCHING, Capability, Role, barred
from gateway.model.records import FIRST_RANK, OnConflict, Settings
from protocols.errors import Reason, Rejected
from protocols.media import Kind

# `~` and not `/` or `:` between the parts: ffmpeg cuts `rtmp://user:password@host` at those and knows no percent encoding.
_USER_NAME: Final = re.compile(
    rf"(?P<type>[A-Za-z0-9_-]{{1,64}})~(?P<id>[A-Za-z0-9_.-]{{1,64}})~(?P<user>{USER_ID})~(?P<exp>[0-9]{{1,12}})"
)


WATCH_S: Final = 86400  # that a token which is made for watching lasts


@dataclass(frozen=True, slots=True)
class Secret:
    """What signs. Never shown: it has no repr of its value."""

    value: bytes = field(repr=False)

    @classmethod
    def load(cls, config: Config) -> Self:
        """From the configuration, or from its secret file, which the first start makes (mode 0600, in a folder 0700).

        Raises:
            ConfigError: the file can be read by others, is too short, or cannot be made or read.
        """
        if given := config.auth.secret.get_secret_value():
            return cls(given.encode())
        path = Path(config.state.directory, config.auth.secret_file)
        try:
            if not path.exists():
                _create(path, secrets.token_urlsafe(48))
            return cls(_read_private(path))
        except OSError as error:
            raise _unusable(path, f"cannot be made or read: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class Identity:
    """Who shows a credential, and what it is narrowed to."""

    user_id: str = ""
    server: bool = False  # of an application: it may all
    api_key: str = ""  # whose application; empty: the gateway's own
    call_cids: frozenset[str] | None = None  # the only calls that it is for; None: any
    claimed: str = ""  # the role that the gateway's own credential gives, in place of all that the user has
    stream_key: str = ""  # the name of the short key
    rank: int = FIRST_RANK  # and what it says of its encoder's place in the stream
    on_conflict: OnConflict | None = None  # and of another encoder there; None: as the call's settings say
    picture: str = ""  # that it wishes to stand in for its encoder
    watching: bool = False  # the user's, but for watching alone
    expires_at: int = 0  # Unix seconds; 0: no end

    @property
    def anonymous(self) -> bool:
        return not (self.server or self.user_id)

    @property
    def reach(self) -> frozenset[Capability]:
        """All that the credential is for, whatever its user may do."""
        if self.stream_key:
            return SENDING
        return WATCHING if self.watching or self.claimed == Role.INVITED else ALL

    @property
    def watching_as(self) -> str:
        """All that decides whether they may watch, for what is handed out to them and judged again (`of_watching`); empty: nobody's."""
        return (
            json.dumps([self.user_id, self.api_key, self.claimed, self.watching], separators=(",", ":")) if self.user_id else ""
        )

    @classmethod
    def of_watching(cls, text: str, cid: str) -> Self:
        """Who that is, in this call alone. Of what we have made: raises `ValueError` for anything else."""
        user_id, api_key, claimed, watching = json.loads(text)
        return cls(user_id, api_key=api_key, call_cids=frozenset({cid}), claimed=claimed, watching=watching)

    @property
    def unrestricted(self) -> bool:
        """It is narrowed to nothing: only such a one is good for what is about no call, or about all of them."""
        return self.call_cids is None and self.reach == ALL


NOBODY: Final = Identity()
"""Who shows nothing."""


@dataclass(frozen=True, slots=True)
class Grant:
    """The right to publish as `user_id` in `call_cid` until `expires_at` (Unix seconds; 0: no end), and what the call asks of it."""

    user_id: str
    call_cid: str
    expires_at: int
    identity: Identity = NOBODY
    settings: Settings = field(default_factory=Settings)
    sends: frozenset[Capability] = SENDING
    exists: bool = True  # the call; if not, publishing makes it
    muted: frozenset[Kind] = frozenset()  # taken, but given to nobody

    @property
    def rank(self) -> int:
        """Of its encoder among those of the stream; 1 is the best."""
        return self.identity.rank

    @property
    def barred(self) -> frozenset[Kind]:
        """What its user may not send: given to nobody either."""
        return barred(self.sends)


def is_user_name(text: str) -> bool:
    """Whether it has the form of what `Tokens.user_name` makes."""
    return _USER_NAME.fullmatch(text) is not None


class Tokens:
    """Makes the gateway's own credentials; `now` gives Unix seconds."""

    def __init__(self, secret: Secret, now: Callable[[], float] = time.time) -> None:
        self.secret = secret
        self.now = now

    @property
    def signer(self) -> Signer:
        return Signer(self.secret.value)

    def issue(self, user_id: str, call_cids: Sequence[str], ttl_s: int, role: str = HOST, api_key: str = "") -> str:
        """A token for `user_id`, of the application with this key or of nobody's, in `call_cids`, valid for `ttl_s` seconds. Raises
        `ValueError` for names that are none."""
        now = int(self.now())
        claims = Claims(user_id=user_id, call_cids=list(call_cids), exp=now + ttl_s, role=role, api_key=api_key)
        said = claims.model_dump(exclude_defaults=True) | {"role": role, "iat": now}
        return jwt.encode(said, self.secret.value, algorithm="HS256")

    def for_watching(self, identity: Identity, call_cid: str) -> tuple[str, int]:
        """Of the same user, in one call and for watching alone, and when it ends: with what it is made of, and within `WATCH_S`. Where the
        gateway's operator has given the role, as a viewer; else what its user may do is asked when it is used."""
        left = identity.expires_at - int(self.now()) if identity.expires_at else WATCH_S
        ttl_s, role = min(left, WATCH_S), VIEWER if identity.claimed else WATCHER
        return self.issue(identity.user_id, [call_cid], ttl_s, role, identity.api_key), int(self.now()) + ttl_s

    def user_name(self, user_id: str, call_cid: str, ttl_s: int) -> str:
        """The user name for encoders with user and password fields: call, user and expiry joined by `~`."""
        name = f"{call_cid.replace(':', '~')}~{user_id}~{int(self.now()) + ttl_s}"
        if not _USER_NAME.fullmatch(name):
            raise ValueError(f"no call or user id: {call_cid!r}, {user_id!r}")
        return name

    def password(self, user: str) -> str | None:
        """The password that belongs to a user name; None when it is malformed or expired."""
        if not (parts := _USER_NAME.fullmatch(user)) or expired(int(parts["exp"]), self.now()):
            return None
        digest = hmac.digest(self.secret.value, b"rtmp-password:" + user.encode(), hashlib.sha256)
        return base64.b32encode(digest).decode()[:24]

    def claims_of(self, user: str) -> Claims:
        """What a user name says, whose password the protocol's challenge has proved, hence every part of it. Raises `Rejected`."""
        if not (parts := _USER_NAME.fullmatch(user)):
            raise Rejected(Reason.UNAUTHORIZED, "The user name looks cut off: copy it again in one piece")
        exp = int(parts["exp"])
        if expired(exp, self.now()):
            raise Rejected(Reason.UNAUTHORIZED, f"The user name expired on {date(exp)}: make a new one")
        return Claims(user_id=parts["user"], call_cids=[f"{parts['type']}:{parts['id']}"], exp=exp)


def _create(path: Path, value: str) -> None:
    """Writes a whole private file or nothing; where two processes start at once, the first one's stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(value)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)  # unlike rename, it never replaces
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _read_private(path: Path) -> bytes:
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        value = file.read(4096).strip()
    if mode & 0o077:
        raise _unusable(path, f"other users of this machine may read it (mode {mode:04o}). Type: chmod 600 {path}")
    if len(value) < 32:
        raise _unusable(
            path, "is shorter than 32 characters. Delete it to have a new one made; every stream key then becomes invalid"
        )
    return value


def _unusable(path: Path, why: str) -> ConfigError:
    return ConfigError([ConfigProblem("auth.secret_file", "the configuration", str(path), why)])
