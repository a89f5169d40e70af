"""The calls, who may publish into them and watch them, and who is told of it."""

from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from gateway.config.values import CallId, Items, Section, long_enough
from gateway.model.events import EventType
from gateway.model.records import MAX_LINGER_S, MAX_REVERT_S, OnConflict

LONGEST_USER_TOKEN_S: Final = 30 * 86400


def _receiver(url: SecretStr) -> SecretStr:
    parts = urlsplit(url.get_secret_value())
    if url.get_secret_value() and not (parts.scheme in ("http", "https") and parts.hostname):
        raise ValueError("is no address: write https://host/path")
    return url


class AuthConfig(Section):
    """The secret that signs stream keys and watch tokens."""

    secret: Annotated[SecretStr, AfterValidator(long_enough)] = Field(
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
        description="Wrong keys and tokens from one address (IPv6: one /64) before the next wrong ones are told to wait; 0: no limit.",
    )
    max_user_token_s: int = Field(
        default=LONGEST_USER_TOKEN_S,
        ge=60,
        le=10 * 365 * 86400,
        description="How long a token that an application signs for a user may be good for, in seconds.",
    )


class CallsConfig(Section):
    """The calls of this gateway."""

    public: Items[CallId] = Field(
        default=("livestream:demo",),
        description="Calls that there are from the start, live, and that anybody may watch without a token, e.g. livestream:demo.",
    )
    development: bool = Field(
        default=False,
        description="There is the call type development, in whose calls every signed-in user may do everything.",
    )
    create_on_publish: bool = Field(
        default=True,
        description="A stream key made by this gateway's own commands for a call that is not there makes it, in backstage.",
    )
    linger_s: float = Field(
        default=30.0,
        ge=0,
        le=MAX_LINGER_S,
        description="Time that a stream keeps its place in the call after its encoder broke off, in seconds.",
    )
    stop_linger_s: float = Field(
        default=0.0,
        ge=0,
        le=MAX_LINGER_S,
        description="The same after an encoder that was stopped, and has said so, in seconds: nobody is to wait after that.",
    )
    on_conflict: OnConflict = Field(
        default="take_over",
        description="A second encoder comes for a stream that is live: "
        '"take_over": it replaces the first one, but not who has just replaced it; "refuse": it is told that the stream is in use; '
        '"priority": that with the stream key of the better rank replaces the other, and of the same rank it is as with "take_over". Who '
        "has sent nothing for 2 s is replaced either way. Keys of different ranks are primary and backup, and both stay, but for "
        '"priority".',
    )
    return_to_primary: Literal["revert_after", "sticky", "manual"] = Field(
        default="revert_after",
        description="An encoder of a better rank is well again while another stands in for it: "
        '"revert_after": it is live again after revert_after_s; "sticky": once the other one is down; "manual": once somebody switches, or '
        "nobody else is there.",
    )
    revert_after_s: float = Field(
        default=10.0, ge=0, le=MAX_REVERT_S, description="Time that it is well without a pause before that, in seconds."
    )
    max_streams: int = Field(default=200, ge=1, le=10_000, description="Streams at once, all calls and protocols together.")
    max_bitrate_bps: int = Field(
        default=50_000_000,
        ge=0,
        le=1_000_000_000,
        description="Most that an encoder may send for one track over some seconds, in bits per second; 0: no limit. All that comes over "
        "its connection may be two and a half times that, whatever it is.",
    )


class WebhooksConfig(Section):
    """Events told to a server of yours, each by a signed HTTP POST."""

    url: Annotated[SecretStr, AfterValidator(_receiver)] = Field(
        default=SecretStr(""), description="The https:// address of the server; empty: none. http:// only with allow_private."
    )
    secret: Annotated[SecretStr, AfterValidator(long_enough)] = Field(
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
