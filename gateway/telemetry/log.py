"""The log: one event, one line, on standard error, as text for people or as JSON for machines.

Kept true: a peer cannot forge a line or colour a terminal, because control characters are escaped wherever they come from; a stream
key or token never appears, because whatever looks like one is replaced before a line is written, tracebacks included; the same line is
written once a second at most. Every line that is written in a session's task, or in one that it started, has the session's id.
"""

import json
import logging
import re
import sys
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from time import monotonic_ns
from typing import TextIO

from gateway.config import LogConfig
from protocols.bounded_map import BoundedMap
from protocols.rate_limit import SECOND

# A JSON Web Token begins with {" in base64url, which is eyJ; what is cut off after one part is still a secret's beginning.
_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*){0,2}|(?i:\bsk[a-z2-7]{13}-[a-z2-7]+)")  # and short stream keys
_NAMED = re.compile(r"(?i)\b(token|password|passphrase|secret|authorization|bearer)([=: ]+)(?:bearer +)?[^\s&\"',;]+")
_BARE = re.compile(r"[^\s=\"']+")
_MAX_TEXT = 8000
_KNOWN_LINES = 1024
_OF_EVERY_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

SESSION: ContextVar[str] = ContextVar("session", default="")
"""The id of the session in whose task we are: who runs a session sets it."""


def setup(config: LogConfig, stream: TextIO | None = None) -> None:
    """Sends every log of the process, libraries included, to `stream` (standard error) in the configured format and level."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if config.format == "json" else TextLines())
    handler.addFilter(Repeats())
    root = logging.getLogger()
    for former in root.handlers[:]:
        root.removeHandler(former)
    root.addHandler(handler)
    root.setLevel(config.level.upper())
    # What these say at info is about themselves, a line for each request or candidate.
    for name in ("aiohttp.access", "aiosqlite", "alembic", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


class Repeats(logging.Filter):
    """Lets the same line (logger, level, message and fields) through once a second; the next one says how many were left out, as
    `repeated`. The newest `_KNOWN_LINES` are known."""

    def __init__(self, now: Callable[[], int] = monotonic_ns) -> None:
        """`now` in monotonic ns."""
        super().__init__()
        self._now = now
        self._written: BoundedMap[int, tuple[int, int]] = BoundedMap(_KNOWN_LINES)  # when, and how many were left out since

    def filter(self, record: logging.LogRecord) -> bool:
        given = {name: value for name, value in vars(record).items() if name not in _OF_EVERY_RECORD}
        line = hash((record.name, record.levelno, record.getMessage(), str(given), SESSION.get()))
        now = self._now()
        written, left_out = self._written.get(line, (None, 0))
        if written is not None and now - written < SECOND:
            self._written[line] = (written, left_out + 1)
            return False
        self._written[line] = (now, 0)
        if left_out:
            record.repeated = left_out
        return True


def event(logger: logging.Logger, level: int, message: str, **fields: object) -> None:
    """Logs `message` with `fields` beside it, e.g. `event(logger, INFO, "live", session=id, protocol="rtmp")`."""
    logger.log(level, message, extra={"fields": fields}, stacklevel=2)


def scrub(text: str) -> str:
    """`text` without secrets and without more than 8,000 characters."""
    text = _NAMED.sub(r"\1\2***", _TOKEN.sub("***", text))
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "…"


def one_line(text: str) -> str:
    """`text` with control, format (bidirectional override) and separator characters as escapes; letters of any script stay."""
    return text if text.isprintable() else "".join(map(_escaped, text))


class TextLines(logging.Formatter):
    """`2026-11-25T10:00:00.000Z info gateway.sessions.seat live session=k3 protocol=rtmp`"""

    def format(self, record: logging.LogRecord) -> str:
        pairs = "".join(f" {name}={_quoted(value)}" for name, value in _fields(record).items())
        head = f"{_when(record)} {record.levelname.lower()} {record.name}"
        return f"{head} {one_line(scrub(record.getMessage()))}{pairs}"


class JsonLines(logging.Formatter):
    """One JSON object with `time`, `level`, `logger`, `message` and the fields; all control characters are JSON escapes."""

    def format(self, record: logging.LogRecord) -> str:
        head = {"time": _when(record), "level": record.levelname.lower(), "logger": record.name}
        head["message"] = scrub(record.getMessage())
        return json.dumps({**head, **_fields(record), **head})  # the head stands first, and no field can replace it


def _fields(record: logging.LogRecord) -> dict[str, str | int | float]:
    """What was given beside the message; None says nothing and is left out."""
    given = {name: value for name, value in vars(record).items() if name not in _OF_EVERY_RECORD}
    given |= given.pop("fields", {})
    if session := SESSION.get():
        if (
            given.get("session", session) != session
        ):  # of an encoder that came back or took over: its connection has an id of its own
            given["publisher"] = given["session"]
        given["session"] = session
    fields = {
        name: value if isinstance(value, int | float) else scrub(str(value))
        for name, value in given.items()
        if value is not None
    }
    if record.exc_info:
        fields["exception"] = scrub(logging.Formatter().formatException(record.exc_info))
    return fields


def _when(record: logging.LogRecord) -> str:
    return f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%S}.{int(record.msecs):03d}Z"


def _quoted(value: str | int | float) -> str:
    text = str(value)
    return text if _BARE.fullmatch(text) and text.isprintable() else one_line(json.dumps(text, ensure_ascii=False))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character) or f"\\u{ord(character):04x}"
