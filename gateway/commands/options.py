"""What commands share: how they are added to the command line, and the kinds of values that people type."""

import argparse
import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from gateway.config import CALL_ID, USER_ID, Config
from gateway.model.records import FIRST_RANK, MAX_KEY_SECONDS, MAX_RANK

Command = Callable[[argparse.Namespace, Config], int]
"""Returns the exit code."""

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Commands:
    """One level of the command line."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(self, name: str, command: Command, words: str, *more: argparse.ArgumentParser) -> argparse.ArgumentParser:
        """`words` say what it does; `more` are options that it shares."""
        added = self._commands.add_parser(name, help=words, description=words, parents=[_common(), *more])
        added.set_defaults(command=command)
        return added

    def group(self, name: str, words: str) -> "Commands":
        return Commands(self._commands.add_parser(name, help=words, description=words))


def awaited(command: Callable[[argparse.Namespace, Config], Awaitable[int]]) -> Command:
    """A command that waits for something, such as the store."""

    async def run(options: argparse.Namespace, config: Config) -> int:
        return await command(options, config)

    return lambda options, config: asyncio.run(run(options, config))


def seconds(text: str) -> int:
    """`90s`, `30m`, `24h`, `7d` or plain seconds."""
    parts = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text)
    number = int(parts[1]) * _SECONDS[parts[2] or "s"] if parts else 0
    if not 0 < number <= MAX_KEY_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write 30m, 24h or 7d, at most {MAX_KEY_SECONDS // 86400}d")
    return number


def rank(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,3}", text) or not FIRST_RANK <= int(text) <= MAX_RANK:
        raise argparse.ArgumentTypeError(f"{text!r} is no rank: write a number from {FIRST_RANK}, the best, to {MAX_RANK}")
    return int(text)


def call(text: str) -> str:
    if not re.fullmatch(CALL_ID, text):
        raise argparse.ArgumentTypeError(f"{text!r} is no call: write type:id, e.g. livestream:demo")
    return text


def user(text: str) -> str:
    if not re.fullmatch(USER_ID, text):
        raise argparse.ArgumentTypeError(f"{text!r} is no user: write 1 to 64 of the letters A-Z a-z 0-9 @ _ . -")
    return text


def _common() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config", type=Path, metavar="FILE", help="configuration file (default: gateway.toml, if there is one)"
    )
    common.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. --set rtmp.port=1936; wins over all"
    )
    return common
