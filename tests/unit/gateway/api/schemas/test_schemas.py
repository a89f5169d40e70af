"""Requests are taken as they are meant or refused in words that say what to change."""

import json
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from gateway.api.framework.errors import ApiError
from gateway.api.schemas import requests
from gateway.model.records import MAX_PARTICIPANTS, Settings, merged

SEED = """{
    "data": {
      "created_by_id": "john",
      "members": [
        { "role": "host", "user_id": "john" }
      ]
    }
  }"""

LARGE = json.dumps({"data": {"custom": {"a": "x" * 5000}}})
DEEP = '{"data": {"custom": ' + '{"a":' * 20 + "1" + "}" * 22


def test_the_body_of_the_seed_is_understood() -> None:
    data = requests.GetOrCreateCallRequest.model_validate_json(SEED).data
    assert data.created_by_id == "john"
    assert [(each.user_id, each.role) for each in data.members] == [("john", "host")]


@pytest.mark.parametrize(
    ("model", "body", "field", "words"),
    [
        (requests.GetOrCreateCallRequest, '{"date": {}}', "", "did you mean data?"),
        (requests.GetOrCreateCallRequest, '{"data": {"created_by": "john"}}', "data.created_by", "an object"),
        (requests.GetOrCreateCallRequest, '{"data": {"member": []}}', "data", "did you mean members?"),
        (requests.GetOrCreateCallRequest, '{"data": {"starts_at": "2026-01-01T00:00:00"}}', "data.starts_at", "with its zone"),
        (requests.GetOrCreateCallRequest, '{"data": {"starts_at": 1}}', "data.starts_at", "with its zone"),
        (requests.GetOrCreateCallRequest, '{"data": {"custom": {"a": NaN}}}', "data.custom", "no NaN"),
        (requests.GetOrCreateCallRequest, '{"data": {"custom": {"a": "\\u0000"}}}', "data.custom", "U+0000"),
        (requests.GetOrCreateCallRequest, LARGE, "data.custom", "5000 bytes"),
        (requests.GetOrCreateCallRequest, DEEP, "data.custom", "16 deep"),
        (requests.GetOrCreateCallRequest, '{"data": {"created_by_id": "jo hn"}}', "data.created_by_id", "match pattern"),
        (requests.GetOrCreateCallRequest, '{"members_limit": "5"}', "members_limit", "integer"),
        (requests.GetOrCreateCallRequest, '{"members_limit": 101}', "members_limit", "100"),
        (requests.GetOrCreateCallRequest, "{", "", "invalid JSON"),
        (requests.GetOrCreateCallRequest, "[]", "", "an object"),
        (requests.UpdateMembersRequest, '{"update_members": [{"user_id": "a"}, {"user_id": "a"}]}', "update_members", "once"),
        (requests.CreateCallTypeRequest, '{"name": "x", "grants": {"host": ["go-liv"]}}', "grants.host.0", "'go-live'"),
        (requests.UpsertUsersRequest, '{"users": []}', "users", "at least 1"),
        (requests.UpsertUsersRequest, '{"users": [{"id": "a", "image": "javascript:alert(1)"}]}', "users.0.image", "pattern"),
        (requests.EmptyRequest, '{"a": 1}', "", "none is taken here"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(model: type[BaseModel], body: str, field: str, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate_json(body)
    error = ApiError.invalid(caught.value, model)
    assert error.status == 400
    assert error.details[0].field == field
    assert words in error.details[0].message
    assert words in error.message


def test_nothing_of_a_value_that_may_be_a_secret_is_repeated() -> None:
    with pytest.raises(ValidationError) as caught:
        requests.UserOfCallRequest.model_validate_json('{"user_id": "a secret with spaces"}')
    error = ApiError.invalid(caught.value, requests.UserOfCallRequest)
    assert "secret" not in error.message + str(error.details)


def test_settings_that_can_be_asked_for_are_those_that_there_are() -> None:
    def names(model: type[BaseModel], record: Any) -> None:
        assert set(model.model_fields) == {each.name for each in fields(record)}
        for each in fields(record):
            default = model.model_fields[each.name].default
            value = getattr(record, each.name)
            if is_dataclass(value):
                names(type(default), value)
            else:
                assert default == value, f"{model.__name__}.{each.name}"

    names(requests.SettingsRequest, Settings())


def test_only_the_settings_that_were_given_are_stored() -> None:
    body = requests.UpdateCallRequest.model_validate_json('{"settings_override": {"backstage": {"enabled": true}}}')
    assert body.model_dump(exclude_unset=True) == {"settings_override": {"backstage": {"enabled": True}}}


def test_a_call_can_be_set_to_as_many_participants_as_it_can_have_and_no_more() -> None:
    body = '{"settings_override": {"limits": {"max_participants": %d}}}'
    asked = requests.UpdateCallRequest.model_validate_json(body % MAX_PARTICIPANTS)
    assert merged(Settings(), asked.model_dump(exclude_unset=True)["settings_override"]).limits.participants == MAX_PARTICIPANTS
    with pytest.raises(ValidationError, match=str(MAX_PARTICIPANTS)):
        requests.UpdateCallRequest.model_validate_json(body % (MAX_PARTICIPANTS + 1))
    written_before = merged(Settings(), {"limits": {"max_participants": 1000}}, strict=False)
    assert written_before.limits.participants == Settings().limits.participants == MAX_PARTICIPANTS
