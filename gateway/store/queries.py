"""Filters, sort orders and pages of lists, as SQL. A page is found by the last row before it, so that a list that changes meanwhile skips
and repeats nothing; the cursor holds that row's values, and nobody but this file reads it.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, assert_never

from sqlalchemy import ColumnElement, Table, and_, false, func, literal, or_, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.model.records import MAX_CONDITIONS, MAX_CURSOR, MAX_PAGE, AllOf, AnyOf, Condition, Filter, Page, Sort
from gateway.store.models import CALLS, MEMBERS, USERS, Moment
from protocols.errors import Reason, Rejected

_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)

CALL_FIELDS: Final[Mapping[str, ColumnElement[Any]]] = {
    **{name: CALLS.c[name] for name in ("cid", "type", "id", "backstage", "created_at", "updated_at", "starts_at", "ended_at")},
    **{name: CALLS.c[name] for name in ("live_started_at", "live_ended_at", "broadcasting")},
    "created_by_user_id": CALLS.c.created_by_id,
    "live": and_(CALLS.c.ended_at.is_(None), CALLS.c.backstage.is_(False), CALLS.c.live_started_at.is_not(None)),
    "members": MEMBERS.c.user_id,  # user ids; `eq` and `in` only
}
CALL_SORTS: Final = ("created_at", "updated_at", "starts_at", "live_started_at", "ended_at", "type", "id", "cid")
USER_FIELDS: Final[Mapping[str, ColumnElement[Any]]] = {
    name: USERS.c[name] for name in ("id", "role", "name", "created_at", "updated_at")
}
USER_SORTS: Final = ("created_at", "updated_at", "name", "id")
MEMBER_FIELDS: Final[Mapping[str, ColumnElement[Any]]] = {
    name: MEMBERS.c[name] for name in ("user_id", "role", "created_at", "updated_at")
}
MEMBER_SORTS: Final = ("created_at", "updated_at", "user_id", "role")


_OPERATORS: Final[Mapping[str, Callable[[ColumnElement[Any], Any], ColumnElement[bool]]]] = {
    "eq": lambda column, value: column.is_(None) if value is None else column == value,
    "in": lambda column, values: column.in_(values),
    "gt": lambda column, value: column > value,
    "gte": lambda column, value: column >= value,
    "lt": lambda column, value: column < value,
    "lte": lambda column, value: column <= value,
    "exists": lambda column, there: column.is_not(None) if there else column.is_(None),
}


@dataclass(frozen=True, slots=True)
class Listing:
    """A list that can be queried: its table, what may be filtered and sorted by, and the column that tells its rows apart."""

    table: Table
    fields: Mapping[str, ColumnElement[Any]]
    sorts: Sequence[str]
    key: str


CALL_LISTING: Final = Listing(CALLS, CALL_FIELDS, CALL_SORTS, "cid")
USER_LISTING: Final = Listing(USERS, USER_FIELDS, USER_SORTS, "id")
MEMBER_LISTING: Final = Listing(MEMBERS, MEMBER_FIELDS, MEMBER_SORTS, "user_id")


def where(listing: Listing, wanted: Filter) -> ColumnElement[bool]:
    """Raises `Rejected` (BAD_REQUEST) for a field that is none or a value of another type than its."""
    if _count(wanted) > MAX_CONDITIONS:
        raise _bad(f"the filter has more than {MAX_CONDITIONS} conditions")
    return _where(listing, wanted)


async def page(
    connection: AsyncConnection,
    listing: Listing,
    wanted: ColumnElement[bool],
    sort: Sequence[Sort],
    limit: int,
    cursor: str | None,
) -> Page[Any]:
    """One page of rows. Raises `Rejected` (BAD_REQUEST) for a sort or cursor that is none."""
    order = [*sort, *(() if any(each.field == listing.key for each in sort) else (Sort(listing.key),))]
    if unknown := [each.field for each in order if each.field not in listing.sorts]:
        raise _bad(f"cannot sort by {unknown[0]}: choose from {', '.join(listing.sorts)}")
    columns = [_sortable(listing, each.field) for each in order]
    backwards, position = _position(cursor, order)
    query = select(listing.table).where(wanted)
    if position is not None:
        query = query.where(_after(columns, order, position, backwards))
    query = query.order_by(
        *(c.desc() if each.descending != backwards else c.asc() for c, each in zip(columns, order, strict=True))
    )
    limit = max(1, min(limit, MAX_PAGE))
    rows = list((await connection.execute(query.limit(limit + 1))).all())
    more, rows = len(rows) > limit, rows[:limit]
    if backwards:
        rows.reverse()
    if not rows:
        return Page(())
    has_next, has_previous = (True, more) if backwards else (more, position is not None)
    after = tuple(_cursor(row, order, backwards=False) for row in rows)
    return Page(
        tuple(rows),
        next=after[-1] if has_next else None,
        previous=_cursor(rows[0], order, backwards=True) if has_previous else None,
        after=after,
    )


def _where(listing: Listing, wanted: Filter) -> ColumnElement[bool]:
    match wanted:
        case AllOf(parts):
            return and_(true(), *(_where(listing, part) for part in parts))
        case AnyOf(parts):
            return or_(false(), *(_where(listing, part) for part in parts))
        case Condition():
            return _condition(listing, wanted)
        case _:
            assert_never(wanted)


def _condition(listing: Listing, wanted: Condition) -> ColumnElement[bool]:
    column = listing.fields.get(wanted.field)
    if column is None:
        raise _bad(f"cannot filter by {wanted.field}: choose from {', '.join(listing.fields)}")
    for value in wanted.value if wanted.op == "in" else (wanted.value,):
        _check_type(wanted, column, value)
    if wanted.field == "members":
        if wanted.op not in ("eq", "in"):
            raise _bad("members can be filtered with $eq and $in")
        ids = wanted.value if wanted.op == "in" else (wanted.value,)
        return CALLS.c.cid.in_(select(MEMBERS.c.call_cid).where(MEMBERS.c.user_id.in_(ids)))
    return _OPERATORS[wanted.op](column, wanted.value)


def _check_type(wanted: Condition, column: ColumnElement[Any], value: object) -> None:
    kind = column.type
    expected = bool if wanted.op == "exists" else datetime if isinstance(kind, Moment) else kind.python_type
    if value is None and wanted.op == "eq":
        return
    if type(value) is not expected:
        words = {bool: "true or false", datetime: "a time (RFC 3339)", str: "a text"}
        raise _bad(f"{wanted.field} ${wanted.op} takes {words.get(expected, expected.__name__)}")


def _count(wanted: Filter) -> int:
    return 1 if isinstance(wanted, Condition) else 1 + sum(map(_count, wanted.parts))


def _sortable(listing: Listing, field: str) -> ColumnElement[Any]:
    """What is not set sorts as long ago: with NULL the databases disagree, and no row compares with it."""
    column = listing.table.c[field]
    return func.coalesce(column, literal(_LONG_AGO, column.type)) if column.nullable else column


def _after(
    columns: Sequence[ColumnElement[Any]], order: Sequence[Sort], position: Sequence[Any], backwards: bool
) -> ColumnElement[bool]:
    """(a, b, c) beyond (x, y, z), each in its own direction."""
    beyond: ColumnElement[bool] = false()
    for column, each, value in reversed(list(zip(columns, order, position, strict=True))):
        past = column < value if each.descending != backwards else column > value
        beyond = or_(past, and_(column == value, beyond))
    return beyond


def _cursor(row: Any, order: Sequence[Sort], *, backwards: bool) -> str:
    values = [getattr(row, each.field) for each in order]
    plain = [["t", (v or _LONG_AGO).isoformat()] if isinstance(v, datetime) or v is None else ["s", v] for v in values]
    text = json.dumps([backwards, [f"{'-' if each.descending else ''}{each.field}" for each in order], plain])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _position(cursor: str | None, order: Sequence[Sort]) -> tuple[bool, list[Any] | None]:
    if cursor is None:
        return False, None
    try:
        if len(cursor) > MAX_CURSOR:
            raise ValueError
        backwards, fields, plain = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        values: list[Any] = [datetime.fromisoformat(value) if kind == "t" else str(value) for kind, value in plain]
        if any(isinstance(value, datetime) and value.tzinfo is None for value in values):
            raise ValueError
        same = fields == [f"{'-' if each.descending else ''}{each.field}" for each in order] and len(values) == len(order)
        kinds = all(
            isinstance(value, datetime) == each.field.endswith("_at") for value, each in zip(values, order, strict=False)
        )
    except (ValueError, TypeError, RecursionError):
        raise _bad("the cursor is none of ours: begin without one") from None
    if not same or not kinds or not isinstance(backwards, bool):
        raise _bad("the cursor belongs to another sort order: begin without one")
    return backwards, values


def _bad(words: str) -> Rejected:
    return Rejected(Reason.BAD_REQUEST, words)
