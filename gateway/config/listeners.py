"""Where the gateway listens: HTTP, RTMP, SRT, WHIP and the UDP port of WebRTC."""

from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, IPvAnyAddress, IPvAnyNetwork, SecretStr, model_validator

from gateway.config.values import USER_ID, CallId, Certified, Items, Name, Origin, Port, Section, table, word
from protocols.errors import Rejected
from protocols.srt.source_url import parse_source
from protocols.webrtc.transport.ice_servers import ADDRESS


def _numeric(host: str) -> str:
    if host:
        ip_address(host)
    return host


def _source(url: SecretStr) -> SecretStr:
    try:
        parse_source(url.get_secret_value())
    except Rejected as refusal:
        raise ValueError(refusal.detail) from None
    return url


class HttpConfig(Certified):
    """Pages, WHEP, the API, metrics and health."""

    host: str = Field(default="", description="Address to listen on; empty: all, IPv4 and IPv6.")
    port: Port = Field(default=8080, description="TCP port; 0: any free one.")
    cors_origins: Items[Origin] = Field(default=("*",), description="Web origins whose pages may call WHEP and the API.")
    trusted_proxies: Items[IPvAnyNetwork] = Field(
        default=(ip_network("127.0.0.0/8"), ip_network("::1/128")),
        description="Networks of proxies whose X-Forwarded-For is believed, so that limits by address are those of the clients.",
    )
    max_connections: int = Field(
        default=5000,
        ge=16,
        le=100_000,
        description="Connections at once, all together; or what the limit on open files leaves beside RTMP, workers and database.",
    )
    max_connections_per_address: int = Field(
        default=200,
        ge=1,
        le=100_000,
        description="Connections at once from one address (IPv6: one /64); those of trusted proxies are not counted so.",
    )


class RtmpConfig(Certified):
    """Encoders that speak RTMP or RTMPS."""

    enabled: bool = Field(default=True, description="Take RTMP at all.")
    host: str = Field(default="", description="Address to listen on; empty: all, IPv4 and IPv6.")
    port: Port = Field(default=1935, description="TCP port for RTMP; 0: any free one.")
    tls_port: Port = Field(default=1936, description="TCP port for RTMPS, used when there is a certificate; 0: no RTMPS.")
    auth_app: str = Field(
        default="auth",
        pattern=r"^[A-Za-z0-9_-]{1,32}$",
        description="Application name under which encoders with user and password fields are asked for them (Adobe authentication).",
    )
    max_connections: int = Field(default=500, ge=1, le=10_000, description="Connections at once, all together.")
    max_connections_per_address: int = Field(default=50, ge=1, le=10_000, description="Connections at once from one address.")


class SourceConfig(Section):
    """An SRT stream that the gateway fetches."""

    url: Annotated[SecretStr, AfterValidator(_source)] = Field(
        description="srt://host:port?streamid=…&passphrase=…&latency=… (ms), of an encoder or server that listens."
    )
    call: CallId = Field(description="The call that it goes into.")
    user: str = Field(pattern=f"^{USER_ID}$", description="The participant that it is there.")
    allow_private: bool = Field(default=False, description="The address may be one of a private network or this machine.")


class SrtConfig(Section):
    """Encoders that speak SRT. This takes libsrt 1.5: apt-get install libsrt1.5-gnutls, or brew install srt."""

    enabled: Annotated[Literal["auto", "true", "false"], BeforeValidator(word)] = Field(
        default="auto",
        description='"auto": where libsrt is installed; "true": without it the gateway does not start; "false": no SRT.',
    )
    host: Annotated[str, AfterValidator(_numeric)] = Field(
        default="", description="Address to listen on, in figures; empty: all, IPv4 and IPv6."
    )
    port: Port = Field(default=9000, description="UDP port; 0: any free one.")
    latency_ms: int = Field(
        default=120,
        ge=20,
        le=8000,
        description="Time that libsrt holds packets so that lost ones can be repaired, in milliseconds: at least 3 round trips. "
        "An encoder that asks for more gets more.",
    )
    library: str = Field(default="", description="libsrt's file; empty: the system's.")
    ports: Annotated[Mapping[Annotated[int, Field(ge=1, le=65535)], SecretStr], BeforeValidator(table)] = Field(
        default_factory=dict,
        max_length=256,
        description="Further UDP ports, each for one encoder that has no field for a stream id but SRT 1.3 or later, with what that would "
        'be: { 9001 = "…" }, as printed by: gateway ingress srt.',
    )
    sources: Annotated[Mapping[Name, SourceConfig], BeforeValidator(table)] = Field(
        default_factory=dict,
        max_length=256,
        description="Streams that the gateway fetches: "
        '{ name = { url = "srt://…", call = "livestream:demo", user = "…", allow_private = false } }.',
    )


class WhipConfig(Section):
    """Encoders and browsers that publish by WHIP: over the HTTP port, their media over the UDP port of [webrtc]."""

    enabled: bool = Field(default=True, description="Take WHIP at all.")


MOST_PROCESSES: Final = 8  # that serve viewers


class WebrtcConfig(Section):
    """Viewers and WHIP publishers: one UDP port for all of them, or one for each process that serves viewers."""

    host: str = Field(default="", description="Address to listen on; empty: all, IPv4 and IPv6.")
    port: Port = Field(default=8189, description="UDP port; 0: any free one. It must be reachable for viewers.")
    external_addresses: Items[IPvAnyAddress] = Field(
        default=(), description="IP addresses told to viewers, e.g. the public one behind NAT; empty: this machine's own."
    )
    ice_servers: Items[Annotated[str, Field(pattern=ADDRESS.pattern)]] = Field(
        default=(),
        description="STUN and TURN servers told to WHIP publishers, e.g. stun:stun.example.org:3478 or "
        "turn:turn.example.org:3478?transport=udp; this gateway itself needs none.",
    )
    turn_secret: SecretStr = Field(
        default=SecretStr(""),
        description="The secret shared with the TURN servers, from which time-limited credentials are made.",
    )
    processes: Literal["auto"] | Annotated[int, Field(ge=0, le=MOST_PROCESSES)] = Field(
        default=0,
        description="Processes that serve viewers, so that more cores than one have a part in it, each on a UDP port of its own: those "
        "right after webrtc.port, which then is for WHIP publishers alone. 0: the main process serves them, on webrtc.port; "
        '"auto": one less than there are cores, 1 at least and 8 at most.',
    )
    max_viewers: int = Field(
        default=500,
        ge=1,
        le=10_000,
        description="Viewers and WHIP publishers at once, all calls together. One place in twenty is kept for publishers, and one in ten "
        "for viewers who show a token.",
    )
    connect_timeout_s: float = Field(
        default=10.0, ge=1, le=60, description="Time a viewer has from its offer to a working connection, in seconds."
    )

    @model_validator(mode="after")
    def _has_ports(self) -> Self:
        most = MOST_PROCESSES if self.processes == "auto" else self.processes
        if self.port + most > 65535:
            raise ValueError("webrtc.port is too high: webrtc.processes have the ports after it, up to 65535")
        return self

    def process_ports(self, cores: float) -> tuple[int, ...]:
        """Of each of `processes`, on so many cores; 0: any free one."""
        count = min(max(1, int(cores) - 1), MOST_PROCESSES) if self.processes == "auto" else self.processes
        return tuple(self.port and self.port + 1 + index for index in range(count))
