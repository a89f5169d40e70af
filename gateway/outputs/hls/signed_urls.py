"""The addresses of HLS playlists: plain for a call that anybody may watch, else with a signed part that nobody can guess and that expires.

Kept true: an address shows no token, stream key or user id. What is behind a signed one can be fetched by whoever has it, until it expires
or the call has ended; one made for a user names them, sealed (AES-SIV, RFC 5297), and what they may is asked again with each request. Those
made for the same one, or for nobody in particular, within the same hour are the same, so that a CDN keeps one copy.
"""

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Awaitable, Callable
from urllib.parse import quote

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from protocols.errors import Reason, Rejected

OPEN = "open"
PLAYLIST = "index.m3u8"
_STEP_S = 3600
_SIGNATURE_BYTES = 18
# One spelling for each: a cache would keep every other one beside it
_PERMIT = re.compile(r"(?P<expires>[0-9a-f]{8})\.(?P<whose>(?:[A-Za-z0-9_-]*\.)?)(?P<signature>[A-Za-z0-9_-]*)")


class SignedUrls:
    def __init__(
        self,
        secret: bytes,
        is_open: Callable[[str], bool],
        admit: Callable[[str], Awaitable[object]],
        ttl_s: int,
        now: Callable[[], float] = time.time,
        *,
        is_over: Callable[[str], bool],
        still: Callable[[str, str], Awaitable[None]],
    ) -> None:
        """`is_open` says whether anybody may watch a call now, `is_over` whether it has ended or is deleted, both for what is in memory;
        `admit` raises `Rejected` where not everybody may watch it, `still` (call, whose) where the one for whom an address was made may not
        any more, whether it is over or not."""
        self._key = hmac.digest(secret, b"hls-links", hashlib.sha256)
        self._sealing = AESSIV(hmac.digest(secret, b"hls-links-whose", hashlib.sha512))
        self.open = is_open
        """Whether anybody may watch the call now, so that its address need not be signed."""
        self._admit = admit
        self._ttl_s = ttl_s
        self._now = now
        self._is_over = is_over
        self._still = still

    def path(self, cid: str, whose: str = "") -> str:
        """Of the call's playlist, without scheme and host; where `whose` says anything, for them alone."""
        expires = (int(self._now()) + self._ttl_s) // _STEP_S * _STEP_S + _STEP_S
        whose = f"{self._sealed(whose)}." if whose else ""
        permit = OPEN if self.open(cid) else f"{expires:08x}.{whose}{self._signature(cid, expires, whose)}"
        return f"/hls/{quote(cid)}/{permit}/{PLAYLIST}"

    async def check(self, cid: str, permit: str, *, to_the_end: bool = False) -> None:
        """Raises `Rejected` where `permit` is none for the call. `to_the_end`: of a stream that has ended, which those who watched see."""
        if permit == OPEN:
            if not to_the_end:  # who was let in while the call was open; nobody else knows the stream's id
                await self._admit(cid)
            return
        parts = _PERMIT.fullmatch(permit)
        if parts is None:
            raise Rejected(Reason.NOT_FOUND, "There is no such playlist: copy its address again, in one piece")
        expires, whose = int(parts["expires"], 16), parts["whose"]
        if not hmac.compare_digest(parts["signature"], self._signature(cid, expires, whose)):
            raise Rejected(Reason.FORBIDDEN, "This playlist's address is not one of this gateway: copy it again, in one piece")
        if expires < self._now():
            raise Rejected(Reason.FORBIDDEN, "This playlist's address has expired: ask the call's host for a new one")
        if self._is_over(cid) and not to_the_end:
            raise Rejected(Reason.FORBIDDEN, "This call has ended")
        if whose:
            await self._still(cid, self._opened(whose.removesuffix(".")))

    def _signature(self, cid: str, expires: int, whose: str) -> str:
        return self._letters(f"{cid}\n{expires}\n{whose}", _SIGNATURE_BYTES)

    def _sealed(self, whose: str) -> str:
        """The same for the same one, and nobody else can tell who that is."""
        return base64.urlsafe_b64encode(self._sealing.encrypt(whose.encode(), None)).decode().rstrip("=")

    def _opened(self, sealed: str) -> str:
        """Of what is signed, and so is ours."""
        try:
            return self._sealing.decrypt(base64.urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4)), None).decode()
        except (InvalidTag, ValueError):
            raise Rejected(Reason.FORBIDDEN, "This playlist's address is of an earlier version: ask for a new one") from None

    def _letters(self, text: str, size: int) -> str:
        return base64.urlsafe_b64encode(hmac.digest(self._key, text.encode(), hashlib.sha256)[:size]).decode()
