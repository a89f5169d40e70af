"""What an SRT caller may do, decided before it is connected: its stream id is a stream key, or a user name with a passphrase.

A stream key (a token, or a short one) travels in clear text and so does the media under it. A user name names call, user and expiry, that
of a short key its row in the store; only who has the password that belongs to it gets through the handshake, and the media is encrypted
with it.

Kept true: the rule is that of all publishers (`prepare`, then `examine`); refusals are logged at most once a second, because a refused
encoder calls again dozens of times a second.
"""

from collections.abc import Awaitable, Callable
from time import monotonic_ns

from gateway.access import stream_keys
from gateway.access.credentials import Grant, is_user_name
from gateway.access.jwt import is_token
from protocols.errors import Reason, Rejected
from protocols.publisher import Credential
from protocols.rate_limit import TokenBucket
from protocols.srt.admission import Access
from protocols.srt.streamid import StreamId

_LOG_RATE = 1.0  # lines a second

Prepare = Callable[[Credential, str | None], Awaitable[None]]
"""(credential, call): afterwards what `Examine` asks for is in memory."""

Examine = Callable[[Credential, str | None, str], Grant]
"""(credential, call, address) -> what it may do now; raises `Rejected`."""


class SrtAuthorizer:
    """`protocols.srt.listener.Authorise`. `password` gives a name's passphrase; `on_refused` gets a refusal and the caller's host, at most
    once a second."""

    def __init__(
        self,
        password: Callable[[str], str | None],
        prepare: Prepare,
        examine: Examine,
        on_refused: Callable[[Rejected, str], None],
        now: Callable[[], int] = monotonic_ns,
    ) -> None:
        self._password = password
        self._prepare = prepare
        self._examine = examine
        self._on_refused = on_refused
        self._now = now
        self._lines = TokenBucket(_LOG_RATE, 1)

    async def __call__(self, stream: StreamId, host: str) -> Access:
        try:
            return await self._access(stream, host)
        except Rejected as refusal:
            if self._lines.take(self._now()):
                self._on_refused(refusal, host)
            raise

    async def _access(self, stream: StreamId, host: str) -> Access:
        names = (stream.user, stream.key)
        user = next((name for name in names if is_user_name(name) or stream_keys.is_name(name)), None)
        if user is None and not is_token(stream.key) and not stream_keys.looks_like_key(stream.key):
            raise Rejected(
                Reason.NOT_FOUND, "The stream id is neither a stream key nor a user name: make one with gateway ingress srt"
            )
        credential, call = Credential(stream.key, user), stream.beside.get("call")
        await self._prepare(credential, call)
        self._examine(credential, call, host)
        if user is None:
            return Access()
        password = self._password(user)
        if password is None:
            raise Rejected(Reason.UNAUTHORIZED, "The user name has just expired: make a new one")
        return Access(password, user=user)
