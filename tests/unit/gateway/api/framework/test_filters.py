"""Filters are read as they are meant, and what is no filter is refused in words."""

from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.api.framework.errors import ApiError
from gateway.api.framework.filters import MAX_DEPTH, cursor, parsed, sorting
from gateway.api.schemas.requests import QueryRequest, SortRequest
from gateway.model.records import AllOf, AnyOf, Condition, Filter, Sort

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def nested(depth: int) -> dict[str, Any]:
    return {"$and": [nested(depth - 1)]} if depth else {"type": "livestream"}


def only(call: str) -> Filter:
    return AllOf((Condition("id", "eq", call),))


@pytest.mark.parametrize(
    ("conditions", "meaning"),
    [
        ({}, AllOf(())),
        ({"type": "livestream"}, AllOf((Condition("type", "eq", "livestream"),))),
        ({"ended_at": None}, AllOf((Condition("ended_at", "eq", None),))),
        ({"live": True, "id": {"$in": ["a", "b"]}}, AllOf((Condition("live", "eq", True), Condition("id", "in", ("a", "b"))))),
        (
            {"starts_at": {"$gt": "2026-01-01T01:00:00+01:00", "$exists": True}},
            AllOf((Condition("starts_at", "gt", NEW_YEAR), Condition("starts_at", "exists", True))),
        ),
        ({"$or": [{"id": "a"}, {"id": "b"}]}, AllOf((AnyOf((only("a"), only("b"))),))),
    ],
)
def test_a_filter_means_what_it_says(conditions: dict[str, Any], meaning: Filter) -> None:
    assert parsed(conditions) == meaning


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ({"$not": []}, "$and or $or"),
        ({"$or": []}, "a list of 1 to 100 objects"),
        ({"$or": {"id": "a"}}, "a list of 1 to 100 objects"),
        ({"id": {"$like": "a"}}, "no operator"),
        ({"id": {"$in": "a"}}, "a list of 1 to 100 values"),
        ({"id": {"$gt": None}}, "takes a value"),
        ({"id": {"$eq": {"a": 1}}}, "a text"),
        ({"id": 5}, "a text"),
        ({"id": "x" * 300}, "256 characters"),
        ({"created_at": "yesterday"}, "a time with its zone"),
        ({"created_at": "2026-01-01T00:00:00"}, "a time with its zone"),
        ({"created_at": "2026-01-01"}, "a time with its zone"),
        ({"created_at": {"$exists": "yes"}}, "true or false"),
        (nested(MAX_DEPTH + 1), "nested at most"),
    ],
)
def test_what_is_no_filter_is_refused(conditions: dict[str, Any], words: str) -> None:
    with pytest.raises(ApiError) as caught:
        parsed(conditions)
    assert caught.value.status == 400
    assert words in caught.value.message


def test_sorting_and_one_direction_at_a_time() -> None:
    assert sorting([SortRequest(field="id"), SortRequest(field="type", direction=-1)]) == (Sort("id"), Sort("type", True))
    assert cursor(QueryRequest(next="abc")) == "abc"
    with pytest.raises(ApiError, match="not both"):
        cursor(QueryRequest(next="abc", prev="def"))
