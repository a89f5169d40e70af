"""The stream id: what an SRT caller says it wants, before it is connected (SRT Access Control, "stream ID" guidelines). Sans-IO.

Three forms are understood:
* `#!::r=live/cam1,m=publish,u=alice,s=token` — the SRT Access Control syntax; unknown keys become params.
* `publish:key` and `publish:path:user:password:query` — as mediamtx and its users write it.
* anything else: the whole text is the stream key, with an optional `?name=value` query, as in the field of OBS.

A refusal names its `Reason`; its text never repeats what the caller sent, which may hold a secret.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qsl, unquote

from protocols.errors import Reason, Rejected

MAX_BYTES: Final = 512  # libsrt: the longest stream id
_MAX_PARAMS: Final = 32
_PREFIX: Final = "#!::"
_NESTED: Final = "#!:{"
_FIELDS: Final = {"r": "resource", "m": "mode", "u": "user", "s": "session", "t": "type", "h": "host"}
_ACTIONS: Final = frozenset({"publish", "read", "play", "request", "bidirectional"})
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


def _access_control(text: str) -> StreamId:
    if not text.startswith(_PREFIX):
        nested = " (the nested #!:{ syntax is not taken)" if text.startswith(_NESTED) else ""
        raise Rejected(Reason.BAD_REQUEST, f"stream id begins with #! but not with #!::{nested}")
    known: dict[str, str] = {}
    params: dict[str, str] = {}
    for item in text[len(_PREFIX) :].split(","):
        if not item:
            continue
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise Rejected(Reason.BAD_REQUEST, "stream id has an item that is not key=value")
        target, name = (known, _FIELDS[name]) if name in _FIELDS else (params, name)
        if name in target:
            raise Rejected(Reason.BAD_REQUEST, "stream id has a key twice")
        target[name] = value
    if len(params) > _MAX_PARAMS:
        raise Rejected(Reason.BAD_REQUEST, f"stream id has more than {_MAX_PARAMS} keys")
    if known.pop("type", "") not in _STREAM_TYPES:
        raise Rejected(Reason.UNSUPPORTED_MEDIA, "only t=stream (live MPEG-TS) is taken")
    if host := known.pop("host", ""):
        params.setdefault("host", host)
    # A caller without m= asks to receive (SRT Access Control: the default is "request").
    stream = {"mode": "request", **known}
    key = stream.get("session") or stream.get("user") or stream.get("resource", "")
    return StreamId(**stream, key=key, params=MappingProxyType(params))


def _action(text: str) -> StreamId:
    mode, path, user, password, query = (text.split(":", 4) + [""] * 4)[:5]
    if not user:  # publish:key, where a key may itself hold colons only behind a user
        plain = _plain(path)
        return StreamId(plain.resource, mode, key=plain.key, params=plain.params)
    return StreamId(path, mode, user, key=password or path, params=_query(query))


def _plain(text: str) -> StreamId:
    key, _, query = text.partition("?")
    return StreamId(key, key=key, params=_query(query))


def _query(text: str) -> Mapping[str, str]:
    try:
        return MappingProxyType(dict(parse_qsl(text, max_num_fields=_MAX_PARAMS)))
    except ValueError:
        raise Rejected(Reason.BAD_REQUEST, f"stream id has more than {_MAX_PARAMS} parameters") from None
