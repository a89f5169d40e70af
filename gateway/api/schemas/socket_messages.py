"""What a client says over the WebSocket, one JSON object a message; and the closing codes that it may hear.

Each message has a `type`; one with an `id` is answered with it as `reply_to`.
"""

from enum import Enum
from typing import Annotated, Final, Literal

from pydantic import Field, TypeAdapter

from gateway.access.jwt import MAX_TOKEN
from gateway.api.schemas.parts import Custom, Emoji, Request, UserId, Word
from gateway.config import CallId

Id = Annotated[str, Field(max_length=64)]


class Authenticate(Request):
    """The first message, where the request had no `Authorization`. Without a token: anonymous."""

    type: Literal["authenticate"]
    id: Id | None = None
    token: Annotated[str, Field(max_length=MAX_TOKEN)] = ""
    api_key: Annotated[str, Field(max_length=64)] = ""


class Subscribe(Request):
    """From now on tell what happens in this call; `*`: in every call, for a server."""

    type: Literal["subscribe"]
    id: Id | None = None
    cid: CallId | Literal["*"]


class Unsubscribe(Request):
    type: Literal["unsubscribe"]
    id: Id | None = None
    cid: CallId | Literal["*"]


class React(Request):
    type: Literal["reaction"]
    id: Id | None = None
    cid: CallId
    reaction: "ReactionPart"
    user_id: UserId | None = Field(default=None, description="Who reacts; only a server may say.")


class ReactionPart(Request):
    type: Word
    emoji_code: Emoji | None = None
    custom: Custom = Field(default_factory=dict)


class Send(Request):
    """A custom event."""

    type: Literal["custom"]
    id: Id | None = None
    cid: CallId
    custom: Custom
    user_id: UserId | None = Field(default=None, description="Who sends it; only a server may say.")


class Ping(Request):
    type: Literal["ping"]
    id: Id | None = None


Message = Authenticate | Subscribe | Unsubscribe | React | Send | Ping
MESSAGES: Final[TypeAdapter[Message]] = TypeAdapter(Annotated[Message, Field(discriminator="type")])


class Close(Enum):
    """Why the gateway closes a connection: the code (RFC 6455 §7.4.2: 4000 to 4999 are the application's) and words."""

    GOING_AWAY = (1001, "the gateway is shutting down: connect again in a moment")
    NOT_TEXT = (1003, "send JSON as text")
    TRY_LATER = (1013, "the gateway cannot tell now who you are: connect again in a moment")
    UNAUTHENTICATED = (4001, "send a valid token as the first message")
    EXPIRED = (4002, "the token has expired or was withdrawn: connect with a new one")
    TOO_SLOW = (4008, "events were not read in time: connect again and read the call's state")
    TOO_MANY = (4029, "too many messages: wait a moment, then connect again")
