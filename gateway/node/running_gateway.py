"""What the command line says to the gateway that runs on this machine with the same configuration: are you well, go home."""

import http.client
import json
import ssl
from ipaddress import ip_address

from gateway.config import Config
from gateway.node.operator_socket import connected, socket_file

TIMEOUT_S = 2.0


def alive(config: Config) -> str:
    """Why the gateway of this configuration is not well; empty when it is."""
    try:
        status, text = _ask(config, "GET", "/livez", TIMEOUT_S)
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    return "" if status == 200 else f"{status}: {text.strip()}"


def drain(config: Config, wait_s: int) -> int:
    """Send it home and wait up to `wait_s` for its streams to end: how many are left. Raises `OSError` when it is silent or refuses."""
    try:
        asking = http.client.HTTPConnection("gateway")
        asking.sock = connected(config, TIMEOUT_S + wait_s)
        status, text = _asked(asking, "POST", f"/drain?wait_s={wait_s}")
    except http.client.HTTPException as error:
        raise OSError(str(error) or type(error).__name__) from error
    except OSError as error:
        raise OSError(f"{socket_file(config)}: {error.strerror or error}") from None
    if status not in (200, 202):
        raise OSError(f"{status}: {text.strip()}")
    return int(json.loads(text)["streams"])


def _ask(config: Config, method: str, path: str, timeout: float) -> tuple[int, str]:
    host, port = _host(config.http.host), config.http.port
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    if config.http.certificate:
        # It never leaves the machine, and the certificate is for the name by which others come.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
    return _asked(connection, method, path)


def _asked(connection: http.client.HTTPConnection, method: str, path: str) -> tuple[int, str]:
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read(65536).decode(errors="replace")
    finally:
        connection.close()


def _host(listening: str) -> str:
    if not listening or listening == "localhost":
        return "127.0.0.1"
    try:
        unspecified = ip_address(listening)
    except ValueError:
        return listening
    if unspecified.is_unspecified:
        return "127.0.0.1" if unspecified.version == 4 else "::1"
    return listening
