"""Reads tokens: HS256 JSON Web Tokens (RFC 7519), signed by the gateway itself or with the secret of an application's API key. Sans-IO.

The gateway's own tokens name a user, the calls and an expiry. An application's name a user and an expiry, and may be narrowed to calls; one
without a user is the application's server.

Kept true: only HS256 is taken (RFC 8725 §3.1), whatever the token says of itself; a user's token expires; a token is at most 2 KiB;
signatures are compared in constant time; a refusal tells its user what to do and holds nothing of the token.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Final

import jwt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.config import USER_ID, CallId
from protocols.errors import Reason, Rejected

MAX_TOKEN: Final = 2048
SIGNATURE: Final = 43  # characters of an HS256 signature: 32 bytes in base64url (RFC 7515 §2)
LEEWAY_S: Final = 30  # clocks of two machines differ (RFC 7519 §4.1.4)
HOST, VIEWER = "host", "viewer"
"""The roles of the gateway's own tokens: a host may publish and watch, a viewer may only watch."""

# RFC 7515 §3.1: base64url parts with points between them, the first of which begins {"; what is cut off is still one.
_TOKEN: Final = re.compile(r"eyJ[A-Za-z0-9_-]*(\.[A-Za-z0-9_-]*){0,2}")
_REFUSALS: Final[tuple[tuple[type[jwt.InvalidTokenError], str], ...]] = (
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
class Signer:
    """A secret that tokens may be signed with; `api_key` is the application's, empty for the gateway itself."""

    value: bytes = field(repr=False)
    api_key: str = ""


class Claims(BaseModel):
    """What a token says. `user_id` empty: the application's server; `call_cids` empty: any call; `exp` None: no end."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    user_id: Annotated[str, Field(pattern=f"^{USER_ID}$")] = ""
    call_cids: Annotated[list[CallId], Field(max_length=32)] = []
    exp: Annotated[int, Field(ge=0, le=10**12)] | None = None
    role: str = HOST


def is_token(text: str) -> bool:
    """Whether it has the form of a token, be it damaged."""
    return _TOKEN.fullmatch(text.strip()) is not None


def read(text: str, what: str, signers: Sequence[Signer], now_s: float) -> tuple[Claims, Signer]:
    """What the token says and who signed it. `what` begins the refusals: "The stream key". Raises `Rejected` (UNAUTHORIZED)."""
    token = _in_one_piece(text, what)
    signer = next((each for each in signers if _signed_by(token, each)), signers[0])
    try:
        # The expiry is checked below, where its time can be told; a wrong signature comes first all the same.
        options = {
            "verify_exp": False,
            "verify_aud": False,
            "require": [] if signer.api_key else ["exp", "user_id", "call_cids"],
        }
        payload = jwt.decode(token, signer.value, algorithms=["HS256"], leeway=LEEWAY_S, options=options)  # type: ignore[arg-type]
        if "user_id" in payload and "exp" not in payload:
            raise jwt.MissingRequiredClaimError("exp")
        claims = Claims.model_validate({name: value for name, value in payload.items() if value is not None})
    except jwt.InvalidTokenError as error:
        # A signature that was cut may still decode, and then only does not match: its length tells the two apart.
        cut = isinstance(error, jwt.InvalidSignatureError) and len(token.rpartition(".")[2]) < SIGNATURE
        fault = jwt.DecodeError() if cut else error
        detail = next(words for kind, words in _REFUSALS if isinstance(fault, kind))
        raise _unauthorized(detail.format(what=what)) from None
    except ValidationError:
        raise _unauthorized(f"{what} names no valid user or call: make a new one") from None
    if not signer.api_key and not (claims.user_id and claims.call_cids):
        raise _unauthorized(f"{what} names no valid user or call: make a new one")
    if claims.exp is not None and expired(claims.exp, now_s):
        raise _unauthorized(f"{what} expired on {date(claims.exp)}: make a new one")
    return claims, signer


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
