"""The command line: `gateway run`, `check`, `drain`, `check-config`, `print-config`; those about credentials and calls are in `commands`.

Exit codes: 0 done; 1 it failed while running; 2 the command or the configuration is wrong, and standard error says how to right it.
"""

import argparse
import asyncio
import gc
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.access.credentials import Secret, Tokens
from gateway.commands import apikeys, calls, credentials
from gateway.commands import options as typed
from gateway.commands.options import Commands
from gateway.config import Config, sources
from gateway.config.sources import ConfigError
from gateway.ingress.rtmp import rtmp_way
from gateway.ingress.srt import srt_way
from gateway.node import running_gateway
from gateway.node.memory import conceal
from gateway.telemetry import log
from protocols.errors import Reason, Rejected

try:
    import uvloop  # here only: the rest of the gateway runs on any loop
except ImportError:  # no wheel for this platform
    new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    new_event_loop = uvloop.new_event_loop

logger = logging.getLogger("gateway")

DEFAULT_FILE = Path("gateway.toml")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    options = command_line().parse_args(arguments)
    try:
        command: Callable[[argparse.Namespace, Config], int] = options.command
        return command(options, _config(options))
    except ConfigError as error:
        print("The configuration has problems:", *error.problems, sep="\n  ", file=sys.stderr)
        return 2
    except Rejected as refusal:
        print(refusal.detail, file=sys.stderr)
        return 2 if refusal.reason is Reason.BAD_REQUEST else 1
    except BrokenPipeError:
        return 1


def _config(options: argparse.Namespace) -> Config:
    file = options.config or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)
    return sources.load(file, options.set)


def _require_files(config: Config) -> None:
    """Raises `ConfigError` where one is not there."""
    from gateway.node import selftest
    from gateway.wiring.listeners import PROTOCOLS

    if problems := selftest.missing_files(config, [each.preconditions(config) for each in PROTOCOLS]):
        raise ConfigError(problems)


def _run(options: argparse.Namespace, config: Config) -> int:
    _require_files(config)
    if options.check and _check(options, config):
        return 1
    log.setup(config.log)
    conceal()
    tokens = Tokens(Secret.load(config))  # first: a secret that others can read ends here, in words
    gc.disable()  # until all stands, when `app.run` freezes it: of what a start makes next to nothing is garbage
    from gateway import app  # the commands that only print need nothing of what it imports

    def ready(started: app.Running) -> None:
        if options.show:
            bound = started.ports
            running = config.model_copy(
                update={
                    "http": config.http.model_copy(update={"port": bound["http"]}),
                    "rtmp": config.rtmp.model_copy(update={"port": bound["rtmp"], "tls_port": bound["rtmps"]}),
                    "srt": config.srt.model_copy(update={"port": bound["srt"]}),
                }
            )
            print(rtmp_way(running, tokens, call=options.show, user="host", ttl_s=typed.seconds("24h")).text(), flush=True)
            if bound["srt"]:
                way = srt_way(running, tokens, call=options.show, user="host", ttl_s=typed.seconds("24h"))
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
    from gateway.node import selftest  # it loads what it tries
    from gateway.wiring.listeners import PROTOCOLS

    findings = asyncio.run(selftest.examine(config, [each.preconditions(config) for each in PROTOCOLS]))
    print(*findings, sep="\n", file=sys.stderr, flush=True)
    return int(any(finding.mark is selftest.Mark.BAD for finding in findings))


def _live(options: argparse.Namespace, config: Config) -> int:
    why_not = running_gateway.alive(config)
    print(f"The gateway is not well: {why_not}" if why_not else "The gateway is well.")
    return int(bool(why_not))


def _drain(options: argparse.Namespace, config: Config) -> int:
    try:
        left = running_gateway.drain(config, options.wait)
    except OSError as error:
        print(f"The gateway of this configuration cannot be drained: {error}", file=sys.stderr)
        return 1
    print(f"The gateway takes no new streams; {left} are left.")
    return 0


def _check_config(options: argparse.Namespace, config: Config) -> int:
    _require_files(config)
    print("The configuration is good.")
    return 0


def _print_config(options: argparse.Namespace, config: Config) -> int:
    print(sources.render(Config() if options.defaults else config), end="")
    return 0


def command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gateway", description="Takes RTMP, SRT and WHIP streams into calls that are watched over WebRTC."
    )
    commands = Commands(parser)
    add = commands.add
    running = add("run", _run, "run the gateway until SIGINT or SIGTERM")
    running.add_argument(
        "--show", type=typed.call, metavar="CALL", help="once it runs, print what to paste to stream into this call"
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
        "--wait", type=typed.seconds, default=0, metavar="TIME", help="until they have ended, at most this long: 90s, 30m, 8h"
    )
    add("check-config", _check_config, "say what is wrong with the configuration, if anything")
    printing = add("print-config", _print_config, "print the configuration in effect as gateway.toml, without secrets")
    printing.add_argument("--defaults", action="store_true", help="the defaults instead")
    for subject in (credentials, calls, apikeys):
        subject.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
