"""Errors of the API: one JSON form, `{code, message, status, more_info, details}`, in words that say what to change.

There is one code for each status. `more_info` names the section of the API's page; `details` says which fields are wrong, each with what is
allowed. No message repeats a secret or more than a short piece of what was sent.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from aiohttp import web
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.api.schemas.parts import FieldError, known_fields
from protocols.errors import Rejected

_PAGE: Final = "docs/api.md#"
_MAX_DETAILS: Final = 20
_RETRY_AFTER_S: Final = 2


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """What all errors of one status share: their code, and the section of docs/api.md that says more."""

    code: str
    anchor: str = "errors"


KINDS: Final[Mapping[int, ErrorKind]] = MappingProxyType(
    {
        400: ErrorKind("invalid_request"),
        401: ErrorKind("unauthenticated", "tokens"),
        403: ErrorKind("not_allowed", "roles"),
        404: ErrorKind("not_found"),
        405: ErrorKind("method_not_allowed"),
        408: ErrorKind("too_slow"),
        409: ErrorKind("conflict"),
        413: ErrorKind("too_large"),
        415: ErrorKind("unsupported_media_type"),
        429: ErrorKind("too_many_requests", "tokens"),
        500: ErrorKind("internal_error"),
        503: ErrorKind("unavailable"),
    }
)


_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    dict.fromkeys(
        ("datetime_type", "datetime_parsing", "datetime_from_date_parsing", "timezone_aware"),
        "a time with its zone, such as 2026-01-01T00:00:00Z",
    )
)
"""Where pydantic's own words do not say what to write."""


class ApiError(Exception):
    """A refusal of the API: `status` is one of `KINDS`."""

    def __init__(
        self, status: int, message: str, details: Sequence[FieldError] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = tuple(details)
        self.headers = headers or {}

    @classmethod
    def of(cls, refusal: Rejected) -> "ApiError":
        """The same refusal for a client of the API."""
        return cls(refusal.reason.status, refusal.detail)

    @classmethod
    def invalid(cls, error: ValidationError, model: type[BaseModel] | None = None) -> "ApiError":
        """What is wrong with a request of this model: the first fields, each with what is allowed. Without it no known fields are named."""
        found = error.errors(include_url=False, include_input=False, include_context=False)[:_MAX_DETAILS]
        faults = [_fault(each, model) for each in found]  # each is compared with all names that are known
        first = faults[0]
        message = f"{first.field}: {first.message}" if first.field else first.message
        return cls(400, message, faults)


def answer(error: ApiError) -> web.Response:
    """The HTTP response."""
    kind = KINDS[error.status]
    form = {
        "code": kind.code,
        "message": error.message,
        "status": error.status,
        "more_info": f"{_PAGE}{kind.anchor}",
        "details": [each.model_dump() for each in error.details],
    }
    response = web.Response(
        text=json.dumps(form), status=error.status, content_type="application/json", headers={"Cache-Control": "no-store"}
    )
    response.headers.update(error.headers)
    if error.status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    if error.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        response.headers.setdefault("Retry-After", str(_RETRY_AFTER_S))
    if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        response.force_close()  # the rest of the body is not read
    return response


def _fault(error: ErrorDetails, model: type[BaseModel] | None) -> FieldError:
    path = error["loc"]
    if error["type"] == "extra_forbidden":
        message = _unknown(str(path[-1]), known_fields(model, path[:-1]) if model is not None else None)
        path = path[:-1]
    else:
        message = _WORDS.get(error["type"], error["msg"].removeprefix("Value error, "))
    return FieldError(field=".".join(str(each)[:64] for each in path), message=message[:1].lower() + message[1:])


def _unknown(name: str, known: Sequence[str] | None) -> str:
    if known is None:
        return f"there is no field {name[:64]!r}"
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}" if known else "none is taken here"
    return f"there is no field {name[:64]!r}: {hint}"
