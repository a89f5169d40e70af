"""The configuration: every key with its default, its unit in its name, its bounds and one sentence of what it does.

Kept true: every value is checked before anything starts, and nothing changes afterwards. The sections stand in the files beside this one,
by subject. `sources.py` reads them from a file, the environment and the command line; `deploy/gateway.toml` is printed from these
models and a test holds the two equal.
"""

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from gateway.config.calls import Auth, Calls, Webhooks
from gateway.config.listeners import Http, Rtmp, Source, Srt, Webrtc, Whip
from gateway.config.media import Hls, LiveEdge, Transcode
from gateway.config.operations import Capacity, Database, Log, Shutdown, State, Tracing
from gateway.config.values import CALL_ID, USER_ID, CallId

PREFIX = "GATEWAY_"

__all__ = [
    "CALL_ID",
    "PREFIX",
    "USER_ID",
    "Auth",
    "CallId",
    "Calls",
    "Capacity",
    "Config",
    "Database",
    "Hls",
    "Http",
    "LiveEdge",
    "Log",
    "Rtmp",
    "Shutdown",
    "Source",
    "Srt",
    "State",
    "Tracing",
    "Transcode",
    "Webhooks",
    "Webrtc",
    "Whip",
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
