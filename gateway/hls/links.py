"""The addresses of HLS playlists: plain for a call that anybody may watch, else with a signed part that nobody can guess and that expires.

Kept true: an address holds no token, stream key or user id. Those made within the same hour are the same, so that a CDN keeps one copy for
all viewers; what is behind a signed address can be fetched by whoever has it, until it expires or the call has ended.
"""

import base64
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable
from urllib.parse import quote

from protocols.errors import Reason, Rejected

OPEN = "open"
PLAYLIST = "index.m3u8"
_STEP_S = 3600
_SIGNATURE_BYTES = 18


class Links:
    def __init__(
        self,
        secret: bytes,
        is_open: Callable[[str], bool],
        admit: Callable[[str], Awaitable[object]],
        ttl_s: int,
        now: Callable[[], float] = time.time,
        is_over: Callable[[str], bool] = lambda cid: False,
    ) -> None:
        """`is_open` says whether anybody may watch a call now, `is_over` whether it has ended or is deleted, both for what is in memory;
        `admit` raises `Rejected` where not everybody may watch it."""
        self._key = hmac.digest(secret, b"hls-links", hashlib.sha256)
        self._is_open = is_open
        self._admit = admit
        self._ttl_s = ttl_s
        self._now = now
        self._is_over = is_over

    def path(self, cid: str) -> str:
        """Of the call's playlist, without scheme and host."""
        expires = (int(self._now()) + self._ttl_s) // _STEP_S * _STEP_S + _STEP_S
        permit = OPEN if self._is_open(cid) else f"{expires:x}.{self._signature(cid, expires)}"
        return f"/hls/{quote(cid)}/{permit}/{PLAYLIST}"

    async def check(self, cid: str, permit: str, *, to_the_end: bool = False) -> None:
        """Raises `Rejected` where `permit` is none for the call. `to_the_end`: of a stream that has ended, which those who watched see."""
        if permit == OPEN:
            if not to_the_end:  # who was let in while the call was open; nobody else knows the stream's id
                await self._admit(cid)
            return
        hexadecimal, _, signature = permit.partition(".")
        try:
            expires = int(hexadecimal, 16)
        except ValueError:
            raise Rejected(Reason.NOT_FOUND, "There is no such playlist: copy its address again, in one piece") from None
        if not hmac.compare_digest(signature.encode(), self._signature(cid, expires).encode()):
            raise Rejected(Reason.FORBIDDEN, "This playlist's address is not one of this gateway: copy it again, in one piece")
        if expires < self._now():
            raise Rejected(Reason.FORBIDDEN, "This playlist's address has expired: ask the call's host for a new one")
        if self._is_over(cid) and not to_the_end:
            raise Rejected(Reason.FORBIDDEN, "This call has ended")

    def _signature(self, cid: str, expires: int) -> str:
        digest = hmac.digest(self._key, f"{cid}\n{expires}".encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest[:_SIGNATURE_BYTES]).decode()
