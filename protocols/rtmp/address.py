"""What the address and the stream key say: app, name and the queries of both. Sans-IO."""

from typing import Final
from urllib.parse import parse_qsl

from protocols.errors import ProtocolError

APP: Final = "live"
_MAX_FIELDS = 64
_MAX_NAME = 4096  # characters; a key is a signed token of some hundred


def server(host: str, port: int, *, secure: bool = False, app: str = APP, call: str = "") -> str:
    """The address that encoders take, beside the stream key; `host` with IPv6 in brackets. With `call` it names the call, so that a key
    for many calls will do."""
    beside = f"?call={call}" if call else ""
    return f"rtmp{'s' if secure else ''}://{host}:{port}/{app}{beside}"


def app_and_params(app: str, tc_url: str) -> tuple[str, dict[str, str]]:
    """The path of `app` (it may have two levels), and the queries of tcUrl and app together, with that path as `app`."""
    path, _, query = app.partition("?")
    path = path.strip("/")
    return path, {**_params(tc_url.partition("?")[2]), **_params(query), "app": path}


def name_and_params(name: str) -> tuple[str, dict[str, str]]:
    """The stream key, as it was typed, and the query behind it."""
    if len(name) > _MAX_NAME:
        raise ProtocolError("the stream key is too long")
    key, _, query = name.partition("?")
    return key, _params(query)


def raw_query(app: str) -> dict[str, str]:
    """The query of `app` without decoding: encoders put base64 into it as it is."""
    fields = (part.partition("=") for part in app.partition("?")[2].split("&"))
    return {name: value for name, _, value in fields}


def _params(query: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="replace"))
    except ValueError:
        raise ProtocolError("too many fields in a query") from None
