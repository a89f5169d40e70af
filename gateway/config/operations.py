"""The machine and the operator: how much is taken on, the end, traces, the log, and what outlives the process."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from gateway.config.values import Section


def _database(url: SecretStr) -> SecretStr:
    if (text := url.get_secret_value()) and not text.startswith(("postgresql+asyncpg://", "sqlite+aiosqlite://")):
        raise ValueError("begins neither with postgresql+asyncpg:// nor with sqlite+aiosqlite://")
    return url


class CapacityConfig(Section):
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


class ShutdownConfig(Section):
    """The end: SIGTERM, SIGINT."""

    drain_s: float = Field(
        default=0,
        ge=0,
        le=86_400,
        description="On SIGTERM no new streams are taken, and those that are live may go on for this long, in seconds; 0: they end at "
        "once. A second signal ends them. Not where the listening sockets are systemd's: the next process goes on with them at once.",
    )


class TracingConfig(Section):
    """OpenTelemetry traces of each session's life. This takes the extra: pip install 'ingress-gateway[trace]'."""

    endpoint: Annotated[str, Field(pattern=r"^(https?://[^\s]+)?$")] = Field(
        default="", description="Where they are sent by OTLP over HTTP, e.g. http://127.0.0.1:4318/v1/traces; empty: nowhere."
    )


class LogConfig(Section):
    """What is written to standard error."""

    format: Literal["text", "json"] = Field(
        default="text", description='"text": one line for people; "json": one object a line.'
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description='"debug", "info", "warning" or "error".'
    )


class StateConfig(Section):
    """What outlives the process."""

    directory: str = Field(
        default="var",
        min_length=1,
        description="Folder for what the gateway keeps, made when missing; relative to the working directory.",
    )


class DatabaseConfig(Section):
    """Where calls, users and keys are kept."""

    url: Annotated[SecretStr, AfterValidator(_database)] = Field(
        default=SecretStr(""),
        description="postgresql+asyncpg://user:password@host/name, for several gateways with the same calls; "
        "empty: SQLite in the file gateway.db of state.directory.",
    )
