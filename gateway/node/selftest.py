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
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path

from gateway.config import Config, sources
from gateway.ingress.addresses import reachable
from gateway.node.cpu import available_cores
from gateway.node.running_gateway import alive
from protocols.srt.libsrt import LibsrtMissing, load
from transcode.encoder_table import ENCODERS, HARDWARE, X264
from transcode.host.pool import Workers
from transcode.host.probe import trial

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


async def examine(config: Config) -> list[CheckResult]:
    """Everything, in the order in which an operator would look. Takes some seconds where there are hardware encoders to try."""
    return [*findings(config), *await _encoders(config)]


def findings(config: Config) -> Iterator[CheckResult]:
    """All but the encoders."""
    yield from _files(config)
    if alive(config):
        yield from _ports(config)
    else:
        yield CheckResult(Mark.NOTE, "ports", "a gateway with this configuration runs and has them")
    yield from _outside(config)
    yield from _srt(config)
    yield from _machine(config)


def _files(config: Config) -> Iterator[CheckResult]:
    for problem in sources.check(config):
        yield CheckResult(Mark.BAD, problem.key, f"{problem.value}: {problem.allowed}", "Give a file that this user may read.")
    for name, section in (("http", config.http), ("rtmp", config.rtmp)):
        if section.certificate and Path(section.certificate).is_file():
            try:
                ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(section.certificate, section.key)
            except OSError as error:  # SSLError is one
                fix = "certificate is the PEM chain, leaf first, key its private key without a password."
                yield CheckResult(Mark.BAD, f"{name}.certificate", f"cannot be used with its key ({error})", fix)
    directory = Path(config.state.directory)
    there = next(each for each in (directory, *directory.absolute().parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            yield CheckResult(Mark.GOOD, "state", f"{directory} can be written")
    except OSError as error:
        fix = f"chown it to user {os.getuid()}, or set state.directory to a folder that is this user's."
        yield CheckResult(Mark.BAD, "state", f"{directory}: {error.strerror}", fix)


def _ports(config: Config) -> Iterator[CheckResult]:
    """Each port that will be bound: is it free, and may this user have it?"""
    tcp, udp = socket.SOCK_STREAM, socket.SOCK_DGRAM
    wanted = [
        ("http.port", config.http.host, config.http.port, tcp),
        ("webrtc.port", config.webrtc.host, config.webrtc.port, udp),
    ]
    if config.rtmp.enabled:
        wanted.append(("rtmp.port", config.rtmp.host, config.rtmp.port, tcp))
        if config.rtmp.certificate and config.rtmp.tls_port:
            wanted.append(("rtmp.tls_port", config.rtmp.host, config.rtmp.tls_port, tcp))
    if config.srt.enabled != "false":
        wanted.append(("srt.port", config.srt.host, config.srt.port, udp))
        wanted += [("srt.ports", config.srt.host, port, udp) for port in config.srt.ports]
    for key, host, port, kind in wanted:
        name = f"port {port}/{'tcp' if kind is tcp else 'udp'}"
        try:
            _bind(host, port, kind)
        except OSError as error:
            yield CheckResult(
                Mark.BAD,
                name,
                f"{key}: {error.strerror or error}",
                _FIXES.get(error.errno or 0, _OTHER).format(port=port, key=key),
            )
        else:
            yield CheckResult(Mark.GOOD, name, f"{key} is free")


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


def _outside(config: Config) -> Iterator[CheckResult]:
    """By which addresses others come. Whether a firewall lets them, only they can tell."""
    route = reachable(config.model_copy(update={"webrtc": config.webrtc.model_copy(update={"external_addresses": ()})}), "")
    external = ", ".join(map(str, config.webrtc.external_addresses))
    if external:
        text = f"viewers are told {external}; this machine's own is {route}"
        fix = "" if route in external else f"Forward UDP {config.webrtc.port} from there to {route} as the same number."
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
    udp = f"{config.webrtc.port}/udp" + (f" and {config.srt.port}/udp" if config.srt.enabled != "false" else "")
    tcp = f"{config.http.port}/tcp" + (f" and {config.rtmp.port}/tcp" if config.rtmp.enabled else "")
    yield CheckResult(
        Mark.NOTE, "firewall", f"it must let in {udp}, {tcp}", "From inside that cannot be seen: try from another network."
    )


def _srt(config: Config) -> Iterator[CheckResult]:
    if config.srt.enabled == "false":
        yield CheckResult(Mark.NOTE, "SRT", "switched off (srt.enabled)")
        return
    try:
        yield CheckResult(Mark.GOOD, "SRT", f"libsrt {load(config.srt.library).version}")
    except LibsrtMissing as missing:
        yield CheckResult(Mark.BAD if config.srt.enabled == "true" else Mark.WARNING, "SRT", "not taken", str(missing))


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
    if config.tracing.endpoint and find_spec("opentelemetry") is None:
        yield CheckResult(
            Mark.BAD,
            "traces",
            "OpenTelemetry is not installed",
            "pip install 'ingress-gateway[trace]', or empty tracing.endpoint",
        )


async def _encoders(config: Config) -> list[CheckResult]:
    """x264 must work; hardware is tried where the machine has any, and what was asked for by name must be among what works."""
    wanted = config.transcode.encoder
    found: list[CheckResult] = []
    async with Workers() as workers:
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
