"""What people paste into an encoder's field: a key with quotes, blanks, line ends, a path or a whole address around it. Sans-IO.

Kept true: a key has letters, figures and `@ . _ ~ -` only, so that nothing of it can be lost here; text that holds none stays as typed.
"""

import re
from typing import Final
from urllib.parse import unquote

# blanks of all kinds, quotes as keyboards, word processors and Markdown make them, angle brackets, and characters that nobody sees
_AROUND: Final = (
    " \t\n\v\f\r\x00\x85\xa0\u2002\u2003\u2007\u2008\u2009\u200a\u200b\u200c\u200d\u2028\u2029\u202f\u2060\u3000\ufeff"
    "\"'`\xb4<>\u2018\u2019\u201a\u201c\u201d\u201e\xab\xbb\u2039\u203a"
)
_ADDRESS: Final = re.compile(r"[A-Za-z][A-Za-z0-9+]{0,15}://[^/?]*")
_KEY: Final = re.compile(r"[A-Za-z0-9@._~-]+")


def cleaned(text: str) -> str:
    """Without blanks and line ends (also those that nobody sees), quotes and angle brackets at its ends."""
    return text.strip(_AROUND)


def decoded(text: str) -> str:
    """Without percent encoding (RFC 3986 §2.1), in which addresses may carry `.` and `~` that need none; cleaned."""
    return cleaned(unquote(text))


def is_address(text: str) -> bool:
    """Whether it begins with a scheme and a host."""
    return _ADDRESS.match(text) is not None


def path_and_query(text: str) -> tuple[str, str]:
    """Both of a path or a whole address, as they stand. A key behind a server's `?call=…/` belongs to the path."""
    path, _, query = text[found.end() if (found := _ADDRESS.match(text)) else 0 :].partition("?")
    server, slash, key = query.rstrip("/").rpartition("/")
    server = server.rstrip("/")
    field = server.rpartition("&")[2]
    if slash and key and field.startswith("call=") and "/" not in field:
        return f"{path.rstrip('/')}/{key}", server
    return path, query


def last_part(path: str) -> str:
    """The key at the end of a path, e.g. of `/live//key/`; where none can be there, the path as it stands, without slashes around it."""
    last = decoded(path).strip("/").rpartition("/")[2]
    return last if _KEY.fullmatch(last) else path.strip("/")
