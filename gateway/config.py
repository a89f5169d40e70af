"""The configuration: every key with its default, its unit in its name, its bounds and one sentence of what it does.

Four sources, the later wins: the defaults here < `gateway.toml` < environment (`GATEWAY_RTMP__PORT=1936`) < command line
(`--set rtmp.port=1936`). Kept true: a key that nobody knows is an error that names the nearest known one and the source it stands
in; every value is checked before anything starts; all problems are told at once; a secret is never printed. `deploy/gateway.toml`
is printed from these models and a test holds the two equal.
"""

import difflib
import json
import os
import tomllib
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyAddress,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

PREFIX = "GATEWAY_"
T = TypeVar("T")


def _items(value: object) -> object:
    """Lists in the environment and on the command line: `a,b`, or as in TOML and JSON `["a", "b"]`."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [item.strip() for item in value.split(",") if item.strip()]


def _long_enough(secret: SecretStr) -> SecretStr:
    if 0 < len(secret.get_secret_value()) < 32:
        raise ValueError("is too short: RFC 7518 §3.2 asks for 32 bytes, e.g. from: openssl rand -hex 32")
    return secret


Port = Annotated[int, Field(ge=0, le=65535)]
CALL_ID = r"^[A-Za-z0-9_-]{1,64}:[A-Za-z0-9_.-]{1,64}$"
CallId = Annotated[str, Field(pattern=CALL_ID)]
Origin = Annotated[str, Field(pattern=r"^(\*|https?://[^/\s]+)$")]
Items = Annotated[tuple[T, ...], BeforeValidator(_items)]


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


class Webrtc(Section):
    """Viewers: one UDP port for all of them."""

    host: str = Field(default="", description="Address to listen on; empty: all, IPv4 and IPv6.")
    port: Port = Field(default=8189, description="UDP port; 0: any free one. It must be reachable for viewers.")
    external_addresses: Items[IPvAnyAddress] = Field(
        default=(), description="IP addresses told to viewers, e.g. the public one behind NAT; empty: this machine's own."
    )
    max_viewers: int = Field(default=500, ge=1, le=10_000, description="Viewers at once, all calls together.")
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


class Calls(Section):
    """The calls of this gateway."""

    public: Items[CallId] = Field(
        default=("livestream:demo",),
        description="Calls that anybody may watch without a token, each as type:id, e.g. livestream:demo.",
    )
    linger_s: float = Field(
        default=10.0,
        ge=0,
        le=300,
        description="Time that a stream keeps its place in the call after its encoder broke off, in seconds.",
    )


class Transcode(Section):
    """What happens to media that the call cannot take as it is."""

    video: Literal["auto", "always", "never"] = Field(
        default="auto",
        description='"auto": passed through where the call takes it; "always": transcoded; "never": refused where it cannot pass.',
    )
    max_width: int = Field(default=1920, ge=16, le=7680, description="Widest picture; larger ones are scaled down.")
    max_height: int = Field(
        default=1080,
        ge=16,
        le=7680,
        description="Highest picture; larger ones are scaled down. A portrait one is measured on its side.",
    )
    max_frame_rate: float = Field(default=60.0, ge=1, le=240, description="Most frames per second.")
    workers_max: int = Field(
        default=32, ge=1, le=1000, description="Worker processes at once: one for each session that needs transcoding."
    )
    memory_mib: int = Field(default=1024, ge=128, le=65536, description="Most memory of one worker, in MiB.")
    nice: int = Field(default=5, ge=0, le=19, description="Niceness of the workers: the packets of the gateway go before them.")
    audio_bitrate_bps: int = Field(default=128_000, ge=16_000, le=510_000, description="Opus, in bits per second.")


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
    webrtc: Webrtc = Webrtc()
    auth: Auth = Auth()
    calls: Calls = Calls()
    transcode: Transcode = Transcode()
    live_edge: LiveEdge = LiveEdge()
    log: Log = Log()
    state: State = State()

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


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong: where it stands, its value as written (`***` for a secret) and what is allowed."""

    key: str
    source: str
    value: str
    allowed: str

    def __str__(self) -> str:
        shown = f"{self.key} = {self.value}" if self.value else self.key
        return f"{shown} (from {self.source}): {self.allowed}"


class ConfigError(Exception):
    """The configuration cannot be used; `problems` holds everything that is wrong with it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Layer:
    """One source: its values by dotted key, and how its author wrote that key."""

    values: Mapping[str, object]
    wrote: Callable[[str], str]


def load(file: Path | None = None, sets: Sequence[str] = ()) -> Config:
    """Reads all sources: `file` (must exist), the environment, and `key=value` texts of the command line.

    Raises:
        ConfigError: with every problem of every source.
    """
    layers = [_from_command_line(sets), _from_environment()]
    if file is not None:
        layers.append(_from_file(file))
    if problems := [problem for layer in layers for problem in _unknown(layer)]:
        raise ConfigError(problems)
    merged = ChainMap(*(dict(layer.values) for layer in layers))
    try:
        return Config(**_nested(merged))
    except ValidationError as error:
        raise ConfigError([_invalid(details, layers) for details in error.errors(include_url=False)]) from None


def check(config: Config) -> list[Problem]:
    """What only this machine can tell: certificate files that are not there."""
    return [
        Problem(f"{name}.{field}", "the configuration", _shown(path), "no such file, or it may not be read")
        for name, section in (("http", config.http), ("rtmp", config.rtmp))
        for field, path in (("certificate", section.certificate), ("key", section.key))
        if path and not (Path(path).is_file() and os.access(path, os.R_OK))
    ]


def render(config: Config) -> str:
    """`config` as a commented `gateway.toml`, secrets as `***`."""
    lines = [
        "# The gateway's configuration: every key with its default. The environment (GATEWAY_RTMP__PORT=1936) and the",
        "# command line (--set rtmp.port=1936) win over this file. Paths are relative to the working directory.",
    ]
    for name, section in config:
        lines += ["", f"# {type(section).__doc__}", f"[{name}]"]
        for key, field in type(section).model_fields.items():
            lines += wrap(field.description or "", 120, initial_indent="# ", subsequent_indent="#   ")
            lines.append(f"{key} = {_shown(getattr(section, key))}")
    return "\n".join(lines) + "\n"


def known_keys() -> tuple[str, ...]:
    """Every dotted key there is."""
    return tuple(f"{name}.{key}" for name, section in Config() for key in type(section).model_fields)


def _from_command_line(sets: Sequence[str]) -> Layer:
    problems = [Problem(text, "--set", "", "write key=value, e.g. rtmp.port=1936") for text in sets if "=" not in text]
    if problems:
        raise ConfigError(problems)
    pairs = (text.split("=", 1) for text in sets)
    return Layer({key.strip(): value for key, value in pairs}, lambda key: f"--set {key}")


def _from_environment() -> Layer:
    # pydantic-settings passes over a variable with our prefix that is no key; `stray` brings it back so that it is told.
    stray = {_dotted(name): value for name, value in os.environ.items() if name.upper().startswith(PREFIX)}
    return Layer(stray | _flat(EnvSettingsSource(Config)()), lambda key: PREFIX + key.upper().replace(".", "__"))


def _dotted(variable: str) -> str:
    return variable[len(PREFIX) :].lower().replace("__", ".")


def _from_file(file: Path) -> Layer:
    if not file.is_file():
        raise ConfigError([Problem(str(file), "--config", "", "no such file")])
    try:
        return Layer(_flat(TomlConfigSettingsSource(Config, file)()), lambda key: file.name)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError([Problem(str(file), "--config", "", f"cannot be read: {error}")]) from None


def _flat(values: Mapping[str, Any]) -> dict[str, object]:
    """`{"rtmp": {"port": 1}}` as `{"rtmp.port": 1}`; what stands outside a section keeps its name and is unknown for it."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        flat |= {f"{name}.{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _nested(flat: Mapping[str, object]) -> dict[str, Any]:
    nested: dict[str, dict[str, object]] = {}
    for dotted, value in flat.items():
        section, key = dotted.split(".", 1)
        nested.setdefault(section, {})[key] = value
    return nested


def _unknown(layer: Layer) -> Iterator[Problem]:
    known = known_keys()
    for key in layer.values:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, 1, 0.4)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            yield Problem(key, layer.wrote(key), "", f"unknown key{hint}")


def _invalid(details: Mapping[str, Any], layers: Sequence[Layer]) -> Problem:
    section, *rest = (str(part) for part in details["loc"])
    model = Config.model_fields[section].annotation
    key = f"{section}.{rest[0]}" if rest else section
    sources = (layer.wrote(name) for layer in layers for name in layer.values if name == key or name.startswith(f"{key}."))
    values = (layer.values[key] for layer in layers if key in layer.values)
    field = model.model_fields.get(rest[0]) if rest and isinstance(model, type) and issubclass(model, BaseModel) else None
    secret = field is not None and field.annotation is SecretStr
    message = details["msg"].removeprefix("Value error, ").removeprefix("Input ")
    allowed = f"{message}. {field.description}" if field and field.description else message
    value = next((_shown("***" if secret else found) for found in values), "")
    return Problem(key, next(sources, "the defaults"), value, allowed)


def _shown(value: object) -> str:
    """A value as TOML writes it."""
    match value:
        case SecretStr():
            return '"***"' if value.get_secret_value() else '""'
        case tuple() | list():
            return f"[{', '.join(map(_shown, value))}]"
        case bool() | int() | float():
            return json.dumps(value)
        case _:
            return json.dumps(str(value), ensure_ascii=False)
