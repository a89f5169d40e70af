"""Every way in of a running gateway, asked by each kind of caller in each state of a call: the answers are those of the committed table.

What the table must say whatever it says in detail is checked by itself: a table that is written anew can be wrong.
"""

from collections.abc import Callable, Iterator

import pytest

from gateway.api.routes import ROUTES
from tests.support.rights import ANY, KEYS, SERVERS, STATES, TABLE, WHO, Rights, as_text, walking

LET_IN = "+"
WATCHES = frozenset(
    {
        *("get_or_create_call", "get_call", "create_watch_token", "query_members", "send_reaction", "send_event"),
        *("list_streams_of_call", "get_stream", "whep", "hls", "subscribe"),
    }
)
NARROWED = frozenset({"n-server", "n-admin", "x-server", "key", "watcher", *KEYS})


def table() -> Rights:
    lines = TABLE.read_text().split("\n\n")[1].splitlines()
    found = {}
    for line in lines[1:]:
        name, _, rest = line.partition("  ")
        state, *cells = rest.split()
        found[name.strip(), state] = dict(zip(WHO, cells, strict=True))
    return found


async def test_the_gateway_answers_as_the_table_says() -> None:
    async with walking() as walk:
        found = await walk.rights()
    assert as_text(found).splitlines() == TABLE.read_text().splitlines(), "write it with: python -m tests.support.rights"


def test_the_table_has_every_route_caller_and_state() -> None:
    rows = table().keys()
    assert {name for name, _ in rows} >= {route.name for route in ROUTES}
    for route in ROUTES:
        assert {state for name, state in rows if name == route.name} == (set(STATES) if "{id}" in route.path else {ANY})


def narrowed_to_other_calls(name: str, state: str, who: str) -> bool:
    return who == "x-server"


def narrowed_to_calls_where_it_is_about_all(name: str, state: str, who: str) -> bool:
    return state == ANY and who in NARROWED


def blocked(name: str, state: str, who: str) -> bool:
    return who in ("blocked", "b-key") and state not in ("none", ANY)


def strangers(name: str, state: str, who: str) -> bool:
    return who in ("anonymous", "no one")


def key_for_anything_but_publishing(name: str, state: str, who: str) -> bool:
    return who in KEYS and name != "whip"


def publishing_without_the_right_to(name: str, state: str, who: str) -> bool:
    return name == "whip" and who in ("user", "watcher", "removed", "r-key", "demoted", "d-key", *SERVERS)


def publishing_where_there_is_nothing_to_publish_into(name: str, state: str, who: str) -> bool:
    return name == "whip" and state in ("ended", "none")


def watcher_doing_more(name: str, state: str, who: str) -> bool:
    return who == "watcher" and name not in WATCHES


def removed_in_backstage(name: str, state: str, who: str) -> bool:
    reading = ("get_call", "get_or_create_call", "subscribe")  # its state and start
    return state == "backstage" and who in ("removed", "demoted", "user") and name not in reading


Rule = Callable[[str, str, str], bool]
NEVER: tuple[Rule, ...] = (
    narrowed_to_other_calls,
    narrowed_to_calls_where_it_is_about_all,
    blocked,
    strangers,
    key_for_anything_but_publishing,
    publishing_without_the_right_to,
    publishing_where_there_is_nothing_to_publish_into,
    watcher_doing_more,
    removed_in_backstage,
)


def let_in(rule: Rule) -> Iterator[str]:
    for (name, state), cells in table().items():
        for who, cell in cells.items():
            if rule(name, state, who) and cell == LET_IN:
                yield f"{who}: {name} in {state}"


@pytest.mark.parametrize("rule", NEVER)
def test_whatever_else_it_says_these_are_never_let_in(rule: Rule) -> None:
    assert any(rule(name, state, who) for name, state in table() for who in WHO), "it is about nobody"
    assert list(let_in(rule)) == []


def test_whose_right_it_is_is_let_in() -> None:
    rights = table()
    for state in ("backstage", "live"):
        assert {who for who, cell in rights["whip", state].items() if cell == LET_IN} == {"admin", "host", "n-admin", "key"}
    assert {who for who, cell in rights["whep", "live"].items() if cell == LET_IN} >= {"user", "removed", "demoted", "watcher"}
    assert all(cells["server"] != "403" for (name, _), cells in rights.items() if name in ("go_live", "upsert_users", "drain"))
