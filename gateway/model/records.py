"""What is stored, as plain data: times are aware and in UTC, ids obey `gateway.config.CALL_ID` and `USER_ID`, custom data is JSON.

Kept true: nothing here is a secret in clear: an API key's secret is sealed, and of a stream key only its name is known, from which who has
the gateway's secret can make the rest. A call is named by its `cid`, `type:id`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar, get_type_hints

from gateway.model.permissions import BUILT_IN, CallState, Grants, Role
from protocols.media import Kind
from transcode.settings import UNSAID, Transcoding

Json = Mapping[str, Any]
T = TypeVar("T")

MAX_PARTICIPANTS: Final = 16  # of one call, at once: who sends media into it
MAX_MEMBERS: Final = 1000  # of one call; viewers need not be members
MAX_BLOCKED: Final = 1000  # of one call
MAX_MUTED: Final = 1000  # users of one call
MAX_ROLES: Final = 64  # to which one call type grants something
MAX_CUSTOM_BYTES: Final = 5000  # of one record, as JSON
MAX_NAME: Final = 256  # characters, of a user or an API key
MAX_IMAGE: Final = 2048  # characters of a user's picture's address
MAX_PAGE: Final = 100  # items of a list
MAX_CONDITIONS: Final = 50  # of one filter
MAX_CURSOR: Final = 1024  # characters
MAX_KEY_SECONDS: Final = 10 * 365 * 86400  # that a stream key or a token may be good for, where it has an end
FIRST_RANK: Final = 1
MAX_RANK: Final = 100  # of a stream key
MAX_REVERT_S: Final = 3600  # that a better input is well before it has its place back
MAX_LINGER_S: Final = 1800  # that a seat is kept without an encoder
MAX_PICTURE_NAME: Final = 64  # characters of the name of one of the operator's pictures
MAX_TRIGGER_S: Final = 3600  # that a picture may be black, and the like, before viewers are shown a slate
MAX_SECRETS: Final = 2  # of one API key: the present one and, during a rotation, the one before

OnConflict = Literal["take_over", "refuse", "priority"]
"""What becomes of a second encoder of a stream: it replaces the first one; it is refused while that one sends; the better rank counts,
and of the same rank the newer one."""


@dataclass(frozen=True, slots=True)
class Backstage:
    """Before a call is live only those with `join-backstage` are in it."""

    enabled: bool = False
    join_ahead_time_seconds: int = 0  # others may come this long before `starts_at`


@dataclass(frozen=True, slots=True)
class HlsSettings:
    """The call as HLS, for audiences that need no low latency."""

    enabled: bool = True  # it may be started
    auto_on: bool = False  # it starts with go_live


@dataclass(frozen=True, slots=True)
class Broadcasting:
    hls: HlsSettings = HlsSettings()


@dataclass(frozen=True, slots=True)
class CallLimits:
    """0: no limit but the gateway's own."""

    max_participants: int = 0
    max_duration_seconds: int = 0

    @property
    def participants(self) -> int:
        """How many there may be at once."""
        return min(self.max_participants or MAX_PARTICIPANTS, MAX_PARTICIPANTS)


@dataclass(frozen=True, slots=True)
class ContinuitySettings:
    """While a live encoder is away. -1: as the gateway's configuration says."""

    linger_seconds: int = -1  # that its place is kept after it broke off
    stop_linger_seconds: int = -1  # and after it was stopped
    return_to_primary: Literal["", "revert_after", "sticky", "manual"] = (
        ""  # when it is well again; empty: as for linger_seconds
    )
    revert_after_seconds: int = -1  # that it is well for, first
    picture: str = (
        ""  # of the operator's (`slate.folder`), the name of that which viewers are shown; empty: as for linger_seconds
    )
    # Of an encoder that is there viewers are shown that, too, after so long of each; 0: never
    black_seconds: int = -1
    frozen_seconds: int = -1
    silent_seconds: int = -1
    low_bitrate: int = -1  # bit/s


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a call type, and of a call: those of its type with the call's override over them."""

    backstage: Backstage = Backstage()
    broadcasting: Broadcasting = Broadcasting()
    transcoding: Transcoding = UNSAID
    on_conflict: Literal["", OnConflict] = ""  # empty: as the gateway's configuration says
    limits: CallLimits = CallLimits()
    continuity: ContinuitySettings = ContinuitySettings()


@dataclass(frozen=True, slots=True)
class CallType:
    """Grants per role and settings of all calls `name:…`."""

    name: str
    grants: Grants
    settings: Settings
    created_at: datetime
    updated_at: datetime
    built_in: bool = False


class GivenRole(NamedTuple):
    """A role, and the API key by which it was given: with the key it goes. Empty: by the gateway's operator, or before this was kept."""

    role: str
    api_key: str = ""


@dataclass(frozen=True, slots=True)
class User:
    """`api_key`: by which the role was given, as in `GivenRole`."""

    id: str
    created_at: datetime
    updated_at: datetime
    role: str = Role.USER
    name: str = ""
    image: str = ""
    custom: Json = field(default_factory=dict)
    api_key: str = ""


@dataclass(frozen=True, slots=True)
class Member:
    """`api_key`: by which the role was given, as in `GivenRole`."""

    call_cid: str
    user_id: str
    created_at: datetime
    updated_at: datetime
    role: str = Role.USER
    custom: Json = field(default_factory=dict)
    api_key: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """One call. It is live, in backstage or has ended; `live_ended_at` says when it was last live. `api_key`: by which it was made, and its
    creator its host, as in `GivenRole`."""

    type: str
    id: str
    created_by_id: str
    created_at: datetime
    updated_at: datetime
    backstage: bool = False  # nobody but those with `join-backstage` may be in it
    starts_at: datetime | None = None
    live_started_at: datetime | None = None
    live_ended_at: datetime | None = None
    ended_at: datetime | None = None
    broadcasting: bool = False  # HLS is wished
    settings_override: Json = field(default_factory=dict)  # in the shape of `Settings`, with only what differs
    custom: Json = field(default_factory=dict)
    blocked_user_ids: tuple[str, ...] = ()
    muted_users: Mapping[str, frozenset[Kind]] = field(default_factory=dict)
    """By user id, what nobody is given of whom, whether they are in the call or not; nobody with nothing."""
    api_key: str = ""

    @property
    def cid(self) -> str:
        return f"{self.type}:{self.id}"

    @property
    def live(self) -> bool:
        return self.ended_at is None and not self.backstage and self.live_started_at is not None

    def settings(self, call_type: CallType) -> Settings:
        return merged(call_type.settings, self.settings_override, strict=False)

    def state(self, call_type: CallType, user_id: str, now: datetime, *, public: bool = False) -> CallState:
        """What `permissions.allowed` asks for, for this user at this time."""
        ahead = timedelta(seconds=self.settings(call_type).backstage.join_ahead_time_seconds)
        open_ahead = self.starts_at is not None and ahead > timedelta(0) and now >= self.starts_at - ahead
        # Once it was live, being back in backstage is the host's wish: the planned start is past.
        open_ahead = open_ahead and self.live_ended_at is None
        return CallState(
            ended=self.ended_at is not None,
            backstage=self.backstage and not open_ahead,
            blocked=bool(user_id) and user_id in self.blocked_user_ids,
            public=public,
        )


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """A secret of an API key, encrypted (`gateway.access.sealing`); after `expires_at` it is not taken any more."""

    sealed: bytes = field(repr=False)
    created_at: datetime
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An application's key. `secrets` has the newest first; a revoked one verifies nothing."""

    key: str
    name: str
    secrets: tuple[SealedSecret, ...]
    created_at: datetime
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class StreamKey:
    """A short stream key, for one user in one call. `name` is its public half (see `gateway.access.stream_keys`); `rank` is its encoder's
    place among those of the stream, 1 the best; `on_conflict` as in `Settings`, empty: as the call's; `api_key`: by which it was made, as
    in `GivenRole`."""

    name: str
    call_cid: str
    user_id: str
    created_by_id: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    picture: str = ""  # as that of `ContinuitySettings`, for a stream that begins with this key; empty: as its call's
    api_key: str = ""
    rank: int = FIRST_RANK
    on_conflict: Literal["", OnConflict] = ""

    def usable(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class ChangeKind(StrEnum):
    """What a row of the list of changes is about; its key is beside it."""

    CALL = "call"  # cid: the call, its members or who is blocked
    USER = "user"  # user id
    CALL_TYPE = "call_type"  # name
    API_KEY = "api_key"  # key
    STREAM_KEY = "stream_key"  # name
    KICK = "kick"  # "cid user": out now, but free to come back
    END_STREAM = "end_stream"  # "cid user"
    MUTE_ALL = "mute_all"  # "cid kind …": whoever is in the call now, on whatever node


@dataclass(frozen=True, slots=True)
class Change:
    """Something was written. `seq` rises by one with each, over all processes that share the store."""

    seq: int
    kind: ChangeKind
    key: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event that a webhook is still to be told (the outbox). `seq` gives the order; `body` is the JSON that is sent and signed."""

    seq: int
    call_cid: str
    type: str
    body: bytes
    created_at: datetime
    attempts: int = 0
    due_at: datetime | None = None  # None: at once


@dataclass(frozen=True, slots=True)
class Condition:
    """`field op value`; the fields are those of `gateway.store.queries`. `in` takes a tuple, `exists` a bool."""

    field: str
    op: Literal["eq", "in", "gt", "gte", "lt", "lte", "exists"]
    value: Any


@dataclass(frozen=True, slots=True)
class AllOf:
    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    parts: tuple["Filter", ...]


Filter = Condition | AllOf | AnyOf
EVERYTHING: Final = AllOf(())


@dataclass(frozen=True, slots=True)
class Sort:
    field: str
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Items and the opaque cursors of the pages around them; None where there is none. `after` has for each item that of the page that
    begins behind it."""

    items: tuple[T, ...]
    next: str | None = None
    previous: str | None = None
    after: tuple[str, ...] = ()

    def first(self, number: int) -> "Page[T]":
        """The same without the items behind so many (at least 1): they are on the next page."""
        if number >= len(self.items):
            return self
        return Page(self.items[:number], self.after[number - 1], self.previous, self.after[:number])


def merged(settings: Settings, override: Json, *, strict: bool = True) -> Settings:
    """The settings with what the override says over them. Raises `ValueError` naming what is no setting or has the wrong type; not
    `strict`, it is left out: a newer gateway with the same store may know more."""
    return _overlay(settings, override, "settings_override", strict)


def to_json(value: Any) -> Any:
    """Settings as JSON."""
    if is_dataclass(value):
        return {each.name: to_json(getattr(value, each.name)) for each in fields(value)}
    return value


def _overlay(base: T, override: Json, where: str, strict: bool) -> T:
    hints = get_type_hints(type(base))
    changed: dict[str, Any] = {}
    for name, value in override.items():
        try:
            if name not in hints:
                raise ValueError(f"{where}.{name} is no setting")
            present = getattr(base, name)
            if not is_dataclass(present):
                changed[name] = _checked(value, hints[name], f"{where}.{name}")
            elif isinstance(value, Mapping):
                changed[name] = _overlay(present, value, f"{where}.{name}", strict)
            else:
                raise ValueError(f"{where}.{name} must be an object")
        except ValueError:
            if strict:
                raise
    return type(base)(**{each.name: getattr(base, each.name) for each in fields(base)} | changed)  # type: ignore[arg-type]


def _checked(value: Any, hint: Any, where: str) -> Any:
    choices = getattr(hint, "__args__", None)
    if choices is not None:
        if value not in choices:
            raise ValueError(f"{where} must be one of {', '.join(filter(None, choices))}")
        return value
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ValueError(f"{where} must be of type {hint.__name__}")
    return value


def built_in_types(now: datetime) -> dict[str, CallType]:
    """The call types that every store has from the start."""
    settings = {
        "livestream": Settings(backstage=Backstage(enabled=True)),
        "audio_room": Settings(backstage=Backstage(enabled=True)),
    }
    return {
        name: CallType(name, grants, settings.get(name, Settings()), now, now, built_in=True)
        for name, grants in BUILT_IN.items()
    }
