"""What strangers fill stays within its bound, and the newest stay."""

from protocols.bounded_map import BoundedMap


def filled(most: int, keys: str) -> BoundedMap[str, int]:
    bounded: BoundedMap[str, int] = BoundedMap(most)
    for n, key in enumerate(keys):
        bounded[key] = n
    return bounded


def test_a_new_key_pushes_out_the_one_written_longest_ago() -> None:
    assert dict(filled(3, "abcd")) == {"b": 1, "c": 2, "d": 3}
    assert dict(filled(3, "abcad")) == {"c": 2, "a": 3, "d": 4}


def test_reading_makes_no_key_newer() -> None:
    bounded = filled(2, "ab")
    assert (bounded["a"], bounded.get("a")) == (0, 0)
    bounded["c"] = 2
    assert list(bounded) == ["b", "c"]


def test_it_is_full_when_the_next_new_key_pushes_one_out() -> None:
    assert [filled(2, keys).full for keys in ("", "a", "aa", "ab", "abc")] == [False, False, False, True, True]
    bounded = filled(2, "ab")
    bounded.pop("a")
    assert not bounded.full
