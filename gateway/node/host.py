"""What the machine says about this gateway: datagrams that the kernel threw away at its ports, and when its certificates end.

Kept true: a figure that cannot be had (another system, a file that is gone) is left out, and nobody is stopped by it.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from cryptography import x509

_UDP_TABLES = ("/proc/net/udp", "/proc/net/udp6")


def udp_drops(ports: Mapping[int, str], tables: tuple[str, ...] = _UDP_TABLES) -> dict[str, int]:
    """By the names that `ports` gives to port numbers: datagrams dropped since the socket was opened, for want of buffer."""
    drops: dict[str, int] = {}
    for table in tables:
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            name = ports.get(int(fields[1].rpartition(":")[2], 16))
            if name is not None:
                drops[name] = drops.get(name, 0) + int(fields[-1])
    return drops


class Certificates:
    """The ends of the configured certificates; a file is read again when it has changed."""

    def __init__(self, files: Mapping[str, str]) -> None:
        """`files`: what each is for, and its path; an empty path is none."""
        self._files = {name: Path(path) for name, path in files.items() if path}
        self._read: dict[str, tuple[int, float]] = {}  # when the file was changed, when the certificate ends

    def remaining(self, clock: Callable[[], float]) -> Iterator[tuple[str, float]]:
        """What it is for, and the seconds (negative when past) until the first certificate of its chain ends; `clock` is POSIX time."""
        for name, path in self._files.items():
            try:
                changed = path.stat().st_mtime_ns
                if self._read.get(name, (0, 0.0))[0] != changed:
                    chain = x509.load_pem_x509_certificates(path.read_bytes())
                    self._read[name] = changed, min(one.not_valid_after_utc.timestamp() for one in chain)
            except (OSError, ValueError):
                pass  # the one that was read before is still in use
            if name in self._read:
                yield name, self._read[name][1] - clock()
