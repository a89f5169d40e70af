"""Who stands behind a credential: a token of the gateway itself, a user's or server's token of an application, a short stream key or its
name (proved by the protocol's challenge), or nothing.

Kept true: this reads memory only, so that it answers at once; who shows wrong credentials is slowed by address; what a credential rests on
can be asked again at any time (`withdrawn`).
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from time import monotonic_ns
from typing import Final

from gateway.access import stream_keys
from gateway.access.credentials import Identity, Tokens
from gateway.access.jwt import HOST, VIEWER, Signer, is_token, read
from gateway.access.rights_cache import RightsCache
from gateway.access.sealing import Sealing
from gateway.access.throttle import Throttle
from gateway.model.permissions import Role
from gateway.model.records import ApiKey
from protocols.errors import Reason, Rejected
from protocols.publisher import Credential

_CLAIMED: Final[Mapping[str, str]] = {HOST: Role.HOST, VIEWER: Role.INVITED}


class Authenticator:
    """See the file. `failures_per_minute` 0: no limit; the time is that of `tokens`."""

    def __init__(
        self,
        tokens: Tokens,
        rights_cache: RightsCache,
        failures_per_minute: int = 0,
        monotonic: Callable[[], int] = monotonic_ns,
    ) -> None:
        self.throttle = Throttle(failures_per_minute)
        self._tokens = tokens
        self._rights_cache = rights_cache
        self._sealing = Sealing(tokens.secret.value)
        self._monotonic = monotonic
        self._signers: tuple[Mapping[str, ApiKey], Mapping[str, tuple[Signer, ...]]] = ({}, {})

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self._tokens.now(), UTC)

    def identify(self, credential: Credential, what: str, *, api_key: str = "", address: str = "") -> Identity:
        """`what` begins the refusals: "The stream key". Raises `Rejected` (UNAUTHORIZED, TOO_MANY_REQUESTS, OVERLOADED)."""
        at = self._monotonic()
        if address and (wait := self.throttle.wait_s(address, at)):
            words = f"too many wrong keys came from this address: wait {wait} s, and check the key"
            raise Rejected(Reason.TOO_MANY_REQUESTS, words)
        try:
            return self._identify(credential, what, api_key)
        except Rejected as refusal:
            if address and refusal.reason is Reason.UNAUTHORIZED:
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
        if identity.api_key:
            key = self._rights_cache.api_keys.get(identity.api_key)
            if key is None or key.revoked_at is not None:
                return Rejected(Reason.UNAUTHORIZED, "The API key of this token was revoked: get a token of another one")
        return None

    def _identify(self, credential: Credential, what: str, api_key: str = "") -> Identity:
        secret, text = self._tokens.secret.value, credential.key.strip()
        if credential.user is not None:
            if stream_keys.is_name(credential.user):
                return self._stream_key(credential.user)
            claims = self._tokens.claims_of(credential.user)
            return Identity(
                claims.user_id, call_cids=frozenset(claims.call_cids), claimed=Role.HOST, expires_at=claims.exp or 0
            )
        if not is_token(text) and stream_keys.looks_like_key(text):
            if (name := stream_keys.name_of(secret, text)) is None:
                words = "is not one of this gateway's, or a character of it is missing or changed: copy it again in one piece"
                raise Rejected(Reason.UNAUTHORIZED, f"{what} {words}")
            return self._stream_key(name)
        claims, signer = read(credential.key, what, self._signers_of(api_key), self._tokens.now())
        calls = frozenset(claims.call_cids) or None
        if not signer.api_key:
            claimed = _CLAIMED.get(claims.role, claims.role)
            return Identity(claims.user_id, call_cids=calls, claimed=claimed, expires_at=claims.exp or 0)
        return Identity(
            claims.user_id,
            server=not claims.user_id,
            api_key=signer.api_key,
            call_cids=calls,
            expires_at=claims.exp or 0,
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
        return Identity(key.user_id, call_cids=frozenset({key.call_cid}), stream_key=name, expires_at=expires_at)

    def _signers_of(self, api_key: str) -> tuple[Signer, ...]:
        """The gateway, and the application named or else each: a token does not tell whose it is."""
        keys, signers = self._signers
        if keys is not self._rights_cache.api_keys:
            keys = self._rights_cache.api_keys
            signers = {key: self._unsealed(each) for key, each in keys.items() if each.revoked_at is None}
            self._signers = (keys, signers)
        if api_key and api_key not in signers:
            raise Rejected(
                Reason.UNAUTHORIZED, "There is no such api_key, or it was revoked: list them with gateway apikey list"
            )
        now = self.now
        ends = {key: [each.expires_at for each in keys[key].secrets] for key in ([api_key] if api_key else signers)}
        usable = [
            signer
            for key, times in ends.items()
            for signer, end in zip(signers[key], times, strict=True)
            if end is None or now < end
        ]
        return (self._tokens.signer, *usable)

    def _unsealed(self, key: ApiKey) -> tuple[Signer, ...]:
        """What does not open (the gateway's own secret was changed) verifies nothing."""
        values = (self._sealing.unseal(each.sealed, key.key) for each in key.secrets)
        return tuple(Signer(value if value is not None else b"", key.key) for value in values)
