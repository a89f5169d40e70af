"""`filter_conditions` and `sort` as the store takes them. Which fields there are, and of what type, the store says."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Literal

from pydantic import AwareDatetime, TypeAdapter, ValidationError

from gateway.api.framework.errors import ApiError
from gateway.api.schemas.parts import FieldError
from gateway.api.schemas.requests import QueryRequest, SortRequest
from gateway.model.records import AllOf, AnyOf, Condition, Filter, Sort

MAX_DEPTH: Final = 5
MAX_IN: Final = 100
MAX_TEXT: Final = 256
_Op = Literal["eq", "in", "gt", "gte", "lt", "lte", "exists"]
_OPERATORS: Final[Mapping[str, _Op]] = MappingProxyType(
    {"$eq": "eq", "$in": "in", "$gt": "gt", "$gte": "gte", "$lt": "lt", "$lte": "lte", "$exists": "exists"}
)
_GROUPS: Final[Mapping[str, type[AllOf] | type[AnyOf]]] = MappingProxyType({"$and": AllOf, "$or": AnyOf})
NEWEST_FIRST: Final = (Sort("created_at", descending=True),)
OLDEST_FIRST: Final = (Sort("created_at"),)
_TIME: Final = TypeAdapter(AwareDatetime)


def parsed(conditions: Mapping[str, Any], depth: int = 0) -> Filter:
    """Raises `ApiError` for what is no filter."""
    if depth > MAX_DEPTH:
        raise _wrong("filter_conditions", f"nested at most {MAX_DEPTH} deep")
    parts: list[Filter] = []
    for name, value in conditions.items():
        if (group := _GROUPS.get(name)) is not None:
            parts.append(group(tuple(parsed(each, depth + 1) for each in _objects(name, value))))
        elif name.startswith("$"):
            raise _wrong("filter_conditions", f"{name[:32]} is not known here: write a field, $and or $or")
        elif isinstance(value, dict):
            parts += [_condition(name, operator, each) for operator, each in value.items()]
        else:
            parts.append(_condition(name, "$eq", value))
    return AllOf(tuple(parts))


def sorting(wanted: Sequence[SortRequest]) -> tuple[Sort, ...]:
    return tuple(Sort(each.field, descending=each.direction == -1) for each in wanted)


def cursor(query: QueryRequest) -> str | None:
    """Raises `ApiError` when both directions are asked for."""
    if query.next is not None and query.prev is not None:
        raise _wrong("next", "give next or prev, not both")
    return query.next or query.prev


def _objects(name: str, value: Any) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value) or not 0 < len(value) <= MAX_IN:
        raise _wrong(f"filter_conditions.{name}", f"a list of 1 to {MAX_IN} objects")
    return value


def _condition(field: str, operator: str, value: Any) -> Condition:
    where = f"filter_conditions.{field[:64]}"
    op = _OPERATORS.get(operator)
    if op is None:
        raise _wrong(where, f"{operator[:32]} is no operator: known are {', '.join(_OPERATORS)}")
    if op == "in":
        if not isinstance(value, list) or not 0 < len(value) <= MAX_IN:
            raise _wrong(where, f"$in takes a list of 1 to {MAX_IN} values")
        return Condition(field, op, tuple(_value(where, field, each) for each in value))
    if op == "exists":
        if not isinstance(value, bool):
            raise _wrong(where, "$exists takes true or false")
        return Condition(field, op, value)
    if value is None and op != "eq":
        raise _wrong(where, f"{operator} takes a value")
    return Condition(field, op, _value(where, field, value))


def _value(where: str, field: str, value: Any) -> str | bool | datetime | None:
    if isinstance(value, str) and field.endswith("_at"):  # every field that is a time, and no other
        try:
            return _TIME.validate_python(value)
        except ValidationError:
            raise _wrong(where, "a time with its zone, such as 2026-01-01T00:00:00Z") from None
    if isinstance(value, str) and (len(value) > MAX_TEXT or "\0" in value):
        raise _wrong(where, f"a text of at most {MAX_TEXT} characters")
    if value is None or isinstance(value, str | bool):
        return value
    raise _wrong(where, "a text, a time, true, false or null")


def _wrong(field: str, message: str) -> ApiError:
    return ApiError(400, f"{field}: {message}", [FieldError(field=field, message=message)])
