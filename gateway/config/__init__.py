"""The configuration: every key with its default, its unit in its name, its bounds and one sentence of what it does.

Kept true: every value is checked before anything starts, and nothing changes afterwards. The sections stand in the files beside this one,
by subject. `sources.py` reads them from a file, the environment and the command line; `deploy/gateway.toml` is printed from these
models and a test holds the two equal.
"""

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from gateway.config.calls import LONGEST_USER_TOKEN_S, AuthConfig, CallsConfig, WebhooksConfig
from gateway.config.listeners import HttpConfig, RtmpConfig, SourceConfig, SrtConfig, WebrtcConfig, WhipConfig
from gateway.config.media import HlsConfig, LiveEdgeConfig, SlateConfig, TranscodeConfig
from gateway.config.operations import CapacityConfig, DatabaseConfig, LogConfig, ShutdownConfig, StateConfig, TracingConfig
from gateway.config.quotas import QuotasConfig
from gateway.config.values import CALL_ID, USER_ID, CallId

PREFIX = "GATEWAY_"

__all__ = [
    "CALL_ID",
    "LONGEST_USER_TOKEN_S",
    "PREFIX",
    "USER_ID",
    "AuthConfig",
    "CallId",
    "CallsConfig",
    "CapacityConfig",
    "Config",
    "DatabaseConfig",
    "HlsConfig",
    "HttpConfig",
    "LiveEdgeConfig",
    "LogConfig",
    "QuotasConfig",
    "RtmpConfig",
    "ShutdownConfig",
    "SlateConfig",
    "SourceConfig",
    "SrtConfig",
    "StateConfig",
    "TracingConfig",
    "TranscodeConfig",
    "WebhooksConfig",
    "WebrtcConfig",
    "WhipConfig",
]


class Config(BaseSettings):
    """The whole configuration. `Config()` is the defaults alone; `load` reads the other sources."""

    # A list is not JSON here, see `values.items`; hence decoding is ours.
    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        enable_decoding=False,
        hide_input_in_errors=True,
    )

    http: HttpConfig = HttpConfig()
    rtmp: RtmpConfig = RtmpConfig()
    srt: SrtConfig = SrtConfig()
    whip: WhipConfig = WhipConfig()
    webrtc: WebrtcConfig = WebrtcConfig()
    auth: AuthConfig = AuthConfig()
    calls: CallsConfig = CallsConfig()
    quotas: QuotasConfig = QuotasConfig()
    webhooks: WebhooksConfig = WebhooksConfig()
    transcode: TranscodeConfig = TranscodeConfig()
    hls: HlsConfig = HlsConfig()
    live_edge: LiveEdgeConfig = LiveEdgeConfig()
    slate: SlateConfig = SlateConfig()
    capacity: CapacityConfig = CapacityConfig()
    shutdown: ShutdownConfig = ShutdownConfig()
    tracing: TracingConfig = TracingConfig()
    log: LogConfig = LogConfig()
    state: StateConfig = StateConfig()
    database: DatabaseConfig = DatabaseConfig()

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
