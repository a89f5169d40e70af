"""Which node this is: a name that stays the same over restarts, and is no other node's with the same database."""

import secrets
from contextlib import suppress
from pathlib import Path

from gateway.config import Config

_LONG = 16  # hexadecimal digits


def node_name(config: Config) -> str:
    """From its file in the state directory, which the first start makes; gateways with one state directory have ports of their own. Where
    no file can be kept each run is another node."""
    made = secrets.token_hex(_LONG // 2)
    with suppress(OSError, UnicodeError):
        file = Path(config.state.directory, f"node-{config.http.port}")
        if file.exists() and len(name := file.read_text().strip()) == _LONG:
            return name
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.write_text(made)
    return made
