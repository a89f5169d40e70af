"""What is taken off a key that was pasted with more around it, and what stays."""

import pytest

from protocols.pasted import cleaned, last_part, path_and_query

KEY = "sk7f3kq9w2mxp4a-k2j5x7n4q6w3m5p7r2t4"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJ1c2VyX2lkIjoiaiJ9.c2ln-_"
NAME = "livestream~demo~john@example.org~1795982330"


@pytest.mark.parametrize("key", [KEY, TOKEN, NAME, "a"])
@pytest.mark.parametrize(
    "around",
    [
        "{}",
        " {} ",
        "{}\n",
        "{}\r\n",
        "\t{}",
        '"{}"',
        "'{}'",
        "`{}`",
        "\u201c{}\u201d",
        "\u00ab{}\u00bb",
        "<{}>",
        "\ufeff{}\u200b",
        '\n "{}" ',
    ],
)
@pytest.mark.parametrize("path", ["{}", "/{}", "//{}", "live/{}", "/live//{}/", "a/b/c/{}", "%20{}%0A", "live%2F{}"])
def test_a_key_is_found_whatever_is_around_it(key: str, around: str, path: str) -> None:
    assert last_part(cleaned(around.format(path.format(key)))) == key


@pytest.mark.parametrize("key", [TOKEN, NAME])
def test_percent_signs_that_stand_for_letters_of_a_key_are_read(key: str) -> None:
    encoded = "".join(letter if letter.isalnum() else f"%{ord(letter):02x}" for letter in key)
    assert last_part(encoded) == key


@pytest.mark.parametrize("text", ["", "a b", "caf\u00e9", "live/caf\u00e9", "a/b c%20d", "livestream:demo", "100%"])
def test_what_is_no_key_stays_as_typed(text: str) -> None:
    assert last_part(text) == text


@pytest.mark.parametrize(
    ("text", "path", "query"),
    [
        ("rtmp://host/live/key", "/live/key", ""),
        ("rtmps://user@[::1]:1936/live/key?call=a:b", "/live/key", "call=a:b"),
        ("rtmp://host/live?call=a:b/key", "/live/key", "call=a:b"),
        ("live?x=1&call=a:b//key/", "live/key", "x=1&call=a:b"),
        ("rtmp://host", "", ""),
        ("key?opaque=a/b==", "key", "opaque=a/b=="),
        ("key?call=a/b&c=d/e", "key", "call=a/b&c=d/e"),
    ],
)
def test_path_and_query(text: str, path: str, query: str) -> None:
    assert path_and_query(text) == (path, query)
