"""What the address and the stream key say: app, name and the queries of both. Sans-IO.

Kept true: who typed them nearly right is understood. The whole address in either field, the key as the app or behind it, slashes, quotes,
blanks, line ends and percent signs make no difference.
"""

from typing import Final
from urllib.parse import parse_qsl

from protocols.errors import ProtocolError
from protocols.pasted import cleaned, last_part, path_and_query

APP: Final = "live"
NO_KEY: Final = (
    "The stream key is empty: paste it into the encoder's field for the stream key, or behind the server's address and a slash."
)
_MAX_FIELDS = 64
_MAX_NAME = 4096  # characters; a key is a signed token of some hundred


def server(host: str, port: int, *, secure: bool = False, app: str = APP, call: str = "") -> str:
    """The address that encoders take, beside the stream key; `host` with IPv6 in brackets. With `call` it names the call, so that a key
    for many calls will do."""
    beside = f"?call={call}" if call else ""
    return f"rtmp{'s' if secure else ''}://{host}:{port}/{app}{beside}"


def app_and_params(app: str, tc_url: str) -> tuple[str, dict[str, str]]:
    """The path of `app` (it may have two levels, of which the last may be a key), and the queries of tcUrl and app together, with that
    path as `app`."""
    path, query = path_and_query(cleaned(app))
    path = cleaned(path).strip("/")
    return path, {**_params(path_and_query(cleaned(tc_url))[1]), **_params(query), "app": path}


def name_and_params(name: str, app: str = "") -> tuple[str, dict[str, str]]:
    """The stream key in a publish name, else the one at the end of `app` (the path), and the query behind the name. The key is empty where
    neither holds one. Raises `ProtocolError` for what is too long to be one."""
    if len(name) > _MAX_NAME:
        raise ProtocolError("the stream key is too long")
    path, query = path_and_query(cleaned(name))
    key = last_part(path)
    if key in ("", APP):
        key = next((last_part(part) for part in reversed(app.split("/")) if part not in ("", APP)), key)
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
