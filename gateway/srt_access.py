"""What an SRT caller may do, decided before it is connected: its stream id is a stream key, or a user name with a passphrase.

A stream key (a token) travels in clear text and so does the media under it. A user name names call, user and expiry; only who has the
password that belongs to it gets through the handshake, and the media is encrypted with it.

Kept true: this runs on libsrt's thread of a port, where nothing is received meanwhile, so it only reads memory; what it logs is written
elsewhere, and at most one line a second, because a refused encoder calls again dozens of times a second.
"""

from collections.abc import Callable
from time import monotonic

from gateway.auth import Grant, Tokens, is_token, is_user_name
from protocols.errors import Reason, Rejected
from protocols.publisher import Credential
from protocols.srt.admission import Access
from protocols.srt.streamid import StreamId

_LOG_INTERVAL_S = 1.0

Examine = Callable[[Credential, str | None], Grant]
"""(credential, call) -> what it may do now; raises `Rejected`."""


class SrtAccess:
    """`protocols.srt.server.Authorise`. `tell` gets a refusal and the caller's host, at most once a second."""

    def __init__(self, tokens: Tokens, examine: Examine, tell: Callable[[Rejected, str], None]) -> None:
        self._tokens = tokens
        self._examine = examine
        self._tell = tell
        self._quiet_until = 0.0

    def __call__(self, stream: StreamId, host: str) -> Access:
        try:
            return self._access(stream)
        except Rejected as refusal:
            if monotonic() >= self._quiet_until:
                self._quiet_until = monotonic() + _LOG_INTERVAL_S
                self._tell(refusal, host)
            raise

    def _access(self, stream: StreamId) -> Access:
        user = next((name for name in (stream.user, stream.key) if is_user_name(name)), None)
        if user is None and not is_token(stream.key):
            raise Rejected(
                Reason.NOT_FOUND, "The stream id is neither a stream key nor a user name: make one with gateway ingress srt"
            )
        self._examine(Credential(stream.key, user), stream.beside.get("call"))
        if user is None:
            return Access()
        password = self._tokens.password(user)
        if password is None:
            raise Rejected(Reason.UNAUTHORIZED, "The user name has just expired: make a new one")
        return Access(password, user=user)
