"""The configuration: every key with its default, its unit in its name, its bounds and one sentence of what it does.

Kept true: every value is checked before anything starts, and nothing changes afterwards. `config_sources.py` reads these from a file, the
environment and the command line; `deploy/gateway.toml` is printed from these models and a test holds the two equal.
"""

import json
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyAddress,
    IPvAnyNetwork,
    SecretStr,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from gateway.events import EventType
from protocols.errors import Rejected
from protocols.srt.source_url import parse_source
from protocols.webrtc.ice_servers import ADDRESS

PREFIX = "GATEWAY_"
T = TypeVar("T")


def _items(value: object) -> object:
    """Lists in the environment and on the command line: `a,b`, or as in TOML and JSON `["a", "b"]`."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [item.strip() for item in value.split(",") if item.strip()]


def _table(value: object) -> object:
    """Tables in the environment and on the command line: JSON."""
    return json.loads(value) if isinstance(value, str) else value


def _word(value: object) -> object:
    """A word among which are true and false: TOML has them without quotes."""
    return str(value).lower() if isinstance(value, bool) else value


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


def _database(url: SecretStr) -> SecretStr:
    if (text := url.get_secret_value()) and not text.startswith(("postgresql+asyncpg://", "sqlite+aiosqlite://")):
        raise ValueError("begins neither with postgresql+asyncpg:// nor with sqlite+aiosqlite://")
    return url


def _receiver(url: SecretStr) -> SecretStr:
    parts = urlsplit(url.get_secret_value())
    if url.get_secret_value() and not (parts.scheme in ("http", "https") and parts.hostname):
        raise ValueError("is no address: write https://host/path")
    return url


def _long_enough(secret: SecretStr) -> SecretStr:
    if 0 < len(secret.get_secret_value()) < 32:
        raise ValueError("is too short: RFC 7518 §3.2 asks for 32 bytes, e.g. from: openssl rand -hex 32")
    return secret


Port = Annotated[int, Field(ge=0, le=65535)]
CALL_ID = r"^[A-Za-z0-9_-]{1,64}:[A-Za-z0-9_.-]{1,64}$"
CallId = Annotated[str, Field(pattern=CALL_ID)]
USER_ID = r"[A-Za-z0-9@_.-]{1,64}"
Origin = Annotated[str, Field(pattern=r"^(\*|https?://[^/\s]+)$")]
Items = Annotated[tuple[T, ...], BeforeValidator(_items)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class Section(BaseModel):
    """One table of `gateway.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Certified(Section):
    """A section with a port of its own that can speak TLS."""

    certificate: str = Field(
        default="", description="PEM file with the certificate chain; empty: no TLS. Read again when it changes."
    )
    key: str = Field(default="", description="PEM file with the certificate's private key.")

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if bool(self.certificate) != bool(self.key):
            raise ValueError("certificate and key belong together: give both or neither")
        return self


class Http(Certified):
    """Pages, WHEP, the API, metrics and health."""

    host: str = Field(default="", description="Address to listen on; empty: all, IPv4 and IPv6.")
    port: Port = Field(default=8080, description="TCP port; 0: any free one.")
    cors_origins: Items[Origin] = Field(default=("*",), description="Web origins whose pages may call WHEP and the API.")
    trusted_proxies: Items[IPvAnyNetwork] = Field(
        default=(ip_network("127.0.0.0/8"), ip_network("::1/128")),
        description="Networks of proxies whose X-Forwarded-For is believed, so that limits by address are those of the clients.",
    )


class Rtmp(Certified):
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


class Source(Section):
    """An SRT stream that the gateway fetches."""

    url: Annotated[SecretStr, AfterValidator(_source)] = Field(
        description="srt://host:port?streamid=…&passphrase=…&latency=… (ms), of an encoder or server that listens."
    )
    call: CallId = Field(description="The call that it goes into.")
    user: str = Field(pattern=f"^{USER_ID}$", description="The participant that it is there.")
    allow_private: bool = Field(default=False, description="The address may be one of a private network or this machine.")


class Srt(Section):
    """Encoders that speak SRT. This takes libsrt 1.5: apt-get install libsrt1.5-gnutls, or brew install srt."""

    enabled: Annotated[Literal["auto", "true", "false"], BeforeValidator(_word)] = Field(
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
    ports: Annotated[Mapping[Annotated[int, Field(ge=1, le=65535)], SecretStr], BeforeValidator(_table)] = Field(
        default_factory=dict,
        max_length=256,
        description="Further UDP ports, each for one encoder that has no field for a stream id, with what that would be: "
        '{ 9001 = "…" }, as printed by: gateway ingress srt.',
    )
    sources: Annotated[Mapping[Name, Source], BeforeValidator(_table)] = Field(
        default_factory=dict,
        max_length=256,
        description="Streams that the gateway fetches: "
        '{ name = { url = "srt://…", call = "livestream:demo", user = "…", allow_private = false } }.',
    )


class Whip(Section):
    """Encoders and browsers that publish by WHIP: over the HTTP port, their media over the UDP port of [webrtc]."""

    enabled: bool = Field(default=True, description="Take WHIP at all.")


class Webrtc(Section):
    """Viewers and WHIP publishers: one UDP port for all of them."""

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
    max_viewers: int = Field(
        default=500, ge=1, le=10_000, description="Viewers and WHIP publishers at once, all calls together."
    )
    connect_timeout_s: float = Field(
        default=10.0, ge=1, le=60, description="Time a viewer has from its offer to a working connection, in seconds."
    )


class Auth(Section):
    """The secret that signs stream keys and watch tokens."""

    secret: Annotated[SecretStr, AfterValidator(_long_enough)] = Field(
        default=SecretStr(""),
        description="At least 32 characters; empty: taken from secret_file. Better given as GATEWAY_AUTH__SECRET than in a file.",
    )
    secret_file: str = Field(
        default="secret",
        min_length=1,
        description="File with the secret, relative to state.directory; the first start makes it, mode 0600.",
    )
    max_failures_per_minute: int = Field(
        default=60,
        ge=0,
        le=100_000,
        description="Wrong keys and tokens from one address (IPv6: one /64) before the next ones are refused unseen; 0: no limit.",
    )


class Calls(Section):
    """The calls of this gateway."""

    public: Items[CallId] = Field(
        default=("livestream:demo",),
        description="Calls that there are from the start, live, and that anybody may watch without a token, e.g. livestream:demo.",
    )
    create_on_publish: bool = Field(
        default=True,
        description="A stream key made by this gateway's own commands for a call that is not there makes it, in backstage.",
    )
    linger_s: float = Field(
        default=10.0,
        ge=0,
        le=300,
        description="Time that a stream keeps its place in the call after its encoder broke off, in seconds.",
    )
    on_conflict: Literal["take_over", "refuse"] = Field(
        default="take_over",
        description="A second encoder comes for a stream that is live: "
        '"take_over": it replaces the first one; "refuse": it is told that the stream is in use.',
    )
    max_streams: int = Field(default=200, ge=1, le=10_000, description="Streams at once, all calls and protocols together.")
    max_bitrate_bps: int = Field(
        default=50_000_000,
        ge=0,
        le=1_000_000_000,
        description="Most that an encoder may send for one track over some seconds, in bits per second; 0: no limit.",
    )


class Webhooks(Section):
    """Events told to a server of yours, each by a signed HTTP POST."""

    url: Annotated[SecretStr, AfterValidator(_receiver)] = Field(
        default=SecretStr(""), description="The https:// address of the server; empty: none. http:// only with allow_private."
    )
    secret: Annotated[SecretStr, AfterValidator(_long_enough)] = Field(
        default=SecretStr(""), description="What signs them (HMAC-SHA256, Standard Webhooks): at least 32 characters."
    )
    events: Items[EventType] = Field(
        default=(), description="Types of the events that are told, e.g. ingress.error; empty: all."
    )
    timeout_s: float = Field(default=10.0, ge=0.1, le=60, description="Time the server has to answer, in seconds.")
    allow_private: bool = Field(default=False, description="The address may be one of a private network or this machine.")

    @model_validator(mode="after")
    def _safe(self) -> Self:
        url = self.url.get_secret_value()
        if url and not self.secret.get_secret_value():
            raise ValueError("webhooks.secret is missing: the receiver could not tell our events from others'")
        if url.startswith("http:") and not self.allow_private:
            raise ValueError("webhooks.url must be https://; http:// is taken only with webhooks.allow_private")
        return self


class Transcode(Section):
    """What happens to media that the call cannot take as it is."""

    video: Literal["auto", "always", "never"] = Field(
        default="auto",
        description='"auto": passed through where the call takes it; "always": transcoded; "never": refused where it cannot pass.',
    )
    encoder: Literal["auto", "hardware", "libx264", "h264_nvenc", "h264_qsv", "h264_amf", "h264_v4l2m2m"] = Field(
        default="auto",
        description='The H.264 encoder. "auto": the first of NVENC, Quick Sync, AMF and V4L2 whose device is here and that works, else '
        'x264; "hardware": all of them are tried, device or not; or one by name. Each is tried at start with a real picture.',
    )
    max_width: int = Field(default=1920, ge=16, le=7680, description="Widest picture; larger ones are scaled down.")
    max_height: int = Field(
        default=1080,
        ge=16,
        le=7680,
        description="Highest picture; larger ones are scaled down. A portrait one is measured on its side.",
    )
    max_frame_rate: float = Field(default=60.0, ge=1, le=240, description="Most frames per second.")
    max_bitrate_bps: int = Field(
        default=6_000_000,
        ge=100_000,
        le=50_000_000,
        description="Most that a transcoded video has, in bits per second; it starts at what its size needs.",
    )
    pass_bitrate_bps: int = Field(
        default=0,
        ge=0,
        le=1_000_000_000,
        description="A video that stays above this many bits per second is transcoded though it could pass; 0: it passes with any.",
    )
    layers: int = Field(
        default=1,
        ge=1,
        le=3,
        description="How many sizes one video is offered in, each half of the one above, so that a viewer gets the one for its tile and "
        "its network; fewer where the video is small. 1 by default: a video that passes costs no CPU then, and the layers below it cost a "
        "third of a core at 1080p30. They are the first to go where the CPU does not suffice.",
    )
    workers_max: int = Field(
        default=32, ge=1, le=1000, description="Worker processes at once: one for each session that needs transcoding."
    )
    memory_mib: int = Field(default=1024, ge=128, le=65536, description="Most memory of one worker, in MiB.")
    nice: int = Field(default=5, ge=0, le=19, description="Niceness of the workers: the packets of the gateway go before them.")
    audio_bitrate_bps: int = Field(default=128_000, ge=16_000, le=510_000, description="Opus, in bits per second.")


class Hls(Section):
    """Calls watched without WebRTC: HLS, which every device plays and any CDN carries, at 2 to 7 s of delay."""

    enabled: bool = Field(default=True, description="Calls can be watched as HLS once the API starts that for them.")
    auto: bool = Field(default=False, description="Every call is, as soon as somebody publishes into it.")
    segment_s: float = Field(
        default=2.0,
        ge=1,
        le=10,
        description="Segments have at least about this length, in seconds, and end at key frames: an encoder should give them as often.",
    )
    window_s: float = Field(
        default=24.0, ge=6, le=86_400, description="How much a playlist lists, in seconds: so far back may players go."
    )
    memory_mib: int = Field(default=64, ge=8, le=4096, description="Most memory of one stream, in MiB; the oldest go first.")
    storage: str = Field(
        default="",
        description="Where segments are kept besides: file:///folder, or s3://bucket/prefix; empty: in memory alone.",
    )
    storage_options: Annotated[Mapping[Name, SecretStr], BeforeValidator(_table)] = Field(
        default_factory=dict,
        max_length=32,
        description="What the bucket takes beyond the usual AWS_… variables: "
        '{ endpoint = "https://…", region = "…", access_key_id = "…", secret_access_key = "…" }.',
    )
    base_url: str = Field(
        default="",
        pattern=r"^(https?://[^\s?#]+)?$",
        description="What playlist addresses begin with where that is not this machine: https://cdn.example.org.",
    )
    link_ttl_s: int = Field(
        default=86_400,
        ge=3600,
        le=31_536_000,
        description="How long the address of a playlist is good where the call is not open to everybody, in seconds.",
    )


class LiveEdge(Section):
    """Live means that late is worse than lost."""

    ahead_ms: int = Field(
        default=100, ge=0, le=5000, description="Media may run this far ahead of real time before it is held, in milliseconds."
    )
    hold_ms: int = Field(
        default=1000, ge=100, le=10_000, description="Most media held back from a source that runs ahead, in milliseconds."
    )
    late_ms: int = Field(
        default=700,
        ge=50,
        le=10_000,
        description="Media later than this is dropped, up to the next key frame, in milliseconds.",
    )


class Capacity(Section):
    """How much is taken on: a stream that does not fit into the CPU is refused, by what streams of its kind have cost here."""

    enabled: bool = Field(default=True, description="Refuse what does not fit; false: it is only measured.")
    cores: float = Field(
        default=0,
        ge=0,
        le=4096,
        description="CPU cores to reckon with; 0: those of this machine, or fewer where its cgroup says so.",
    )
    reserve: float = Field(
        default=0.1, ge=0, le=0.9, description="Part of the cores that is kept free, for what streams do not cost all the time."
    )


class Shutdown(Section):
    """The end: SIGTERM, SIGINT."""

    drain_s: float = Field(
        default=0,
        ge=0,
        le=86_400,
        description="On SIGTERM no new streams are taken, and those that are live may go on for this long, in seconds; 0: they end at "
        "once. A second signal ends them.",
    )


class Tracing(Section):
    """OpenTelemetry traces of each session's life. This takes the extra: pip install 'ingress-gateway[trace]'."""

    endpoint: Annotated[str, Field(pattern=r"^(https?://[^\s]+)?$")] = Field(
        default="", description="Where they are sent by OTLP over HTTP, e.g. http://127.0.0.1:4318/v1/traces; empty: nowhere."
    )


class Log(Section):
    """What is written to standard error."""

    format: Literal["text", "json"] = Field(
        default="text", description='"text": one line for people; "json": one object a line.'
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description='"debug", "info", "warning" or "error".'
    )


class State(Section):
    """What outlives the process."""

    directory: str = Field(
        default="var",
        min_length=1,
        description="Folder for what the gateway keeps, made when missing; relative to the working directory.",
    )


class Database(Section):
    """Where calls, users and keys are kept."""

    url: Annotated[SecretStr, AfterValidator(_database)] = Field(
        default=SecretStr(""),
        description="postgresql+asyncpg://user:password@host/name, for several gateways with the same calls; "
        "empty: SQLite in the file gateway.db of state.directory.",
    )


class Config(BaseSettings):
    """The whole configuration. `Config()` is the defaults alone; `load` reads the other sources."""

    # A list is not JSON here, see `_items`; hence decoding is ours.
    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        enable_decoding=False,
        hide_input_in_errors=True,
    )

    http: Http = Http()
    rtmp: Rtmp = Rtmp()
    srt: Srt = Srt()
    whip: Whip = Whip()
    webrtc: Webrtc = Webrtc()
    auth: Auth = Auth()
    calls: Calls = Calls()
    webhooks: Webhooks = Webhooks()
    transcode: Transcode = Transcode()
    hls: Hls = Hls()
    live_edge: LiveEdge = LiveEdge()
    capacity: Capacity = Capacity()
    shutdown: Shutdown = Shutdown()
    tracing: Tracing = Tracing()
    log: Log = Log()
    state: State = State()
    database: Database = Database()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)  # `load` merges the sources itself, so that a problem can name the one it comes from
