"""Credentials: who may publish into a call and who may watch it.

A stream key is a token: an HS256 JSON Web Token (RFC 7519) that names a user, the calls and an expiry, signed with the gateway's one
secret. Nothing else is stored, so nothing can leak from a store. Encoders that ask for a user name and a password (Adobe authentication),
or for a stream id and a passphrase (SRT), get a name that says the same and a password derived from it.

Kept true: only HS256 is taken (RFC 8725 §3.1), whatever the token says of itself; every token expires; a token is at most 2 KiB;
signatures are compared in constant time (PyJWT, `hmac.compare_digest`); a refusal tells the streamer what to do and holds nothing of
the key; the secret file is the owner's alone.
"""

import base64
import hashlib
import hmac
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Self

import jwt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.config import CALL_ID, USER_ID, CallId, Config
from gateway.config_sources import ConfigError, Problem
from protocols.errors import Reason, Rejected
from protocols.publisher import Credential

MAX_TOKEN = 2048
SIGNATURE = 43  # characters of an HS256 signature: 32 bytes in base64url (RFC 7515 §2)
LEEWAY_S = 30  # clocks of two machines differ (RFC 7519 §4.1.4)
HOST, VIEWER = "host", "viewer"
"""The roles of a token: a host may publish and watch, a viewer may only watch."""

# `~` and not `/` or `:` between the parts: ffmpeg cuts `rtmp://user:password@host` at those and knows no percent encoding.
_USER_NAME = re.compile(
    rf"(?P<type>[A-Za-z0-9_-]{{1,64}})~(?P<id>[A-Za-z0-9_.-]{{1,64}})~(?P<user>{USER_ID})~(?P<exp>[0-9]{{1,12}})"
)
# RFC 7515 §3.1: base64url parts with points between them, the first of which begins {"; what is cut off is still one.
_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]*(\.[A-Za-z0-9_-]*){0,2}")
_REFUSALS: tuple[tuple[type[jwt.InvalidTokenError], str], ...] = (
    (
        jwt.InvalidSignatureError,
        "{what} was not made by this gateway, or a character of it is missing or changed: copy it again, or make a new one",
    ),
    (jwt.InvalidAlgorithmError, "{what} is signed in a way that is not accepted (only HS256 is): make a new one"),
    (jwt.MissingRequiredClaimError, "{what} lacks a part that is required (user_id, call_cids, exp): make a new one"),
    (jwt.ImmatureSignatureError, "{what} is not valid yet: check the clock of the machine that made it"),
    (jwt.InvalidTokenError, "{what} looks cut off or damaged: copy it again in one piece"),
)


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
class Grant:
    """What a credential allows: `user_id` (empty: anonymous) in `call_cid` until `expires_at` (Unix seconds; 0: no end)."""

    user_id: str
    call_cid: str
    expires_at: int


class Claims(BaseModel):
    """What a token says."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    user_id: Annotated[str, Field(pattern=f"^{USER_ID}$")]
    call_cids: Annotated[list[CallId], Field(min_length=1, max_length=32)]
    exp: Annotated[int, Field(ge=0, le=10**12)]
    role: str = HOST


def is_user_name(text: str) -> bool:
    """Whether it has the form of what `Tokens.user_name` makes."""
    return _USER_NAME.fullmatch(text) is not None


def is_token(text: str) -> bool:
    """Whether it has the form of what `Tokens.issue` makes, be it damaged."""
    return _TOKEN.fullmatch(text.strip()) is not None


class Tokens:
    """Issues credentials and judges them; `public` calls may be watched by anybody, `now` gives Unix seconds."""

    def __init__(self, secret: Secret, public: Collection[str] = (), now: Callable[[], float] = time.time) -> None:
        self._secret = secret
        self._public = frozenset(public)
        self._now = now

    def issue(self, user_id: str, call_cids: Sequence[str], ttl_s: int, role: str = HOST) -> str:
        """A token for `user_id` in `call_cids`, valid for `ttl_s` seconds. Raises `ValueError` for names that are none."""
        now = int(self._now())
        claims = Claims(user_id=user_id, call_cids=list(call_cids), exp=now + ttl_s, role=role)
        return jwt.encode(claims.model_dump() | {"iat": now}, self._secret.value, algorithm="HS256")

    def user_name(self, user_id: str, call_cid: str, ttl_s: int) -> str:
        """The user name for encoders with user and password fields: call, user and expiry joined by `~`."""
        name = f"{call_cid.replace(':', '~')}~{user_id}~{int(self._now()) + ttl_s}"
        if not _USER_NAME.fullmatch(name):
            raise ValueError(f"no call or user id: {call_cid!r}, {user_id!r}")
        return name

    def password(self, user: str) -> str | None:
        """The password that belongs to a user name; None when it is malformed or expired."""
        if not (parts := _USER_NAME.fullmatch(user)) or self._expired(int(parts["exp"])):
            return None
        digest = hmac.digest(self._secret.value, b"rtmp-password:" + user.encode(), hashlib.sha256)
        return base64.b32encode(digest).decode()[:24]

    def authorise_publish(self, credential: Credential, call: str | None = None) -> Grant:
        """Who publishes into which call. `call` is needed only where the token names several.

        Raises:
            Rejected: UNAUTHORIZED, FORBIDDEN or BAD_REQUEST with words for the streamer.
        """
        what = "The stream key"
        user = credential.user
        claims = self._verify(credential.key, what) if user is None else self._user_claims(user)
        if claims.role != HOST:
            raise Rejected(Reason.FORBIDDEN, f"{what} is for watching only: make one for publishing")
        if call is None and len(claims.call_cids) > 1:
            raise Rejected(Reason.BAD_REQUEST, f"{what} is for several calls: add ?call= and the call's name to it")
        return self._grant(claims, call or claims.call_cids[0], what)

    def authorise_watch(self, call: str, token: str | None = None) -> Grant:
        """Who watches `call`; a public one needs no token. Raises `Rejected`."""
        if not re.fullmatch(CALL_ID, call):
            raise Rejected(Reason.NOT_FOUND, "There is no such call: a call is named like livestream:demo")
        if call in self._public:
            return Grant("", call, 0)
        if not token:
            raise Rejected(Reason.UNAUTHORIZED, "This call needs a token to watch: ask its host for a link")
        return self._grant(self._verify(token, "The token"), call, "The token")

    def _grant(self, claims: Claims, call: str, what: str) -> Grant:
        if call not in claims.call_cids:
            raise Rejected(Reason.FORBIDDEN, f"{what} is for another call: make one for this call")
        return Grant(claims.user_id, call, claims.exp)

    def _verify(self, text: str, what: str) -> Claims:
        token = text.strip()  # what copying brings along at the ends is no fault
        if not token:
            raise Rejected(Reason.UNAUTHORIZED, f"{what} is empty: paste it into the encoder's settings")
        if len(token) > MAX_TOKEN:
            raise Rejected(Reason.UNAUTHORIZED, f"{what} is too long: copy it again, once")
        if any(character.isspace() for character in token):
            raise Rejected(Reason.UNAUTHORIZED, f"{what} has spaces or line breaks in it: copy it again in one piece")
        try:
            # The expiry is checked below, where its time can be told; a wrong signature comes first all the same.
            payload = jwt.decode(
                token,
                self._secret.value,
                algorithms=["HS256"],
                leeway=LEEWAY_S,
                options={"require": ["exp", "user_id", "call_cids"], "verify_exp": False, "verify_aud": False},
            )
            claims = Claims.model_validate(payload)
        except jwt.InvalidTokenError as error:
            # A signature that was cut may still decode, and then only does not match: its length tells the two apart.
            cut = isinstance(error, jwt.InvalidSignatureError) and len(token.rpartition(".")[2]) < SIGNATURE
            fault = jwt.DecodeError() if cut else error
            detail = next(words for kind, words in _REFUSALS if isinstance(fault, kind))
            raise Rejected(Reason.UNAUTHORIZED, detail.format(what=what)) from None
        except ValidationError:
            raise Rejected(Reason.UNAUTHORIZED, f"{what} names no valid user or call: make a new one") from None
        if self._expired(claims.exp):
            raise Rejected(Reason.UNAUTHORIZED, f"{what} expired on {_date(claims.exp)}: make a new one")
        return claims

    def _user_claims(self, user: str) -> Claims:
        """The protocol's challenge has proved the password, hence every part of the name."""
        if not (parts := _USER_NAME.fullmatch(user)):
            raise Rejected(Reason.UNAUTHORIZED, "The user name looks cut off: copy it again in one piece")
        if self._expired(int(parts["exp"])):
            raise Rejected(Reason.UNAUTHORIZED, f"The user name expired on {_date(int(parts['exp']))}: make a new one")
        return Claims(user_id=parts["user"], call_cids=[f"{parts['type']}:{parts['id']}"], exp=int(parts["exp"]))

    def _expired(self, exp: int) -> bool:
        return self._now() > exp + LEEWAY_S


def _date(unix_s: int) -> str:
    try:
        return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, ValueError):
        return "a day long ago"


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
    return ConfigError([Problem("auth.secret_file", "the configuration", str(path), why)])
