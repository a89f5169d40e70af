"""The contract between a listener and a session: a listener turns each socket into a `Publisher`.

A publisher's life is one line: it is yielded by its listener with a credential, is accepted or rejected once, gives its media by
iteration until the encoder ends (normally or with `ProtocolError`), and is closed. Feedback goes back through `request_keyframe`.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from protocols.errors import Rejected
from protocols.media import EncodedPacket, LeftOut, TracksChanged
from protocols.metric import MetricFamily


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """What the encoder showed: the stream key (RTMP publish name without its query, SRT `u`/`r`, WHIP bearer) and, where the protocol has
    already proved it with a challenge, the user name. Never logged: it has no repr."""

    key: str
    user: str | None = None  # proved by the protocol's own challenge (Adobe authmod), not by the key


@dataclass(frozen=True, slots=True)
class LinkReading:
    """What a protocol that asks for lost packets again knows of its connection: packets since the start, and the last reading."""

    latency_ms: int  # agreed on with the sender
    buffer_ms: int  # media that wait for their time
    capacity_mbps: float  # an estimate
    packets_received: int
    packets_lost: int  # noticed missing; repaired or not
    packets_retransmitted: int
    packets_dropped: int  # given up: too late
    packets_belated: int  # came after they were given up
    current: bool  # False: there is no connection now, or no reading of it yet


@dataclass(slots=True)
class PublisherStats:
    """Plain totals since the start, read by metrics, findings and the API. `round_trip_ns` is 0 where unknown."""

    bytes_received: int = 0
    packets_received: int = 0
    packets_ignored: int = 0  # of tracks that we do not take, and unknown messages
    packets_unreadable: int = 0  # left out, in whole or in part, since they could not be read
    packets_lost: int = 0  # noticed missing on the way, repaired or not, where the protocol knows
    packets_dropped: int = 0  # of these, given up: too late
    round_trip_ns: int = 0
    keyframes_on_demand: bool = False  # the encoder makes them when asked, so that how often it does so by itself is no matter
    stopped: bool = False  # the encoder has said in its protocol's words that it ends its stream: nobody need wait for it

    @property
    def network_latency_ns(self) -> int:
        """What is known of the way to us, 0 where nothing is: the round trip, unless the protocol knows better."""
        return self.round_trip_ns

    @property
    def link(self) -> LinkReading | None:
        """None where the protocol has no such thing."""
        return None

    @property
    def advice(self) -> str:
        """What the streamer should change about the connection, empty when all is well."""
        return ""


class Applicant(Protocol):
    """Who asks to publish, on any protocol."""

    @property
    def id(self) -> str:
        """Random and unguessable; names the session in logs and the API."""

    @property
    def protocol(self) -> str:
        """`rtmp`, `rtmps`, `srt`, `whip` and so on: the metric label."""

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


class Publisher(Applicant, Protocol):
    """One encoder that wants to publish: who it is, and its media."""

    @property
    def stats(self) -> PublisherStats: ...

    async def accept(self) -> None:
        """Tell the encoder to start. Raises `ProtocolError` if it has gone."""

    async def reject(self, refusal: Rejected) -> None:
        """Tell the encoder why not, in its protocol's words, and close."""

    def __aiter__(self) -> AsyncIterator[TracksChanged | EncodedPacket | LeftOut]:
        """Media in the order received; ends when the encoder ends the stream; raises `ProtocolError` when it breaks off."""

    def pause(self, paused: bool) -> None:
        """Stop or go on reading from the encoder, where the transport has back-pressure (TCP); elsewhere nothing happens."""

    def request_keyframe(self, layer: str = "") -> bool:
        """Ask the encoder for a key frame of the video track of this layer; False where the protocol has no way to (RTMP, SRT)."""

    async def aclose(self, why: str = "") -> None:
        """End the stream, telling the encoder `why` where the protocol can. Idempotent."""


@dataclass(frozen=True, slots=True)
class BoundPort:
    """A port that is listened on; `name` is what its addresses begin with: `rtmp`, `rtmps`, `srt`."""

    name: str
    number: int
    udp: bool = False


@dataclass(frozen=True, slots=True)
class ReachedBy:
    """How a client came to the gateway over HTTP: encoders reach it by the same name."""

    host: str  # IPv6 in brackets
    origin: str  # scheme://host:port


class Listener(Protocol):
    """A socket that yields publishers; entering it binds, leaving it closes the socket and every publisher that it gave.

    What it says of itself, beside the `stats` of its publishers, is all that metrics, the API, findings and the log know of a protocol. It
    is read at any time after entering.
    """

    @property
    def protocol(self) -> str:
        """The name of what it takes, and the metric label."""

    @property
    def ports(self) -> Sequence[BoundPort]:
        """Its own, really bound, the main one of each name first; none where it shares those of others."""

    def failures(self) -> Mapping[str, int]:
        """Connections that ended before they could publish, by reason (a bounded label)."""

    def refusals(self) -> Mapping[str, int]:
        """Who was refused before there was a publisher, by `Reason.label`."""

    def counters(self) -> Iterable[MetricFamily]:
        """What else it counts; the names are shown after the protocol's."""

    def addresses(self, call: str, by: ReachedBy) -> Mapping[str, str]:
        """What to paste into an encoder that streams into `call`, by the names that answers give them (`rtmp`, `rtmps`, `srt`, `whip`).
        They hold no key."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...

    def __aiter__(self) -> AsyncIterator[Publisher]: ...
