"""One event, one line; nobody forges a line, and no secret is in it."""

import io
import json
import logging
from collections.abc import Iterator
from contextvars import copy_context
from typing import Literal

import pytest

from gateway.access.credentials import Secret, Tokens
from gateway.config import LogConfig
from gateway.telemetry.log import SESSION, Repeats, event, setup

KEY = Tokens(Secret(b"k" * 32)).issue("host", ["livestream:demo"], 60)
logger = logging.getLogger("gateway.test")
EVIL = "x\n2026-11-25 CRITICAL forged\x1b[31m\r\t\x00\x7f\x9b\u2028\u202e"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def lines(form: Literal["text", "json"], level: Literal["debug", "info", "warning", "error"] = "info") -> io.StringIO:
    stream = io.StringIO()
    setup(LogConfig(format=form, level=level), stream)
    return stream


def test_text_is_one_line_with_its_fields() -> None:
    stream = lines("text")
    event(logger, logging.INFO, "live", session="k3", protocol="rtmp", software='OBS "32"', delay_ms=1.5, name="né 日本")
    when, rest = stream.getvalue().split(" ", 1)
    assert when.endswith("Z")
    assert rest == 'info gateway.test live session=k3 protocol=rtmp software="OBS \\"32\\"" delay_ms=1.5 name="né 日本"\n'


def test_json_is_one_object_a_line() -> None:
    stream = lines("json")
    event(logger, logging.WARNING, "late", session="k3", frames=7, advice=None, time="forged")
    entry = json.loads(stream.getvalue())
    assert next(iter(entry)) == "time"
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "level": "warning",
        "logger": "gateway.test",
        "message": "late",
        "session": "k3",
        "frames": 7,
    }


def test_every_line_in_a_sessions_task_has_its_id_and_that_of_a_later_connection_beside_it() -> None:
    stream = lines("json")

    def within() -> None:
        SESSION.set("k3")
        logger.warning("of a library")
        event(logger, logging.INFO, "of the session", session="k3")
        event(logger, logging.INFO, "of an encoder that came back", session="k9")

    copy_context().run(within)
    event(logger, logging.INFO, "of nobody")
    ids = [(entry.get("session"), entry.get("publisher")) for entry in map(json.loads, stream.getvalue().splitlines())]
    assert ids == [("k3", None), ("k3", None), ("k3", "k9"), (None, None)]


def test_fields_given_as_plain_extra_are_shown_too() -> None:
    stream = lines("json")
    logger.error("request failed", extra={"route": "whep"})
    assert json.loads(stream.getvalue())["route"] == "whep"


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_peer_cannot_forge_a_line_or_colour_a_terminal(form: Literal["text", "json"]) -> None:
    stream = lines(form)
    event(logger, logging.INFO, f"refused {EVIL}", software=EVIL)
    try:
        raise ValueError(EVIL)
    except ValueError:
        logger.exception("failed")
    written = stream.getvalue()
    assert written.count("\n") == 2
    assert all(character.isprintable() for character in written.replace("\n", ""))
    if form == "json":
        assert json.loads(written.splitlines()[0])["software"] == EVIL


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    "text",
    [
        KEY,
        f"publish {KEY}?x=1",
        f"rtmp://host/live/{KEY}",
        f"cut off {KEY[: len(KEY) // 2]}",
        f"token={KEY[10:]}",
        f"Authorization: Bearer {KEY[10:]}",
        f"password = {KEY[10:]}",
    ],
)
def test_a_secret_is_never_written(form: Literal["text", "json"], text: str) -> None:
    stream = lines(form)
    event(logger, logging.INFO, text, detail=text)
    logger.info("formatted %s", text)
    try:
        raise ValueError(text)
    except ValueError:
        logger.exception("failed")
    written = stream.getvalue()
    assert "***" in written
    for start in range(0, len(KEY) - 16, 16):
        assert KEY[start : start + 16] not in written


def test_a_line_is_bounded() -> None:
    stream = lines("text")
    event(logger, logging.INFO, "a" * 100_000)
    assert len(stream.getvalue()) < 9_000


def test_the_level_is_kept_and_chatty_libraries_are_quieter() -> None:
    stream = lines("text")
    logger.debug("hidden")
    logging.getLogger("aiosqlite.core").info("hidden")
    logger.info("shown")
    logging.getLogger("aiosqlite.core").warning("shown too")
    assert [line.rsplit(" ", 1)[-1] for line in stream.getvalue().splitlines()] == ["shown", "too"]


def test_the_same_line_is_written_once_a_second_and_says_how_many_were_left_out() -> None:
    stream, now = lines("json"), [0]
    (handler,) = logging.getLogger().handlers
    handler.filters[:] = [Repeats(lambda: now[0])]
    for tenth in range(25):
        now[0] = tenth * 100_000_000
        event(logger, logging.WARNING, "again", user="ann")
        event(logger, logging.WARNING, "again", user=f"user-{tenth}")
    entries = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [each.get("repeated") for each in entries if each["user"] == "ann"] == [None, 9, 9]
    assert sum(each["user"] != "ann" for each in entries) == 25, "with other fields it is another line"


def test_a_flood_of_one_line_is_one_line() -> None:
    stream = lines("text")
    for _ in range(1000):
        logger.error("it broke", exc_info=ValueError("why"))
    assert stream.getvalue().count("it broke") <= 2
