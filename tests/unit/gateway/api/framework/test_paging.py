"""How much of a list one answer shows."""

import pytest
from pydantic import BaseModel

from gateway.api.framework.paging import MAX_ANSWER, fitting


class Item(BaseModel):
    text: str


@pytest.mark.parametrize("letter", ["a", "é", "話"])
def test_an_answer_has_as_many_bytes_at_most_whatever_the_letters(letter: str) -> None:
    items = [Item(text=letter * 1000)] * 1000
    shown = list(fitting(items))
    size = len(items[0].model_dump_json().encode())
    assert len(shown) == MAX_ANSWER // size


def test_one_item_is_shown_however_large_and_what_is_too_much_is_not_made() -> None:
    made = iter([Item(text="a" * MAX_ANSWER), Item(text=""), Item(text="last")])
    assert len(list(fitting(made))) == 1
    assert [each.text for each in made] == ["last"]
