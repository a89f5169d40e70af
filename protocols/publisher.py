"""The contract between a listener and a session: a listener turns each socket into a `Publisher`.

A publisher's life is one line: it is yielded by its listener with a credential, is accepted or rejected once, gives its media by
iteration until the encoder ends (normally or with `ProtocolError`), and is closed. Feedback goes back through `request_keyframe`.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Protocol, Self

from protocols.errors import Rejected
from protocols.media import EncodedPacket, TracksChanged


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """What the encoder showed: the stream key (RTMP publish name without its query, SRT `u`/`r`, WHIP bearer) and, where the protocol has
    already proved it with a challenge, the user name. Never logged: it has no repr."""

    key: str
    user: str | None = None  # proved by the protocol's own challenge (Adobe authmod), not by the key


@dataclass(slots=True)
class PublisherStats:
    """Plain totals since the start, read on scrape. `round_trip_ns` is 0 where unknown."""

    bytes_received: int = 0
    packets_received: int = 0
    packets_ignored: int = 0  # of tracks that we do not take, and unknown messages
    round_trip_ns: int = 0

    @property
    def network_latency_ns(self) -> int:
        """What is known of the way to us, 0 where nothing is: the round trip, unless the protocol knows better."""
        return self.round_trip_ns

    @property
    def advice(self) -> str:
        """What the streamer should change about the connection, empty when all is well."""
        return ""


class Publisher(Protocol):
    """One encoder that wants to publish, on any protocol."""

    @property
    def id(self) -> str:
        """Random and unguessable; names the session in logs and the API."""

    @property
    def protocol(self) -> str:
        """`rtmp`, `rtmps`, `srt` or `whip`: the metric label."""

    @property
    def remote(self) -> str:
        """The peer's `address:port`, IPv6 in brackets."""

    @property
    def software(self) -> str:
        """What the encoder calls itself, printable and at most 80 characters; empty where it does not say."""

    @property
    def credential(self) -> Credential: ...

    @property
    def params(self) -> Mapping[str, str]:
        """The query of the key or address, without secrets' meaning: e.g. `call`, `user` where given beside the key."""

    @property
    def stats(self) -> PublisherStats: ...

    async def accept(self) -> None:
        """Tell the encoder to start. Raises `ProtocolError` if it has gone."""

    async def reject(self, refusal: Rejected) -> None:
        """Tell the encoder why not, in its protocol's words, and close."""

    def __aiter__(self) -> AsyncIterator[TracksChanged | EncodedPacket]:
        """Media in the order received; ends when the encoder ends the stream; raises `ProtocolError` when it breaks off."""

    def pause(self, paused: bool) -> None:
        """Stop or go on reading from the encoder, where the transport has back-pressure (TCP); elsewhere nothing happens."""

    def request_keyframe(self, layer: str = "") -> bool:
        """Ask the encoder for a key frame of the video track of this layer; False where the protocol has no way to (RTMP, SRT)."""

    async def aclose(self, why: str = "") -> None:
        """End the stream, telling the encoder `why` where the protocol can. Idempotent."""


class Listener(Protocol):
    """A socket that yields publishers; entering it binds, leaving it closes the socket and every publisher that it gave."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...

    def __aiter__(self) -> AsyncIterator[Publisher]: ...
