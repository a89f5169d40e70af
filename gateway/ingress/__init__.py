"""What a streamer pastes into an encoder: addresses, keys and commands for one user of one call, as text, a file a protocol.

Kept true: what is printed works as it stands: addresses carry their ports, commands their quotes, and a call that is not public gets
its watch link with a token in the fragment (which browsers never send to a server).
"""

from dataclasses import dataclass, field
from typing import Protocol, Self

from gateway.access import stream_keys
from gateway.access.credentials import Tokens
from gateway.config import Config


@dataclass(frozen=True, slots=True)
class IngressKey:
    """The right to publish, in the forms that encoders ask for; `expires_at` in Unix seconds."""

    key: str = field(repr=False)
    user: str  # or SRT's stream id
    password: str = field(repr=False)  # or SRT's passphrase
    expires_at: int

    @classmethod
    def signed(cls, tokens: Tokens, user_id: str, call: str, ttl_s: int) -> Self:
        """One that is stored nowhere. Raises `ValueError` for names that are none."""
        name = tokens.user_name(user_id, call, ttl_s)
        return cls(tokens.issue(user_id, [call], ttl_s), name, tokens.password(name) or "", int(name.rpartition("~")[2]))

    @classmethod
    def short(cls, secret: bytes, name: str, expires_at: int) -> Self:
        """A short stream key, of which the store has the name."""
        return cls(stream_keys.whole(secret, name), name, stream_keys.password(secret, name), expires_at)


class Way(Protocol):
    """One user's way into one call."""

    def text(self, obs: bool = False) -> str:
        """Everything, for people; with the exact steps for OBS when asked."""


class MakeWay(Protocol):
    """The way of `user` into `call` by one protocol; `host` is what the encoder reaches this machine by (found out when empty), `key` one
    that was made already. Raises `ValueError`: the call or user id is none."""

    def __call__(
        self, config: Config, tokens: Tokens, *, call: str, user: str, ttl_s: int, host: str = "", key: IngressKey | None = None
    ) -> Way: ...
