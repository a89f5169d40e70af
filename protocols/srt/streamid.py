"""The stream id: what an SRT caller says it wants, before it is connected (SRT Access Control, "stream ID" guidelines). Sans-IO.

Three forms are understood:
* `#!::r=live/cam1,m=publish,u=alice,s=token` — the SRT Access Control syntax; unknown keys become params.
* `publish:key` and `publish:path:user:password:query` — as mediamtx and its users write it.
* anything else: the whole text is the stream key, with an optional `?name=value` query, as in the field of OBS.

Who typed them nearly right is understood: a path before a key, a whole address, `streamid=` in front, quotes, blanks, line ends, percent
signs, and a comma in a value make no difference.

A refusal names its `Reason`; its text never repeats what the caller sent, which may hold a secret.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qsl, unquote

from protocols.errors import Reason, Rejected
from protocols.pasted import cleaned, decoded, is_address, last_part, path_and_query

MAX_BYTES: Final = 512  # libsrt: the longest stream id
_MAX_PARAMS: Final = 32
_PREFIX: Final = "#!::"
_NESTED: Final = "#!:{"
_FIELDS: Final = {"r": "resource", "m": "mode", "u": "user", "s": "session", "t": "type", "h": "host"}
_ACTIONS: Final = frozenset({"publish", "read", "play", "request", "bidirectional"})
_NAMED: Final = "streamid="
_STREAM_TYPES: Final = frozenset({"", "stream", "auth"})


@dataclass(frozen=True, slots=True, repr=False)
class StreamId:
    """What the caller said. Never logged whole (no repr): key, session and user may be secrets."""

    resource: str = ""
    mode: str = "publish"
    user: str = ""
    session: str = ""
    key: str = ""  # the credential: `s`, else `u`, else `r`; of the plain forms the key or password
    params: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def beside(self) -> Mapping[str, str]:
        """What it says beside the key: `call` (the resource), `user`, and its own params, which win."""
        named = {"call": self.resource, "user": self.user}
        shown = {name: value for name, value in named.items() if value and value != self.key}
        return MappingProxyType({**shown, **self.params})


def parse_stream_id(raw: bytes) -> StreamId:
    """The stream id of a caller that wants to publish; raises `Rejected` for everything else.

    BAD_REQUEST: not to be read; METHOD_NOT_ALLOWED: wants to watch; UNSUPPORTED_MEDIA: wants to send a file; NOT_FOUND: names nothing.
    """
    if len(raw) > MAX_BYTES:
        raise Rejected(Reason.BAD_REQUEST, f"stream id longer than {MAX_BYTES} bytes")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Rejected(Reason.BAD_REQUEST, "stream id is not UTF-8") from None
    text = _unwrapped(cleaned(text))
    if text[:3].lower() == "%23":  # "#" of a caller whose address was not decoded
        text = unquote(text)
    if any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in text):
        raise Rejected(Reason.BAD_REQUEST, "stream id holds control characters")
    if text.startswith("#!"):
        stream = _access_control(text)
    elif text.partition(":")[0] in _ACTIONS and ":" in text:
        stream = _action(text)
    else:
        stream = _plain(text)
    if stream.mode != "publish":
        raise Rejected(Reason.METHOD_NOT_ALLOWED, "only m=publish is taken here: watch over WebRTC or HLS")
    if not stream.key:
        raise Rejected(Reason.NOT_FOUND, "no stream named: put the stream key into the stream id")
    return stream


def _unwrapped(text: str) -> str:
    """The stream id in what was pasted with it: a whole address, of which it is a parameter, or its name."""
    if is_address(text):
        _, query = path_and_query(text)
        named = (field[len(_NAMED) :] for field in query.split("&") if field.startswith(_NAMED))
        return decoded(next(named, text))
    return cleaned(text.removeprefix(_NAMED))


def _access_control(text: str) -> StreamId:
    if not text.startswith(_PREFIX):
        nested = " (the nested #!:{ syntax is not taken)" if text.startswith(_NESTED) else ""
        raise Rejected(Reason.BAD_REQUEST, f"stream id begins with #! but not with #!::{nested}")
    known, params = _fields(text[len(_PREFIX) :])
    if len(params) > _MAX_PARAMS:
        raise Rejected(Reason.BAD_REQUEST, f"stream id has more than {_MAX_PARAMS} keys")
    if known.pop("type", "") not in _STREAM_TYPES:
        raise Rejected(Reason.UNSUPPORTED_MEDIA, "only t=stream (live MPEG-TS) is taken")
    if host := known.pop("host", ""):
        params.setdefault("host", host)
    # A caller without m= asks to receive (SRT Access Control: the default is "request").
    stream = {"mode": "request", **known}
    if not stream.get("session") and not stream.get("user") and "resource" in stream:
        stream["resource"] = last_part(stream["resource"])  # it is the key
    key = stream.get("session") or stream.get("user") or stream.get("resource", "")
    return StreamId(**stream, key=key, params=MappingProxyType(params))


def _fields(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """The keys that SRT Access Control names, and the others. What has no name belongs to the value before it, which has a comma."""
    items: list[tuple[str, str]] = []
    for item in text.split(","):
        name, equals, value = item.partition("=")
        if equals and name.strip():
            items.append((name.strip(), value))
        elif items and item and not equals:
            items[-1] = (items[-1][0], f"{items[-1][1]},{item}")
        elif item:
            raise Rejected(Reason.BAD_REQUEST, "stream id has an item that is not key=value")
    known: dict[str, str] = {}
    params: dict[str, str] = {}
    for name, value in items:
        target, field_name = (known, _FIELDS[name]) if name in _FIELDS else (params, name)
        if field_name in target:
            raise Rejected(Reason.BAD_REQUEST, "stream id has a key twice")
        target[field_name] = decoded(value)
    return known, params


def _action(text: str) -> StreamId:
    mode, path, user, password, query = (text.split(":", 4) + [""] * 4)[:5]
    if not user:  # publish:key, where a key may itself hold colons only behind a user
        plain = _plain(path)
        return StreamId(plain.resource, mode, key=plain.key, params=plain.params)
    return StreamId(path, mode, user, key=password or path, params=_query(query))


def _plain(text: str) -> StreamId:
    path, query = path_and_query(text)
    key = last_part(path)
    return StreamId(key, key=key, params=_query(query))


def _query(text: str) -> Mapping[str, str]:
    try:
        return MappingProxyType(dict(parse_qsl(text, max_num_fields=_MAX_PARAMS)))
    except ValueError:
        raise Rejected(Reason.BAD_REQUEST, f"stream id has more than {_MAX_PARAMS} parameters") from None
