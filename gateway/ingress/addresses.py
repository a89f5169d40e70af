"""Where this machine is reached: the addresses that are printed work as they stand, with their ports and brackets."""

import socket
from ipaddress import ip_address
from urllib.parse import quote

from gateway.access.credentials import Tokens
from gateway.access.jwt import VIEWER
from gateway.config import Config


def watch_address(config: Config, tokens: Tokens, *, call: str, ttl_s: int, host: str = "") -> str:
    """The address of the watch page; a call that is not public gets a viewer's token in the fragment."""
    fragment = "" if call in config.calls.public else f"#token={tokens.issue(VIEWER, [call], ttl_s, VIEWER)}"
    return f"{origin(config, host)}/watch/{quote(call, safe=':')}{fragment}"


def host_page(config: Config, *, call: str, key: str, host: str = "") -> str:
    """The address of the page that publishes from a browser, with the stream key in the fragment."""
    return f"{origin(config, host)}/host/{quote(call, safe=':')}#token={key}"


def origin(config: Config, host: str, port: int = 0) -> str:
    """Where pages, WHIP, WHEP and HLS are; `port` is the one that is really bound, where that is known."""
    scheme = "https" if config.http.certificate else "http"
    return f"{scheme}://{bracketed(host or reachable(config, config.http.host))}:{port or config.http.port}"


def reachable(config: Config, listening: str) -> str:
    """An address others reach this machine by: the one listened on, the configured external one, else that of the default route."""
    if listening and not _is_unspecified(listening):
        return listening
    if config.webrtc.external_addresses:
        return str(config.webrtc.external_addresses[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # RFC 5737 TEST-NET-1: connecting a UDP socket sends nothing, it only picks the route
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def bracketed(host: str) -> str:
    """IPv6 addresses in brackets (RFC 3986 §3.2.2)."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _is_unspecified(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False
