"""What of this machine the gateway will find when it starts, and how to mend what it will not: `gateway check`, `gateway run --check`.

Kept true: it tries instead of guessing (it binds the ports, loads libsrt, encodes a picture) and leaves nothing behind; what only somebody
outside can see, it says so. It sends nothing to anybody.
"""

import errno
import os
import resource
import socket
import ssl
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path

from gateway.config import Config, sources
from gateway.config.sources import ConfigProblem
from gateway.ingress.addresses import reachable
from gateway.node.cpu import available_cores
from gateway.node.running_gateway import alive
from protocols.webrtc.native import runs as native
from transcode.encoder_table import ENCODERS, HARDWARE, X264
from transcode.host.pool import Workers
from transcode.host.probe import trial
from transcode.limits import WALLS, WALLS_MENDED

SOCKET_BUFFER = 4 << 20  # bytes: what bursts of many callers and key frames for many viewers need
OPEN_FILES = 4096  # a stream or viewer has one or two of them


class Mark(StrEnum):
    GOOD = "ok"
    NOTE = "note"  # nothing is wrong, and something to know
    WARNING = "warn"  # it runs, with less
    BAD = "BAD"  # it does not start, or nobody gets in


@dataclass(frozen=True, slots=True)
class CheckResult:
    mark: Mark
    what: str
    text: str
    fix: str = ""  # what to type or set; empty where nothing need be done

    def __str__(self) -> str:
        line = f"{self.mark:>4}  {self.what}: {self.text}"
        return line + (f"\n      {self.fix}" if self.fix else "")


@dataclass(frozen=True, slots=True)
class WantedPort:
    """A port that will be bound; `key` is the configuration's, `host` empty for all addresses."""

    key: str
    host: str
    number: int
    udp: bool = False

    def __str__(self) -> str:
        return f"{self.number}/{'udp' if self.udp else 'tcp'}"


@dataclass(frozen=True, slots=True)
class Preconditions:
    """What one protocol will need of this machine, and what is so of it already."""

    ports: Sequence[WantedPort] = ()
    findings: Iterable[CheckResult] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    """Those that must be there, by the configuration's key; one without a name need not."""
    descriptors: int = 0
    """At most so many its connections have open at a time: they are kept for it."""


async def examine(config: Config, protocols: Sequence[Preconditions]) -> list[CheckResult]:
    """Everything, in the order in which an operator would look. Takes some seconds where there are hardware encoders to try. `protocols`
    are those that encoders may come by."""
    return [*findings(config, protocols), *await _encoders(config)]


def missing_files(config: Config, protocols: Sequence[Preconditions]) -> list[ConfigProblem]:
    """The files that the configuration names and that are not there."""
    own = {"http.certificate": config.http.certificate, "http.key": config.http.key}
    return sources.check(own | {key: path for each in protocols for key, path in each.files.items()})


def findings(config: Config, protocols: Sequence[Preconditions]) -> Iterator[CheckResult]:
    """All but the encoders."""
    own = [
        WantedPort("http.port", config.http.host, config.http.port),
        *_webrtc_ports(config),
    ]
    wanted = [*own, *(port for each in protocols for port in each.ports)]
    yield from _files(config, protocols)
    if alive(config):
        yield from _ports(wanted)
    else:
        yield CheckResult(Mark.NOTE, "ports", "a gateway with this configuration runs and has them")
    yield from _outside(config, wanted)
    for each in protocols:
        yield from each.findings
    yield from _machine(config)


def certificate(section: str, chain: str, key: str) -> Iterator[CheckResult]:
    """Whether the files of a section of the configuration belong together; one that is not there is said elsewhere."""
    if chain and Path(chain).is_file():
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(chain, key)
        except OSError as error:  # SSLError is one
            fix = "certificate is the PEM chain, leaf first, key its private key without a password."
            yield CheckResult(Mark.BAD, f"{section}.certificate", f"cannot be used with its key ({error})", fix)


def _files(config: Config, protocols: Sequence[Preconditions]) -> Iterator[CheckResult]:
    for problem in missing_files(config, protocols):
        yield CheckResult(Mark.BAD, problem.key, f"{problem.value}: {problem.allowed}", "Give a file that this user may read.")
    yield from certificate("http", config.http.certificate, config.http.key)
    directory = Path(config.state.directory)
    there = next(each for each in (directory, *directory.absolute().parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            yield CheckResult(Mark.GOOD, "state", f"{directory} can be written")
    except OSError as error:
        fix = f"chown it to user {os.getuid()}, or set state.directory to a folder that is this user's."
        yield CheckResult(Mark.BAD, "state", f"{directory}: {error.strerror}", fix)


def _ports(wanted: Iterable[WantedPort]) -> Iterator[CheckResult]:
    """Each port that will be bound: is it free, and may this user have it?"""
    for port in wanted:
        try:
            _bind(port.host, port.number, socket.SOCK_DGRAM if port.udp else socket.SOCK_STREAM)
        except OSError as error:
            fix = _FIXES.get(error.errno or 0, _OTHER).format(port=port.number, key=port.key)
            yield CheckResult(Mark.BAD, f"port {port}", f"{port.key}: {error.strerror or error}", fix)
        else:
            yield CheckResult(Mark.GOOD, f"port {port}", f"{port.key} is free")


_FIXES = {
    errno.EADDRINUSE: "See who has it: ss -lntup 'sport = :{port}'. Is a gateway running already? Stop that one, or choose another {key}.",
    errno.EACCES: "Ports below 1024 take CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=), or choose a {key} above.",
    errno.EADDRNOTAVAIL: "The host beside {key} is no address of this machine: leave it empty for all addresses.",
}
_OTHER = "Choose another {key} or host."


def _bind(host: str, port: int, kind: socket.SocketKind) -> None:
    """As the listeners do: all addresses of both families where no host is given."""
    family = socket.AF_INET6 if ":" in host or (not host and socket.has_dualstack_ipv6()) else socket.AF_INET
    with socket.socket(family, kind) as trying:
        if kind is socket.SOCK_STREAM:
            trying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that has just been closed is no obstacle
        if family == socket.AF_INET6 and not host:
            trying.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        trying.bind((host, port))
        if kind is socket.SOCK_STREAM:
            trying.listen(1)


def _outside(config: Config, wanted: Sequence[WantedPort]) -> Iterator[CheckResult]:
    """By which addresses others come. Whether a firewall lets them, only they can tell."""
    route = reachable(config.model_copy(update={"webrtc": config.webrtc.model_copy(update={"external_addresses": ()})}), "")
    external = ", ".join(map(str, config.webrtc.external_addresses))
    if external:
        text = f"viewers are told {external}; this machine's own is {route}"
        fix = "" if route in external else f"Forward UDP {_forwarded(config)} from there to {route} as the same number."
        yield CheckResult(Mark.GOOD if not fix else Mark.NOTE, "address", text, fix)
    elif ip_address(route).is_loopback:
        yield CheckResult(
            Mark.WARNING, "address", "no route to other machines", "Only this machine can watch. Set webrtc.external_addresses."
        )
    elif not ip_address(route).is_global:
        fix = "Viewers from elsewhere need the public one: set webrtc.external_addresses and forward the UDP port to this machine."
        yield CheckResult(Mark.WARNING, "address", f"viewers are told {route}, which is of a private network", fix)
    else:
        yield CheckResult(Mark.GOOD, "address", f"viewers are told {route}")
    ports = " and ".join(map(str, wanted))
    yield CheckResult(
        Mark.NOTE, "firewall", f"it must let in {ports}", "From inside that cannot be seen: try from another network."
    )


def _webrtc_ports(config: Config) -> Iterator[WantedPort]:
    webrtc = config.webrtc
    yield WantedPort("webrtc.port", webrtc.host, webrtc.port, udp=True)
    for port in webrtc.process_ports(available_cores(config.capacity.cores)):
        yield WantedPort("webrtc.processes", webrtc.host, port, udp=True)


def _forwarded(config: Config) -> str:
    ports = [port.number for port in _webrtc_ports(config)]
    return f"{ports[0]} to {ports[-1]}" if len(ports) > 1 else str(ports[0])


def _buffers() -> Iterator[CheckResult]:
    for name, use in (
        ("rmem_max", "bursts of many encoders lose packets"),
        ("wmem_max", "key frames for many viewers are delayed"),
    ):
        try:
            size = int(Path("/proc/sys/net/core", name).read_text())
        except (OSError, ValueError):
            continue  # no Linux, or a container that does not show it
        if size < SOCKET_BUFFER:
            fix = f"sysctl -w net.core.{name}={SOCKET_BUFFER} (and in /etc/sysctl.d; of a container: on its host)"
            yield CheckResult(Mark.WARNING, f"net.core.{name}", f"{size >> 10} KiB: {use}", fix)
        else:
            yield CheckResult(Mark.GOOD, f"net.core.{name}", f"{size >> 10} KiB")


def _machine(config: Config) -> Iterator[CheckResult]:
    yield from _buffers()
    cores = available_cores(config.capacity.cores)
    yield CheckResult(
        Mark.GOOD, "CPU", f"{cores:g} cores, of which {cores * (1 - config.capacity.reserve):g} may be used by streams"
    )
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files != resource.RLIM_INFINITY and files < OPEN_FILES:
        fix = f"ulimit -n {OPEN_FILES * 4} (systemd: LimitNOFILE=)"
        yield CheckResult(Mark.WARNING, "open files", f"{files}, too few for many viewers", fix)
    yield _sender()
    if config.tracing.endpoint and find_spec("opentelemetry") is None:
        yield CheckResult(
            Mark.BAD,
            "traces",
            "OpenTelemetry is not installed",
            "pip install 'ingress-gateway[trace]', or empty tracing.endpoint",
        )


def _sender() -> CheckResult:
    try:
        native.module()
    except native.CannotSend as why:
        fix = "For less CPU for each viewer install a C compiler and Python's headers (gcc, python3-dev), and type deploy/up."
        return CheckResult(Mark.NOTE, "sender", f"packets are sent in Python, since the native part cannot be used: {why}", fix)
    return CheckResult(Mark.GOOD, "sender", "packets are sent by the native part")


def _sandbox(config: Config, walls: frozenset[str]) -> CheckResult:
    if missing := sorted(WALLS - walls):
        mark = Mark.BAD if config.transcode.sandbox == "required" else Mark.WARNING
        return CheckResult(
            mark, "sandbox", f"transcoding is not confined by {' and '.join(missing)}", f"Mend it: {WALLS_MENDED}."
        )
    return CheckResult(Mark.GOOD, "sandbox", f"transcoding is confined by {' and '.join(sorted(walls))}")


async def _encoders(config: Config) -> list[CheckResult]:
    """Walls must stand around workers where those are insisted on; x264 must work; hardware is tried where the machine has any, and what
    was asked for by name must be among what works."""
    wanted = config.transcode.encoder
    found: list[CheckResult] = []
    async with Workers() as workers:
        found.append(_sandbox(config, workers.walls))
        for encoder in (X264, *(each.name for each in HARDWARE)):
            label, why_not = ENCODERS[encoder].label, await trial(workers, encoder)
            if not why_not:
                found.append(CheckResult(Mark.GOOD, "encoder", f"{label} works"))
            elif encoder == X264:
                found.append(
                    CheckResult(Mark.BAD, "encoder", f"{label}: {why_not}", "Install the locked packages anew: deploy/up")
                )
            elif encoder == wanted:
                found.append(
                    CheckResult(Mark.WARNING, "encoder", f"{label}: {why_not}", "x264 is used instead; set transcode.encoder.")
                )
            else:
                found.append(CheckResult(Mark.NOTE, "encoder", f"{label} is not here"))
    return found
