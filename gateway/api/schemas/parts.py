"""What requests and answers are made of: names, bounded values, and the base of all."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, get_args

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from gateway.config.values import CALL_NAME, CALL_TYPE, USER_ID
from gateway.model.records import MAX_CUSTOM_BYTES, MAX_IMAGE, MAX_NAME

TYPE_PATTERN: Final = f"^{CALL_TYPE}$"
CALL_PATTERN: Final = f"^{CALL_NAME}$"
USER_PATTERN: Final = f"^{USER_ID}$"
KEY_PATTERN: Final = r"^[A-Za-z0-9_-]{1,32}$"
_EARLIEST: Final = datetime(1970, 1, 2, tzinfo=UTC)
_LATEST: Final = datetime(9999, 12, 30, tzinfo=UTC)
_MAX_DEPTH: Final = 16


def _moment(value: datetime) -> datetime:
    if not _EARLIEST <= value <= _LATEST:
        raise ValueError("a time between 1970 and 9999")
    return value.astimezone(UTC)


def _custom(value: dict[str, Any]) -> dict[str, Any]:
    try:
        text = json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        raise ValueError("only JSON: no NaN, no infinity, not nested too deeply") from None
    if "\\u0000" in text:
        raise ValueError("texts without the character U+0000")
    if len(text) > MAX_CUSTOM_BYTES:
        raise ValueError(f"at most {MAX_CUSTOM_BYTES} bytes as JSON")
    if depth(value) > _MAX_DEPTH:
        raise ValueError(f"nested at most {_MAX_DEPTH} deep")
    return value


def depth(value: object, above: int = 0) -> int:
    """How deep lists and objects are nested; it stops looking soon after `_MAX_DEPTH`."""
    if above > _MAX_DEPTH or not isinstance(value, dict | list):
        return above
    inside = value.values() if isinstance(value, dict) else value
    return max((depth(each, above + 1) for each in inside), default=above + 1)


TypeName = Annotated[str, Field(pattern=TYPE_PATTERN, description="Name of a call type.")]
CallName = Annotated[str, Field(pattern=CALL_PATTERN, description="Name of a call within its type.")]
UserId = Annotated[str, Field(pattern=USER_PATTERN, description="Id of a user.")]
RoleName = Annotated[str, Field(pattern=TYPE_PATTERN, description="Name of a role.")]
Text = Annotated[str, Field(max_length=MAX_NAME, pattern=r"^[^\x00-\x1f\x7f]*$")]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_:.+-]{1,64}$", description="A word of the application, such as like.")]
Emoji = Annotated[Text, Field(max_length=32, description="What to show for it, a character or a name.")]
Link = Annotated[
    str, Field(max_length=MAX_IMAGE, pattern=r"^(https://[^\s\x00-\x1f\x7f]+)?$", description="An https:// address, or empty.")
]
Moment = Annotated[AwareDatetime, AfterValidator(_moment), Field(description="A time with its zone (RFC 3339).")]
Custom = Annotated[
    dict[str, Any],
    AfterValidator(_custom),
    Field(description=f"Anything that is JSON, at most {MAX_CUSTOM_BYTES} bytes, nested at most {_MAX_DEPTH} deep."),
]


class Model(BaseModel):
    """Everything is what it says: no text is taken for a number."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Request(Model):
    """What a client sends."""


class FieldError(Model):
    """One thing that is wrong with a request."""

    field: str = Field(description="The field, as a path with dots; empty: the request as a whole.")
    message: str = Field(description="What is allowed.")


def known_fields(model: type[BaseModel], path: Sequence[str | int]) -> tuple[str, ...]:
    """The fields of what stands at `path` in a model, as pydantic gives it (`loc`)."""
    for step in path:
        if isinstance(step, str):
            inside = list(_models(model.model_fields[step].annotation)) if step in model.model_fields else []
            if not inside:
                return ()
            model = inside[0]
    return tuple(model.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
