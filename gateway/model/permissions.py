"""Who may do what in a call: one rule for the API, viewers and the encoders of all protocols. Sans-IO: it reads its arguments alone.

What is kept true: a role may do what its call type grants it, and no more; a user who is blocked may do nothing; in a call that has ended
nothing goes on; while a call is in backstage only those who may `join-backstage` see, hear or write in it, but encoders may publish; who is
nobody in particular reads only what is open to anybody now; nobody gives a role that may do more than they may themselves.
A refusal says what to do, in words that fit any client.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from protocols.errors import Reason
from protocols.media import Kind


class Capability(StrEnum):
    """What there is to be allowed. The values are those of the API (`own_capabilities`, grants of a call type)."""

    CREATE_CALL = "create-call"
    READ_CALL = "read-call"
    UPDATE_CALL = "update-call"
    DELETE_CALL = "delete-call"
    END_CALL = "end-call"
    JOIN_CALL = "join-call"
    JOIN_BACKSTAGE = "join-backstage"
    SEND_AUDIO = "send-audio"
    SEND_VIDEO = "send-video"
    GO_LIVE = "go-live"  # and stop_live
    START_BROADCAST = "start-broadcast"  # and stop_broadcasting
    BLOCK_USERS = "block-users"
    KICK_USERS = "kick-users"
    MUTE_USERS = "mute-users"
    UPDATE_MEMBERS = "update-members"
    CREATE_REACTION = "create-reaction"
    SEND_EVENT = "send-event"
    LIST_STREAMS = "list-streams"
    END_STREAM = "end-stream"
    CREATE_STREAM_KEY = "create-stream-key"  # for others; hosts make their own


Grants = Mapping[str, frozenset[Capability]]
"""What each role may do in calls of one type."""


class Role(StrEnum):
    """The roles that the gateway itself gives; a call type may grant others, under any name."""

    ADMIN = "admin"
    USER = "user"
    GUEST = "guest"
    ANONYMOUS = "anonymous"
    HOST = "host"
    COHOST = "cohost"
    MODERATOR = "moderator"
    SPEAKER = "speaker"
    VIEWER = "viewer"
    INVITED = "invited"  # the bearer of a watch link that the operator made for this call


@dataclass(frozen=True, slots=True)
class CallState:
    """What of a call the rule depends on."""

    ended: bool = False
    backstage: bool = False  # closed to viewers: not live, and not so near to its start that they may join ahead
    blocked: bool = False  # the user who asks
    public: bool = False  # the operator's configuration lets anybody watch


@dataclass(frozen=True, slots=True)
class Allowed:
    """It may be done."""


@dataclass(frozen=True, slots=True)
class Denied:
    """It may not: `reason` for the client's protocol, `why` for people."""

    reason: Reason
    why: str


ALL: Final = frozenset(Capability)
SENDING: Final = frozenset({Capability.SEND_AUDIO, Capability.SEND_VIDEO})
"""All that a stream key is for."""
WATCHING: Final = frozenset(
    {
        *(Capability.READ_CALL, Capability.JOIN_CALL, Capability.JOIN_BACKSTAGE, Capability.LIST_STREAMS),
        *(Capability.CREATE_REACTION, Capability.SEND_EVENT),
    }
)
"""All that a token for watching is for."""
_WATCH: Final = frozenset({Capability.READ_CALL, Capability.JOIN_CALL, Capability.LIST_STREAMS})
_INTERACT: Final = _WATCH | {Capability.CREATE_REACTION, Capability.SEND_EVENT}
_TALK: Final = _INTERACT | {Capability.SEND_AUDIO}
_PUBLISH: Final = _TALK | {Capability.SEND_VIDEO}
_COHOST: Final = _PUBLISH | {Capability.JOIN_BACKSTAGE}
_MODERATE: Final = frozenset({Capability.BLOCK_USERS, Capability.KICK_USERS, Capability.MUTE_USERS, Capability.END_STREAM})
_HOST: Final = ALL - {Capability.CREATE_CALL, Capability.DELETE_CALL}
_CREATE: Final = frozenset({Capability.CREATE_CALL})

# The grants of the members' roles are the same in all built-in types but `development`.
MEMBERS: Final[Grants] = {
    Role.ADMIN: ALL,
    Role.HOST: _HOST,
    Role.COHOST: _COHOST,
    Role.MODERATOR: _COHOST | _MODERATE,
    Role.SPEAKER: _TALK | {Capability.JOIN_BACKSTAGE},
    Role.VIEWER: _INTERACT,
    Role.INVITED: _INTERACT | {Capability.JOIN_BACKSTAGE},
}
BUILT_IN: Final[Mapping[str, Grants]] = MappingProxyType(
    {
        "livestream": {**MEMBERS, Role.USER: _INTERACT | _CREATE, Role.GUEST: _INTERACT, Role.ANONYMOUS: frozenset()},
        "default": {**MEMBERS, Role.USER: _PUBLISH | _CREATE, Role.GUEST: _PUBLISH, Role.ANONYMOUS: frozenset()},
        "audio_room": {**MEMBERS, Role.USER: _INTERACT | _CREATE, Role.GUEST: _INTERACT, Role.ANONYMOUS: frozenset()},
        "development": {**dict.fromkeys(Role, ALL), Role.ANONYMOUS: frozenset()},
    }
)
"""The grants of the built-in call types."""
DEVELOPMENT: Final = "development"
"""The one of them that is there only where the configuration says so: in it every user may do everything."""

_PRESENCE: Final = frozenset(
    {
        Capability.JOIN_CALL,
        Capability.LIST_STREAMS,
        Capability.CREATE_REACTION,
        Capability.SEND_EVENT,
    }
)  # takes part in what goes on, so that a closed backstage refuses it
_AFTER_THE_END: Final = frozenset(
    {Capability.READ_CALL, Capability.CREATE_CALL, Capability.DELETE_CALL, Capability.UPDATE_CALL, Capability.UPDATE_MEMBERS}
)
_PUBLIC: Final = frozenset({Capability.READ_CALL, Capability.JOIN_CALL, Capability.LIST_STREAMS})
IN_BACKSTAGE: Final = "the call is in backstage, where only its hosts are: wait until it is live"

_TO_SEND: Final[Mapping[Kind, Capability]] = {Kind.VIDEO: Capability.SEND_VIDEO, Kind.AUDIO: Capability.SEND_AUDIO}
_REFUSALS: Final[Mapping[Capability, str]] = {
    Capability.JOIN_CALL: "you may not watch this call: ask its host to make you a member",
    Capability.SEND_AUDIO: "you may not send audio into this call: ask its host to make you a host or speaker",
    Capability.SEND_VIDEO: "you may not publish into this call: ask its host to make you a host",
}


def allowed(grants: Grants, roles: Collection[str], capability: Capability, state: CallState) -> Allowed | Denied:
    """Whether one of these roles may do it in a call of this state. Of an application's server it is never asked."""
    if state.blocked:
        return Denied(Reason.FORBIDDEN, "you are blocked in this call: its host can unblock you")
    nobody = not set(roles) - {Role.ANONYMOUS}
    looks_in = nobody and capability is Capability.READ_CALL  # as who takes part: what is not open now is not shown
    if state.ended and (capability not in _AFTER_THE_END or looks_in):
        return Denied(Reason.FORBIDDEN, "the call has ended: create another one")
    held = granted(grants, roles) | (_PUBLIC if state.public else frozenset())
    if capability not in held or (looks_in and Capability.JOIN_CALL not in held):
        words = _REFUSALS.get(capability, f"you may not do this in this call: it takes {capability.value}")
        if nobody:
            return Denied(Reason.UNAUTHORIZED, f"{words.partition(':')[0]} without a token: ask its host for a link")
        return Denied(Reason.FORBIDDEN, words)
    if state.backstage and (capability in _PRESENCE or looks_in) and Capability.JOIN_BACKSTAGE not in held:
        return Denied(Reason.FORBIDDEN, IN_BACKSTAGE)
    return Allowed()


def barred(held: Collection[Capability]) -> frozenset[Kind]:
    """What who holds these may not send."""
    return frozenset(kind for kind, needed in _TO_SEND.items() if needed not in held)


def granted(grants: Grants, roles: Collection[str]) -> frozenset[Capability]:
    """All that these roles may do together, whatever the call's state."""
    return frozenset().union(*(grants.get(role, frozenset()) for role in roles))


def above(grants: Grants, roles: Collection[str], role: str) -> frozenset[Capability]:
    """What somebody with this role may do in a call that those with `roles` may not: who gives it gives away what is not theirs."""
    every = {**MEMBERS, **grants}  # a type may come to grant the members' roles later
    return granted(every, [role]) - granted(grants, roles) - _CREATE
