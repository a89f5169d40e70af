"""Adobe's user and password challenge ("authmod=adobe"), the fields *user* and *password* of encoders. Sans-IO.

Three connections to one app: the first is told that it needs a user, the second gets a salt and a challenge, the third answers. A
challenge holds for one answer and for a short time, the number of open ones is bounded, an unknown user is challenged as a known one,
and an address that failed often is answered slowly: guessing gets nowhere.
"""

import hmac
import secrets
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import md5

from protocols.bounded_map import BoundedMap

Passwords = Callable[[str], str | None]
"""The password of a user, None if there is no such user."""

_SECOND = 1_000_000_000
_CHALLENGE_LIFE = 30 * _SECOND
_FAILURE_LIFE = 60 * _SECOND
_FREE_FAILURES = 3
_DELAY = 2 * _SECOND
_MAX_CHALLENGES = 4096
_MAX_ADDRESSES = 4096
_MAX_USER = 128  # characters


@dataclass(frozen=True, slots=True)
class Proved:
    """The peer knows the password of `user`."""

    user: str


@dataclass(frozen=True, slots=True)
class ChallengeRefused:
    """The connection ends with `description`, sent `delay` ns from now. `failed`: it was a wrong answer, no step of the way."""

    description: str
    failed: bool = False
    delay: int = 0


@dataclass(frozen=True, slots=True, repr=False)
class _Challenge:
    user: str
    salt: str
    issued: int


class AdobeAuthenticator:
    """The challenges and failures of one listener; `app` is the name under which encoders are challenged."""

    def __init__(self, app: str, passwords: Passwords) -> None:
        self.app = app
        self._passwords = passwords
        self._challenges: BoundedMap[str, _Challenge] = BoundedMap(_MAX_CHALLENGES)
        self._failures: BoundedMap[str, deque[int]] = BoundedMap(_MAX_ADDRESSES)

    def judge(self, query: Mapping[str, str], address: str, now: int) -> Proved | ChallengeRefused:
        """What to do with a `connect` whose app had this query, from this address, at `now` ns."""
        user = query.get("user", "")
        if query.get("authmod") != "adobe" or not 0 < len(user) <= _MAX_USER:
            return ChallengeRefused("[ AccessManager.Reject ] : [ code=403 need auth; authmod=adobe ] : ")
        if "response" not in query:
            return ChallengeRefused(self._issue(user, now), delay=self._delay(address, now))
        challenge = self._challenges.pop(query.get("opaque", ""), None)  # whatever comes of it, it is used up
        if challenge and challenge.user == user and now - challenge.issued <= _CHALLENGE_LIFE:
            expected = self._expected(challenge, query.get("opaque", ""), query.get("challenge", ""))
            if expected is not None and hmac.compare_digest(expected.encode(), query["response"].encode()):
                return Proved(user)
        delay = self._delay(address, now)
        self._remember_failure(address, now)
        return ChallengeRefused("[ AccessManager.Reject ] : [ authmod=adobe ] : ?reason=authfailed", failed=True, delay=delay)

    def _issue(self, user: str, now: int) -> str:
        salt, opaque = secrets.token_hex(8), secrets.token_hex(16)
        self._challenges[opaque] = _Challenge(user, salt, now)
        fields = f"?reason=needauth&user={user}&salt={salt}&challenge={opaque}&opaque={opaque}"
        return f"[ AccessManager.Reject ] : [ authmod=adobe ] : {fields}"

    def _expected(self, challenge: _Challenge, opaque: str, peer_challenge: str) -> str | None:
        password = self._passwords(challenge.user)
        if password is None:
            return None
        inner = _digest(challenge.user + challenge.salt + password)
        return _digest(inner + opaque + peer_challenge)

    def _remember_failure(self, address: str, now: int) -> None:
        failures = self._failures[address] = self._failures.get(address, deque(maxlen=_FREE_FAILURES))
        failures.append(now)

    def _delay(self, address: str, now: int) -> int:
        recent = [time for time in self._failures.get(address, ()) if now - time <= _FAILURE_LIFE]
        return _DELAY if len(recent) >= _FREE_FAILURES else 0


def _digest(text: str) -> str:
    # MD5 is the scheme's; it only ever guards a one-time answer.
    return b64encode(md5(text.encode(), usedforsecurity=False).digest()).decode()
