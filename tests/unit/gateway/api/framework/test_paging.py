"""How much of a list one answer shows."""

import pytest
from pydantic import BaseModel

from gateway.api.framework.paging import MAX_ANSWER, fitting, page


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


def test_pages_of_a_list_in_memory_show_each_item_once_in_the_order_of_keys() -> None:
    keyed = {f"{number:03}": Item(text="a" * (MAX_ANSWER // 10)) for number in reversed(range(95))}
    seen, cursor, pages = list[str](), None, 0
    while pages == 0 or cursor is not None:
        shown, cursor = page(keyed, lambda item: item, cursor)
        seen += shown
        pages += 1
    assert seen == sorted(keyed)
    assert pages == 11, "nine and not ten, since there is more to an item than its text"


def test_a_list_that_fits_has_one_page_and_so_has_an_empty_one() -> None:
    assert page({"a": Item(text="")}, lambda item: item, None) == ({"a": Item(text="")}, None)
    assert page(dict[str, Item](), lambda item: item, None) == ({}, None)
