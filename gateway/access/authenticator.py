"""Who stands behind a credential: a token of the gateway itself, a user's or server's token of an application, a short stream key or its
name (proved by the protocol's challenge), or nothing.

Kept true: this reads memory only, so that it answers at once; who shows a credential that verifies is let in, whatever came from their
address before, and who guesses is slowed by address; what a credential rests on can be asked again at any time (`withdrawn`).
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from time import monotonic_ns
from typing import Final, NamedTuple

from gateway.access import stream_keys
from gateway.access.credentials import Identity, Tokens
from gateway.access.jwt import HOST, MIN_SECRET, VIEWER, WATCHER, Signer, is_token, read
from gateway.access.rights_cache import RightsCache
from gateway.access.sealing import Sealing
from gateway.access.throttle import Throttle
from gateway.config import LONGEST_USER_TOKEN_S
from gateway.model.permissions import Role
from gateway.model.records import ApiKey
from protocols.errors import Reason, Rejected
from protocols.publisher import Credential

_CLAIMED: Final[Mapping[str, str]] = {HOST: Role.HOST, VIEWER: Role.INVITED, WATCHER: ""}  # a watcher is who they are


class Authenticator:
    """See the file. `failures_per_minute` 0: no limit; `longest_s` is how long the token of an application's user may be good for; the
    time is that of `tokens`."""

    def __init__(
        self,
        tokens: Tokens,
        rights_cache: RightsCache,
        failures_per_minute: int = 0,
        monotonic: Callable[[], int] = monotonic_ns,
        longest_s: int = LONGEST_USER_TOKEN_S,
    ) -> None:
        self.throttle = Throttle(failures_per_minute)
        self._tokens = tokens
        self._rights_cache = rights_cache
        self._sealing = Sealing(tokens.secret.value)
        self._monotonic = monotonic
        self._longest_s = longest_s
        self._signers: tuple[Mapping[str, ApiKey], Mapping[str, tuple[_Signs, ...]]] = ({}, {})

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self._tokens.now(), UTC)

    def identify(self, credential: Credential, what: str, *, api_key: str = "", address: str = "") -> Identity:
        """`what` begins the refusals: "The stream key". Raises `Rejected` (UNAUTHORIZED, TOO_MANY_REQUESTS, OVERLOADED)."""
        try:
            return self._identify(credential, what, api_key)
        except Rejected as refusal:
            if not address or refusal.reason is not Reason.UNAUTHORIZED:
                raise
            at = self._monotonic()
            if wait := self.throttle.wait_s(address, at):
                words = f"too many wrong keys came from this address: wait {wait} s, and check the key"
                raise Rejected(Reason.TOO_MANY_REQUESTS, words) from None
            self.throttle.failed(address, at)
            raise

    def stream_key_name(self, credential: Credential) -> str:
        """The name of the short stream key that it is; empty for others."""
        name = credential.user or stream_keys.name_of(self._tokens.secret.value, credential.key)
        return name if name is not None and stream_keys.is_name(name) else ""

    def password(self, user: str) -> str | None:
        """The password or passphrase that belongs to a user name; None when it is none or no longer valid."""
        if not stream_keys.is_name(user):
            return self._tokens.password(user)
        try:
            self._stream_key(user)
        except Rejected:
            return None
        return stream_keys.password(self._tokens.secret.value, user)

    def withdrawn(self, identity: Identity) -> Rejected | None:
        """Why it is not worth anything any more: what it rests on may be gone since it was shown."""
        if identity.stream_key:
            try:
                self._stream_key(identity.stream_key)
            except Rejected as refusal:
                return refusal
        if not self._rights_cache.stands(identity.api_key):
            return Rejected(Reason.UNAUTHORIZED, "The API key of this token was revoked: get a token of another one")
        return None

    def useless_secrets(self) -> Mapping[str, str]:
        """By API key, why a secret of it signs nothing."""
        keys = (key for key in self._rights_cache.api_keys.values() if key.revoked_at is None)
        found = {key.key: self._unsealed(key)[1] for key in keys}
        return {key: why for key, why in found.items() if why}

    def _identify(self, credential: Credential, what: str, api_key: str = "") -> Identity:
        secret, text = self._tokens.secret.value, credential.key.strip()
        if credential.user is not None:
            if stream_keys.is_name(credential.user):
                return self._stream_key(credential.user)
            claims = self._tokens.claims_of(credential.user)
            return Identity(
                claims.user_id, call_cids=frozenset(claims.call_cids or ()), claimed=Role.HOST, expires_at=claims.exp
            )
        if not is_token(text) and stream_keys.looks_like_key(text):
            if (name := stream_keys.name_of(secret, text)) is None:
                words = "is not one of this gateway's, or a character of it is missing or changed: copy it again in one piece"
                raise Rejected(Reason.UNAUTHORIZED, f"{what} {words}")
            return self._stream_key(name)
        claims, signer = read(credential.key, what, self._signers_of(api_key), self._tokens.now(), self._longest_s)
        own = not signer.api_key
        return Identity(
            claims.user_id,
            server=claims.server,
            api_key=claims.api_key if own else signer.api_key,
            call_cids=frozenset(claims.call_cids) if claims.call_cids is not None else None,
            claimed=_CLAIMED.get(claims.role, claims.role) if own else "",
            watching=own and claims.role == WATCHER,
            expires_at=claims.exp,
        )

    def _stream_key(self, name: str) -> Identity:
        """Of a name that is proved. Raises `Rejected`."""
        if not stream_keys.name_is_whole(self._tokens.secret.value, name):
            words = "The stream key's name has a character missing or changed: copy it again in one piece"
            raise Rejected(Reason.UNAUTHORIZED, words)
        key = self._rights_cache.stream_key(name)
        if key is None:
            raise Rejected(Reason.UNAUTHORIZED, "The stream key was revoked, or its call was deleted: make a new one")
        if not key.usable(self.now):
            assert key.expires_at is not None
            raise Rejected(
                Reason.UNAUTHORIZED, f"The stream key expired on {key.expires_at:%Y-%m-%d %H:%M} UTC: make a new one"
            )
        expires_at = int(key.expires_at.timestamp()) if key.expires_at else 0
        return Identity(
            key.user_id,
            call_cids=frozenset({key.call_cid}),
            stream_key=name,
            rank=key.rank,
            on_conflict=key.on_conflict or None,
            picture=key.picture,
            expires_at=expires_at,
        )

    def _signers_of(self, api_key: str) -> tuple[Signer, ...]:
        """The gateway, and the application named or else each: a token does not tell whose it is."""
        keys, signers = self._signers
        if keys is not self._rights_cache.api_keys:
            keys = self._rights_cache.api_keys
            signers = {key: self._unsealed(each)[0] for key, each in keys.items() if each.revoked_at is None}
            self._signers = (keys, signers)
        if api_key and api_key not in signers:
            raise Rejected(
                Reason.UNAUTHORIZED, "There is no such api_key, or it was revoked: list them with gateway apikey list"
            )
        now = self.now
        named = signers[api_key] if api_key else (each for of in signers.values() for each in of)
        return (self._tokens.signer, *(each.signer for each in named if each.until is None or now < each.until))

    def _unsealed(self, key: ApiKey) -> tuple[tuple["_Signs", ...], str]:
        """Of its secrets those that sign, and why another does not; empty: they all do."""
        found, why_not = [], ""
        for each in key.secrets:
            value = self._sealing.unseal(each.sealed, key.key)
            if value is None:
                why_not = "it was sealed with another secret of the gateway (auth.secret was changed)"
            elif len(value) < MIN_SECRET:
                why_not = f"it is shorter than {MIN_SECRET} bytes"
            else:
                found.append(_Signs(Signer(value, key.key), each.expires_at))
        return tuple(found), why_not


class _Signs(NamedTuple):
    signer: Signer
    until: datetime | None  # None: no end
