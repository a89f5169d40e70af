"""Reads tokens: HS256 JSON Web Tokens (RFC 7519), signed by the gateway itself or with the secret of an application's API key. Sans-IO.

The gateway's own tokens name a user, the calls and an expiry. An application's name a user, or say that they are its server's, and an
expiry; both may be narrowed to calls.

Kept true: only HS256 is taken (RFC 8725 §3.1), whatever the token says of itself, and no secret under 32 bytes (RFC 7518 §3.2); what a
token leaves out gives it nothing; every token expires, a user's before long; a token is at most 2 KiB; signatures are compared in constant
time; a refusal tells its user what to do and holds nothing of the token.
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Annotated, Any, Final

import jwt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.config import LONGEST_USER_TOKEN_S, USER_ID, CallId
from protocols.errors import Reason, Rejected

MAX_TOKEN: Final = 2048
SIGNATURE: Final = 43  # characters of an HS256 signature: 32 bytes in base64url (RFC 7515 §2)
LEEWAY_S: Final = 30  # clocks of two machines differ (RFC 7519 §4.1.4)
HOST, VIEWER, WATCHER = "host", "viewer", "watcher"
"""The roles of the gateway's own tokens: a host may publish and watch, a viewer may only watch, and a watcher is the user that they are,
but for watching alone."""
MIN_SECRET: Final = 32  # bytes: as long as the digest (RFC 7518 §3.2)

# RFC 7515 §3.1: base64url parts with points between them, the first of which begins {"; what is cut off is still one.
_TOKEN: Final = re.compile(r"eyJ[A-Za-z0-9_-]*(\.[A-Za-z0-9_-]*){0,2}")
_REFUSALS: Final[tuple[tuple[type[jwt.PyJWTError], str], ...]] = (
    (
        jwt.InvalidSignatureError,
        "{what} was not made by this gateway, or a character of it is missing or changed: copy it again, or make a new one",
    ),
    (jwt.InvalidAlgorithmError, "{what} is signed in a way that is not accepted (only HS256 is): make a new one"),
    (jwt.PyJWTError, "{what} looks cut off or damaged: copy it again in one piece"),
)
# Time is checked here, where it can be told and where its form is checked too; a wrong signature comes first all the same.
_OPTIONS: Final = {f"verify_{name}": False for name in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")}
_OWN_PARTS: Final = ("user_id", "call_cids", "exp")
# Whose a token is, and what it is narrowed to: with the letters of what is meant for it, and says nothing
_MEANT: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "user_id": frozenset({"userid"}),
        "server": frozenset({"server"}),
        "call_cids": frozenset({"callcid", "callid", "cid", "call"}),
    }
)


@dataclass(frozen=True, slots=True)
class Signer:
    """A secret that tokens may be signed with; `api_key` is the application's, empty for the gateway itself. Raises `ValueError` for one
    that is too short to sign anything."""

    value: bytes = field(repr=False)
    api_key: str = ""

    def __post_init__(self) -> None:
        if len(self.value) < MIN_SECRET:
            raise ValueError(f"a secret has at least {MIN_SECRET} bytes")


Seconds = Annotated[float, Field(ge=0, le=10**12, allow_inf_nan=False)]


class Claims(BaseModel):
    """What a token says, in Unix seconds where it is a time. `call_cids` None: any call. `api_key`: of the application whose user it is,
    in a token that the gateway itself has made."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    user_id: Annotated[str, Field(pattern=f"^{USER_ID}$")] = ""
    server: bool = False
    call_cids: Annotated[list[CallId], Field(min_length=1, max_length=32)] | None = None
    exp: Annotated[int, Field(ge=0, le=10**12)]
    iat: Seconds | None = None
    nbf: Seconds | None = None
    role: str = HOST
    api_key: str = ""


def is_token(text: str) -> bool:
    """Whether it has the form of a token, be it damaged."""
    return _TOKEN.fullmatch(text.strip()) is not None


def read(
    text: str, what: str, signers: Sequence[Signer], now_s: float, longest_s: int = LONGEST_USER_TOKEN_S
) -> tuple[Claims, Signer]:
    """What the token says and who signed it. `what` begins the refusals: "The stream key"; `longest_s` is how long a token of an
    application's user may be good for. Raises `Rejected` (UNAUTHORIZED)."""
    token = _in_one_piece(text, what)
    signer = next((each for each in signers if _signed_by(token, each)), signers[0])
    try:
        payload = jwt.decode(token, signer.value, algorithms=["HS256"], options=_OPTIONS)  # type: ignore[arg-type]
    except jwt.PyJWTError as error:
        # A signature that was cut may still decode, and then only does not match: its length tells the two apart.
        cut = isinstance(error, jwt.InvalidSignatureError) and len(token.rpartition(".")[2]) < SIGNATURE
        detail = next((words for kind, words in _REFUSALS if isinstance(error, kind) and not cut), _REFUSALS[-1][1])
        raise _unauthorized(detail.format(what=what)) from None
    claims = _claims(payload, what, of_application=bool(signer.api_key))
    _check_times(claims, what, now_s, longest_s if signer.api_key and claims.user_id else None)
    return claims, signer


def _claims(payload: Mapping[str, Any], what: str, *, of_application: bool) -> Claims:
    """Absence is never power: what is not said, and what says nothing, is refused by its name."""
    for name in Claims.model_fields:
        if name in payload and payload[name] in (None, []):
            said = json.dumps(payload[name])
            raise _unauthorized(f"{what} names no valid user or call or end (its {name} is {said}): make a new one")
    spelled = {_letters(name) for name in payload}
    if other := [name for name, letters in _MEANT.items() if name not in payload and letters & spelled]:
        raise _unauthorized(f"{what} spells {other[0]} in another way, which says nothing: write it so, and make a new one")
    if missing := [name for name in (("exp",) if of_application else _OWN_PARTS) if name not in payload]:
        raise _unauthorized(f"{what} lacks a part that is required ({', '.join(missing)}): make a new one")
    try:
        claims = Claims.model_validate(payload)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False, include_input=False)[0]["loc"][0]
        raise _unauthorized(f"{what} names no valid user or call (see its {wrong}): make a new one") from None
    if of_application and not claims.user_id and not claims.server:
        raise _unauthorized(
            f'{what} lacks a part that is required (user_id, or "server": true): say whose it is, and make a new one'
        )
    if claims.server and (claims.user_id or not of_application):
        raise _unauthorized(
            f"{what} is a user's, and says that it is a server's: leave out user_id or server, and make a new one"
        )
    return claims


def _letters(name: str) -> str:
    """What is left of `call_cids` in `callCids`, `call-cid` or `CALL_CIDS`."""
    return "".join(filter(str.isalpha, name)).lower().removesuffix("s")


def _check_times(claims: Claims, what: str, now_s: float, longest_s: int | None) -> None:
    if max(claims.nbf or 0, claims.iat or 0) > now_s + LEEWAY_S:
        raise _unauthorized(f"{what} is not valid yet: check the clock of the machine that made it")
    if expired(claims.exp, now_s):
        raise _unauthorized(f"{what} expired on {date(claims.exp)}: make a new one")
    begins = min(claims.iat, now_s) if claims.iat is not None else now_s
    if longest_s is not None and claims.exp - begins > longest_s + LEEWAY_S:
        days = f"{longest_s / 86400:.3g} days"
        raise _unauthorized(f"{what} is good for longer than a user's may be ({days}): make one whose exp is sooner")


def expired(exp: int, now_s: float) -> bool:
    return now_s > exp + LEEWAY_S


def date(unix_s: int) -> str:
    """For people."""
    try:
        return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, ValueError):
        return "a day long ago"


def _in_one_piece(text: str, what: str) -> str:
    token = text.strip()  # what copying brings along at the ends is no fault
    if not token:
        raise _unauthorized(f"{what} is empty: paste it into the encoder's settings")
    if len(token) > MAX_TOKEN:
        raise _unauthorized(f"{what} is too long: copy it again, once")
    if any(character.isspace() for character in token):
        raise _unauthorized(f"{what} has spaces or line breaks in it: copy it again in one piece")
    return token


def _signed_by(token: str, signer: Signer) -> bool:
    """Which secret to judge it by; the judging itself is PyJWT's. Cheap, since there may be a thousand secrets."""
    signed, _, signature = token.rpartition(".")
    try:
        given = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(given, hmac.digest(signer.value, signed.encode(errors="replace"), hashlib.sha256))


def _unauthorized(words: str) -> Rejected:
    return Rejected(Reason.UNAUTHORIZED, words)
