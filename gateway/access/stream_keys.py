"""Short stream keys: 36 characters, `sk` the first, that fit any encoder's field, for one user in one call. Sans-IO.

A key is a name and a secret, `sk7f3kq9w2mxp4a-…`. The name is public: it is listed, stored, and what encoders with a user and password, or
SRT with a stream id and passphrase, show; the secret is then the password or passphrase. The secret is derived from the name, so that it
need not be stored, and the name holds a check of its own.

Kept true: what is mistyped is told from what is no longer valid without a look-up; who has all names has not one key.
"""

import base64
import hashlib
import hmac
import re
import secrets
from typing import Final

NAME: Final = r"sk[a-z2-7]{13}"
_NAME: Final = re.compile(NAME)
_KEY: Final = re.compile(rf"({NAME})-([a-z2-7]{{20}})")
_LOOKS: Final = re.compile(r"sk[a-z2-7]{4,}(-[a-z2-7]*)?")
_RANDOM: Final = 10  # characters of 5 bits: no two keys of a store are the same by chance
_CHECK: Final = 3
_SECRET: Final = 20  # 100 bits


def new_name(secret: bytes) -> str:
    """Of a key that nobody has yet; `secret` is the gateway's."""
    drawn = _letters(secrets.token_bytes(16))[:_RANDOM]
    return f"sk{drawn}{_check(secret, drawn)}"


def whole(secret: bytes, name: str) -> str:
    """The key with this name, for who may see it."""
    return f"{name}-{password(secret, name)}"


def password(secret: bytes, name: str) -> str:
    """The secret half: password (RTMP) and passphrase (SRT, which takes 10 to 79 characters)."""
    return _derive(secret, b"stream-key:" + name.encode(), _SECRET)


def is_name(text: str) -> bool:
    """Whether it has the form of a name, be it mistyped."""
    return _NAME.fullmatch(text) is not None


def looks_like_key(text: str) -> bool:
    """Whether it was meant to be a key or its beginning."""
    return _LOOKS.fullmatch(text.strip().lower()) is not None


def name_is_whole(secret: bytes, name: str) -> bool:
    """Whether this gateway made the name: a typo is found with a chance of 32767 in 32768."""
    return is_name(name) and hmac.compare_digest(name[-_CHECK:], _check(secret, name[2 : 2 + _RANDOM]))


def name_of(secret: bytes, key: str) -> str | None:
    """The name in a key that this gateway made; None for every other text."""
    parts = _KEY.fullmatch(key.strip().lower())  # some encoders show capitals only
    if parts is None or not hmac.compare_digest(parts[2], password(secret, parts[1])):
        return None
    return parts[1]


def _check(secret: bytes, drawn: str) -> str:
    return _derive(secret, b"stream-key-name:" + drawn.encode(), _CHECK)


def _derive(secret: bytes, what: bytes, length: int) -> str:
    return _letters(hmac.digest(secret, what, hashlib.sha256))[:length]


def _letters(data: bytes) -> str:
    """Base32 (RFC 4648 §6) in small letters: no 0, 1, 8 or 9 to be taken for O, l, B or g."""
    return base64.b32encode(data).decode().rstrip("=").lower()
