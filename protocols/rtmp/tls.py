"""The certificate of RTMPS, read anew when its files change, so that renewing it needs no restart."""

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """A certificate chain and its private key, in PEM."""

    certificate: Path | str
    key: Path | str


class ServerTls:
    """Gives the context for the next connection. A new certificate that cannot be loaded leaves the old one in use and is reported once."""

    def __init__(self, files: TlsFiles, report: Callable[[str], None]) -> None:
        """Raises `OSError` (`ssl.SSLError` is one) if the files cannot be loaded."""
        self._files = files
        self._report = report
        self._version = self._look()
        self._context = self._load()

    def context(self) -> ssl.SSLContext:
        try:
            version = self._look()
            if version != self._version:
                self._version = version
                self._context = self._load()
        except OSError as error:
            self._tell(error)
        return self._context

    def _tell(self, error: OSError) -> None:
        reason = error.strerror or type(error).__name__
        self._report(f"the new TLS certificate is not used, the old one stays: {reason}")

    def _look(self) -> tuple[tuple[int, int, int], ...]:
        found = (os.stat(path) for path in (self._files.certificate, self._files.key))
        return tuple((status.st_mtime_ns, status.st_size, status.st_ino) for status in found)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._files.certificate, self._files.key)
        return context
