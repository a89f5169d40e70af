"""What an SRT caller may do, decided before it is connected: its stream id is a stream key, or a user name with a passphrase.

A stream key (a token, or a short one) travels in clear text and so does the media under it. A user name names call, user and expiry, that
of a short key its row in the store; only who has the password that belongs to it gets through the handshake, and the media is encrypted
with it.

Kept true: this runs on libsrt's thread of a port, where nothing is received meanwhile, so it only reads memory; what it logs is written
elsewhere, and at most one line a second, because a refused encoder calls again dozens of times a second.
"""

from collections.abc import Callable
from time import monotonic_ns

from gateway.access import stream_keys
from gateway.access.authenticator import NoSuchKey
from gateway.access.credentials import Grant, is_user_name
from gateway.access.jwt import is_token
from gateway.access.rights_cache import NotInMemory
from protocols.bounded_map import BoundedMap
from protocols.errors import Reason, Rejected
from protocols.publisher import Credential
from protocols.rate_limit import SECOND, TokenBucket
from protocols.srt.admission import Access
from protocols.srt.streamid import StreamId

_LOG_RATE = 1.0  # lines a second
_LOOK_UP = SECOND  # as long a caller is told to come again
_LOOK_UP_AGAIN = 10 * SECOND
_MOST_LOOKED_UP = 1000

Examine = Callable[[Credential, str | None, str], Grant]
"""(credential, call, address) -> what it may do now; raises `Rejected`."""


class SrtAuthorizer:
    """`protocols.srt.listener.Authorise`. `password` gives a name's passphrase; `tell` gets a refusal and the caller's host, at most once a
    second; `missing` what has to be looked up before the caller comes again."""

    def __init__(
        self,
        password: Callable[[str], str | None],
        examine: Examine,
        tell: Callable[[Rejected, str], None],
        missing: Callable[[Credential, str | None], None],
        now: Callable[[], int] = monotonic_ns,
    ) -> None:
        self._password = password
        self._examine = examine
        self._tell = tell
        self._missing = missing
        self._now = now
        self._lines = TokenBucket(_LOG_RATE, 1)
        self._looked_up: BoundedMap[str, int] = BoundedMap(_MOST_LOOKED_UP)
        """Names that nothing was known of, and when that was last asked."""

    def __call__(self, stream: StreamId, host: str) -> Access:
        try:
            return self._access(stream, host)
        except Rejected as refusal:
            if self._lines.take(self._now()):
                self._tell(refusal, host)
            raise

    def _access(self, stream: StreamId, host: str) -> Access:
        names = (stream.user, stream.key)
        user = next((name for name in names if is_user_name(name) or stream_keys.is_name(name)), None)
        if user is None and not is_token(stream.key) and not stream_keys.looks_like_key(stream.key):
            raise Rejected(
                Reason.NOT_FOUND, "The stream id is neither a stream key nor a user name: make one with gateway ingress srt"
            )
        credential, call = Credential(stream.key, user), stream.beside.get("call")
        try:
            self._examine(credential, call, host)
        except NotInMemory:
            self._missing(credential, call)
            raise
        except NoSuchKey:
            if not self._may_be_new(user or stream.key, credential, call):
                raise
            raise NotInMemory from None
        if user is None:
            return Access()
        password = self._password(user)
        if password is None:
            raise Rejected(Reason.UNAUTHORIZED, "The user name has just expired: make a new one")
        return Access(password, user=user)

    def _may_be_new(self, name: str, credential: Credential, call: str | None) -> bool:
        """Whether the key may have been made elsewhere a moment ago: it is looked up once, and the caller comes again meanwhile."""
        now = self._now()
        since = self._looked_up.get(name)
        if since is None or now - since > _LOOK_UP_AGAIN:
            self._looked_up[name] = since = now
            self._missing(credential, call)
        return now - since < _LOOK_UP
