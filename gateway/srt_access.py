"""What an SRT caller may do, decided before it is connected: its stream id is a stream key, or a user name with a passphrase.

A stream key (a token, or a short one) travels in clear text and so does the media under it. A user name names call, user and expiry, that
of a short key its row in the store; only who has the password that belongs to it gets through the handshake, and the media is encrypted
with it.

Kept true: this runs on libsrt's thread of a port, where nothing is received meanwhile, so it only reads memory; what it logs is written
elsewhere, and at most one line a second, because a refused encoder calls again dozens of times a second.
"""

from collections.abc import Callable
from time import monotonic

from gateway import stream_keys
from gateway.auth import Grant, is_user_name
from gateway.bearer import is_token
from gateway.directory import NotInMemory
from protocols.errors import Reason, Rejected
from protocols.publisher import Credential
from protocols.srt.admission import Access
from protocols.srt.streamid import StreamId

_LOG_INTERVAL_S = 1.0

Examine = Callable[[Credential, str | None, str], Grant]
"""(credential, call, address) -> what it may do now; raises `Rejected`."""


class SrtAccess:
    """`protocols.srt.server.Authorise`. `password` gives a name's passphrase; `tell` gets a refusal and the caller's host, at most once a
    second; `missing` what has to be looked up before the caller comes again."""

    def __init__(
        self,
        password: Callable[[str], str | None],
        examine: Examine,
        tell: Callable[[Rejected, str], None],
        missing: Callable[[Credential, str | None], None] = lambda credential, call: None,
    ) -> None:
        self._password = password
        self._examine = examine
        self._tell = tell
        self._missing = missing
        self._quiet_until = 0.0

    def __call__(self, stream: StreamId, host: str) -> Access:
        try:
            return self._access(stream, host)
        except Rejected as refusal:
            if monotonic() >= self._quiet_until:
                self._quiet_until = monotonic() + _LOG_INTERVAL_S
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
        if user is None:
            return Access()
        password = self._password(user)
        if password is None:
            raise Rejected(Reason.UNAUTHORIZED, "The user name has just expired: make a new one")
        return Access(password, user=user)
