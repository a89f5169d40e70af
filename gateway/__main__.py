"""The command line: `gateway run`, `check`, `drain`, `check-config`, `print-config`, `token`, `ingress`.

Exit codes: 0 done; 1 it failed while running; 2 the command or the configuration is wrong, and standard error says how to right it.
"""

import argparse
import asyncio
import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway import config_sources, local, log
from gateway.auth import Secret, Tokens
from gateway.bearer import HOST, VIEWER
from gateway.config import CALL_ID, USER_ID, Config
from gateway.config_sources import ConfigError
from gateway.ingress import Way, rtmp, srt, whip

try:
    import uvloop  # here only: the rest of the gateway runs on any loop
except ImportError:  # no wheel for this platform
    new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    new_event_loop = uvloop.new_event_loop

logger = logging.getLogger("gateway")

DEFAULT_FILE = Path("gateway.toml")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST_S = 10 * 365 * 86400
WAYS: Mapping[str, tuple[Callable[..., Way], str]] = {
    "rtmp": (
        rtmp.rtmp,
        "print server, stream key, user and password, an ffmpeg line and the watch page for one user of a call",
    ),
    "srt": (
        srt.srt,
        "print server, stream id and passphrase, lines for ffmpeg and GStreamer and the watch page for one user",
    ),
    "whip": (whip.whip, "print endpoint, bearer token, an ffmpeg line and the watch page for one user of a call"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    options = command_line().parse_args(arguments)
    try:
        command: Callable[[argparse.Namespace, Config], int] = options.command
        return command(options, _config(options))
    except ConfigError as error:
        print("The configuration has problems:", *error.problems, sep="\n  ", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 1


def _config(options: argparse.Namespace) -> Config:
    file = options.config or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)
    return config_sources.load(file, options.set)


def _run(options: argparse.Namespace, config: Config) -> int:
    if problems := config_sources.check(config):
        raise ConfigError(problems)
    if options.check and _check(options, config):
        return 1
    log.setup(config.log)
    tokens = Tokens(Secret.load(config))  # first: a secret that others can read ends here, in words
    from gateway import app  # the commands that only print need nothing of what it imports

    def ready(bound: app.Addresses) -> None:
        if options.show:
            running = config.model_copy(
                update={
                    "http": config.http.model_copy(update={"port": bound.http}),
                    "rtmp": config.rtmp.model_copy(update={"port": bound.rtmp, "tls_port": bound.rtmps}),
                    "srt": config.srt.model_copy(update={"port": bound.srt}),
                }
            )
            print(rtmp.rtmp(running, tokens, call=options.show, user="host", ttl_s=_seconds("24h")).text(), flush=True)
            if bound.srt:
                way = srt.srt(running, tokens, call=options.show, user="host", ttl_s=_seconds("24h"))
                print(f"  The same over SRT:\n  {way.test_picture}\n", flush=True)

    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(app.run(config, ready))
    except ConfigError:
        raise
    except OSError as error:
        logger.error("cannot start: %s", error)
        return 1
    except Exception:
        logger.exception("the gateway failed")
        return 1
    return 0


def _check(options: argparse.Namespace, config: Config) -> int:
    """1 where something stands in the way of a start."""
    from gateway import selftest  # it loads what it tries

    findings = asyncio.run(selftest.examine(config))
    print(*findings, sep="\n", file=sys.stderr, flush=True)
    return int(any(finding.mark is selftest.Mark.BAD for finding in findings))


def _live(options: argparse.Namespace, config: Config) -> int:
    why_not = local.alive(config)
    print(f"The gateway is not well: {why_not}" if why_not else "The gateway is well.")
    return int(bool(why_not))


def _drain(options: argparse.Namespace, config: Config) -> int:
    try:
        left = local.drain(config, options.wait)
    except OSError as error:
        print(f"The gateway of this configuration cannot be drained: {error}", file=sys.stderr)
        return 1
    print(f"The gateway takes no new streams; {left} are left.")
    return 0


def _check_config(options: argparse.Namespace, config: Config) -> int:
    if problems := config_sources.check(config):
        raise ConfigError(problems)
    print("The configuration is good.")
    return 0


def _print_config(options: argparse.Namespace, config: Config) -> int:
    print(config_sources.render(Config() if options.defaults else config), end="")
    return 0


def _token(options: argparse.Namespace, config: Config) -> int:
    print(Tokens(Secret.load(config)).issue(options.user, [options.call], options.ttl, VIEWER if options.watch else HOST))
    return 0


def _ingress(options: argparse.Namespace, config: Config) -> int:
    tokens = Tokens(Secret.load(config))
    way = WAYS[options.protocol][0](config, tokens, call=options.call, user=options.user, ttl_s=options.ttl, host=options.host)
    print(way.text(options.obs), end="")
    return 0


def _seconds(text: str) -> int:
    """`90s`, `30m`, `24h`, `7d` or plain seconds."""
    parts = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text)
    seconds = int(parts[1]) * _SECONDS[parts[2] or "s"] if parts else 0
    if not 0 < seconds <= _LONGEST_S:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write 30m, 24h or 7d, at most 3650d")
    return seconds


def _call(text: str) -> str:
    if not re.fullmatch(CALL_ID, text):
        raise argparse.ArgumentTypeError(f"{text!r} is no call: write type:id, e.g. livestream:demo")
    return text


def _user(text: str) -> str:
    if not re.fullmatch(USER_ID, text):
        raise argparse.ArgumentTypeError(f"{text!r} is no user: write 1 to 64 of the letters A-Z a-z 0-9 @ _ . -")
    return text


def command_line() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config", type=Path, metavar="FILE", help="configuration file (default: gateway.toml, if there is one)"
    )
    common.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. --set rtmp.port=1936; wins over all"
    )

    credential = argparse.ArgumentParser(add_help=False)
    credential.add_argument("--call", type=_call, required=True, help="e.g. livestream:demo")
    credential.add_argument("--user", type=_user, required=True, help="who it is, e.g. host")
    credential.add_argument("--ttl", type=_seconds, default="24h", help="how long it is valid: 30m, 24h, 7d (default: 24h)")

    parser = argparse.ArgumentParser(
        prog="gateway", description="Takes RTMP, SRT and WHIP streams into calls that are watched over WebRTC."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace, Config], int], words: str, *more: argparse.ArgumentParser) -> Any:
        added = commands.add_parser(name, help=words, description=words, parents=[common, *more])
        added.set_defaults(command=command)
        return added

    running = add("run", _run, "run the gateway until SIGINT or SIGTERM")
    running.add_argument(
        "--show", type=_call, metavar="CALL", help="once it runs, print what to paste to stream into this call"
    )
    running.add_argument(
        "--check", action="store_true", help="first say what of this machine is as it should be, as `gateway check`"
    )
    add(
        "check",
        _check,
        "say what of this machine is as it should be (ports, addresses, libsrt, encoders), and how to mend the rest",
    )
    add("live", _live, "say whether the gateway of this configuration, which runs on this machine, is well: for health checks")
    draining = add("drain", _drain, "let the gateway that runs on this machine take no new streams; those that are live go on")
    draining.add_argument(
        "--wait", type=_seconds, default=0, metavar="TIME", help="until they have ended, at most this long: 90s, 30m, 8h"
    )
    add("check-config", _check_config, "say what is wrong with the configuration, if anything")
    printing = add("print-config", _print_config, "print the configuration in effect as gateway.toml, without secrets")
    printing.add_argument("--defaults", action="store_true", help="the defaults instead")
    token = add("token", _token, "print a token for a call: a stream key, or with --watch a viewer's", credential)
    token.add_argument("--watch", action="store_true", help="for watching only")

    protocols = commands.add_parser("ingress", help="print what to paste into an encoder").add_subparsers(
        required=True, metavar="PROTOCOL"
    )
    for name, (_, words) in WAYS.items():
        way = protocols.add_parser(name, help=words, description=words, parents=[common, credential])
        way.set_defaults(command=_ingress, protocol=name)
        way.add_argument(
            "--host", default="", help="name or address by which the encoder reaches this machine (default: found out)"
        )
        way.add_argument("--obs", action="store_true", help="the steps in OBS Studio")
    return parser


if __name__ == "__main__":
    sys.exit(main())
