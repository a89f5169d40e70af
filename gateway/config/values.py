"""What the sections of the configuration share: kinds of values, with their bounds, and how they are written in an environment variable."""

import json
import tomllib
from typing import Annotated, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

T = TypeVar("T")


def items(value: object) -> object:
    """Lists in the environment and on the command line: `a,b`, or as in TOML and JSON `["a", "b"]`."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [item.strip() for item in value.split(",") if item.strip()]


def table(value: object) -> object:
    """Tables in the environment and on the command line: as in TOML, `{ 9001 = "a" }`, or JSON. Raises `ValueError` for neither, with
    words that hold nothing of it."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        pass
    try:
        return tomllib.loads(f"table = {value}")["table"]
    except tomllib.TOMLDecodeError:
        raise ValueError('is no table: write { name = "value" }, with quotes around the whole on a command line') from None


def word(value: object) -> object:
    """A word among which are true and false: TOML has them without quotes."""
    return str(value).lower() if isinstance(value, bool) else value


def long_enough(secret: SecretStr) -> SecretStr:
    if 0 < len(secret.get_secret_value()) < 32:
        raise ValueError("is too short: RFC 7518 §3.2 asks for 32 bytes, e.g. from: openssl rand -hex 32")
    return secret


Port = Annotated[int, Field(ge=0, le=65535)]
CALL_TYPE = r"[A-Za-z0-9_-]{1,64}"
CALL_NAME = r"[A-Za-z0-9_.-]{1,64}"
CALL_ID = f"^{CALL_TYPE}:{CALL_NAME}$"
CallId = Annotated[str, Field(pattern=CALL_ID)]
USER_ID = r"[A-Za-z0-9@_.-]{1,64}"
Origin = Annotated[str, Field(pattern=r"^(\*|https?://[^/\s]+)$")]
Items = Annotated[tuple[T, ...], BeforeValidator(items)]
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
