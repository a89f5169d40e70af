"""What clients send."""

from dataclasses import fields
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema, create_model

from gateway.api.schemas.parts import (
    CALL_PATTERN,
    Custom,
    Emoji,
    Link,
    Moment,
    Request,
    RoleName,
    Text,
    TypeName,
    UserId,
    Word,
)
from gateway.model.permissions import Capability
from gateway.model.records import (
    FIRST_RANK,
    MAX_CONDITIONS,
    MAX_CURSOR,
    MAX_KEY_SECONDS,
    MAX_LINGER_S,
    MAX_PAGE,
    MAX_PARTICIPANTS,
    MAX_PICTURE_NAME,
    MAX_RANK,
    MAX_REVERT_S,
    MAX_TRIGGER_S,
    OnConflict,
)
from transcode.settings import SETTINGS, Setting, Transcoding

MAX_LIST = 100

_FILTER = {
    "type": "object",
    "description": "Conditions, all of which must hold: a field with a value, or with {$eq, $in, $gt, $gte, $lt, $lte, $exists}; "
    f"$and and $or take a list of such objects. At most {MAX_CONDITIONS} conditions.",
}
Conditions = Annotated[dict[str, Any], WithJsonSchema(_FILTER)]
Cursor = Annotated[str, Field(max_length=MAX_CURSOR, pattern=r"^[A-Za-z0-9_-]+$", description="As an earlier answer gave it.")]
Roles = Annotated[dict[RoleName, Annotated[list[Capability], Field(max_length=64)]], Field(max_length=32)]


class BackstageRequest(Request):
    enabled: bool = Field(default=False, description="Calls begin closed to viewers, until go_live.")
    join_ahead_time_seconds: int = Field(
        default=0, ge=0, le=7 * 86400, description="Viewers may come this long before starts_at."
    )


class HlsRequest(Request):
    enabled: bool = Field(default=True, description="The call may be broadcast as HLS.")
    auto_on: bool = Field(default=False, description="go_live starts HLS.")


class BroadcastingRequest(Request):
    hls: HlsRequest = HlsRequest()


def _wish(setting: Setting, unsaid: object) -> Any:
    least = None if setting.most is None else 0
    return Field(default=unsaid, ge=least, le=setting.most, description=setting.meaning or None)


_WISHES: Final[Any] = {each.name: (each.type, _wish(SETTINGS[each.name], each.default)) for each in fields(Transcoding)}


class TranscodingRequest(create_model("TranscodingWishes", __base__=Request, **_WISHES)):  # type: ignore[misc]
    """0 and empty: as the gateway is configured."""


class LimitsRequest(Request):
    """0: no limit but the gateway's own."""

    max_participants: int = Field(default=0, ge=0, le=MAX_PARTICIPANTS)
    max_duration_seconds: int = Field(default=0, ge=0, le=30 * 86400)


PICTURE_NAME: Final = rf"^[A-Za-z0-9_.-]{{0,{MAX_PICTURE_NAME}}}$"


def _trigger(what: str) -> Any:
    words = f"Viewers are shown the same of an encoder that is there once {what} for so long; 0: never."
    return Field(default=-1, ge=-1, le=MAX_TRIGGER_S, description=words)


class ContinuityRequest(Request):
    """While a live encoder is away. -1: as the gateway is configured."""

    linger_seconds: int = Field(
        default=-1, ge=-1, le=MAX_LINGER_S, description="That its place in the call is kept after it broke off."
    )
    stop_linger_seconds: int = Field(default=-1, ge=-1, le=MAX_LINGER_S, description="The same after it was stopped.")
    return_to_primary: Literal["", "revert_after", "sticky", "manual"] = Field(
        default="",
        description="How an encoder of a better rank, once it is well again, is live again in place of one that stands in for it: after "
        "`revert_after_seconds`, when the other one is down, or when somebody switches. Empty: as the gateway is configured.",
    )
    revert_after_seconds: int = Field(
        default=-1, ge=-1, le=MAX_REVERT_S, description="That it is well without a pause before that."
    )
    picture: str = Field(
        default="",
        pattern=PICTURE_NAME,
        description="What viewers are shown meanwhile: the name of one of the pictures and clips that the operator has put there; "
        "empty or unknown: as the gateway is configured.",
    )
    black_seconds: int = _trigger("its picture is black")
    frozen_seconds: int = _trigger("it sends the same picture")
    silent_seconds: int = _trigger("its sound is silent")
    low_bitrate: int = Field(
        default=-1, ge=-1, le=1_000_000_000, description="And where it sends less than so many bits a second; 0: never."
    )


class SettingsRequest(Request):
    """Only what differs from the call type, or from what a type has by itself."""

    backstage: BackstageRequest = BackstageRequest()
    broadcasting: BroadcastingRequest = BroadcastingRequest()
    transcoding: TranscodingRequest = TranscodingRequest()
    on_conflict: Literal["", OnConflict] = Field(
        default="",
        description="A second encoder comes for a stream that is live, with a key of the same rank: it replaces the first one, or is "
        "refused while that one sends; priority: with a key of any rank: the better one is live, and the other one refused. Empty: as the "
        "gateway is configured.",
    )
    limits: LimitsRequest = LimitsRequest()
    continuity: ContinuityRequest = ContinuityRequest()


class UserRequest(Request):
    id: UserId
    role: RoleName = "user"
    name: Text = ""
    image: Link = ""
    custom: Custom = Field(default={})


class MemberRequest(Request):
    user_id: UserId
    role: RoleName = "user"
    custom: Custom = Field(default={})


def _each_once(members: list[MemberRequest]) -> list[MemberRequest]:
    if len({member.user_id for member in members}) < len(members):
        raise ValueError("each user once")
    return members


Members = Annotated[list[MemberRequest], AfterValidator(_each_once)]


class CallRequest(Request):
    """A call that is to be."""

    created_by_id: UserId | None = Field(
        default=None, description="Whose call it is; a server must say; a user's own call is the user's."
    )
    created_by: UserRequest | None = Field(default=None, description="The same, and the user is stored with it.")
    members: Members = Field(default=[], max_length=MAX_LIST)
    starts_at: Moment | None = None
    custom: Custom = Field(default={})
    settings_override: SettingsRequest = SettingsRequest()


class GetOrCreateCallRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"data": {"created_by_id": "john", "members": [{"role": "host", "user_id": "john"}]}}]}
    )

    data: CallRequest = CallRequest()
    members_limit: int = Field(default=MAX_PAGE, ge=1, le=MAX_PAGE, description="Most members in the answer.")


class UpdateCallRequest(Request):
    """What is left out stays as it is."""

    starts_at: Moment | None = None
    custom: Custom = Field(default={})
    settings_override: SettingsRequest = SettingsRequest()


class EmptyRequest(Request):
    """Nothing to say."""


class GoLiveRequest(Request):
    start_hls: bool = False


class StopLiveRequest(Request):
    continue_hls: bool = False


class UpdateMembersRequest(Request):
    update_members: Members = Field(default=[], max_length=MAX_LIST)
    remove_members: list[UserId] = Field(default=[], max_length=MAX_LIST)


class UserOfCallRequest(Request):
    user_id: UserId


class KickRequest(Request):
    user_id: UserId
    block: bool = Field(default=False, description="They may not come back.")


class MuteUsersRequest(Request):
    """It holds on every node until they are unmuted or the call ends, whether they are in the call now or come later."""

    user_ids: list[UserId] = Field(default=[], max_length=MAX_LIST)
    mute_all_users: bool = Field(default=False, description="Instead of `user_ids`: whoever is in the call now.")
    audio: bool = True
    video: bool = False


class UnmuteUsersRequest(Request):
    user_ids: list[UserId] = Field(min_length=1, max_length=MAX_LIST)
    audio: bool = True
    video: bool = True


class ReactionRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"type": "like", "emoji_code": "👍"}]})

    type: Word
    emoji_code: Emoji = ""
    custom: Custom = Field(default={})
    user_id: UserId | None = Field(default=None, description="Who reacts; only a server may say.")


class EventRequest(Request):
    custom: Custom
    user_id: UserId | None = Field(default=None, description="Who sends it; only a server may say.")


class StreamKeyRequest(Request):
    user_id: UserId | None = Field(default=None, description="Whose key; empty: the one who asks.")
    expires_in_seconds: int | None = Field(default=None, ge=60, le=MAX_KEY_SECONDS, description="Empty: until it is revoked.")
    rank: int = Field(
        default=FIRST_RANK,
        ge=FIRST_RANK,
        le=MAX_RANK,
        description="Of its encoder among those of the stream: that of rank 1 is live, the next ones stand by for it.",
    )
    on_conflict: Literal["", OnConflict] = Field(
        default="",
        description="Where another encoder is there when one comes with this key; empty: as the call's settings say.",
    )
    picture: str = Field(
        default="",
        pattern=PICTURE_NAME,
        description="What viewers are shown while the encoder is away of a stream that begins with this key, as in `continuity`; empty: "
        "as the call's settings say.",
    )


class SwitchRequest(Request):
    rank: int | None = Field(
        default=None,
        ge=FIRST_RANK,
        le=MAX_RANK,
        description="Of the encoder that is to be live; empty: the best that stands by.",
    )


class CreateCallTypeRequest(Request):
    name: TypeName
    grants: Roles = Field(default={}, description="What each role may do; empty: as in the type livestream.")
    settings: SettingsRequest = SettingsRequest()


class UpdateCallTypeRequest(Request):
    """A role that is named gets these grants and no others; what is left out stays as it is."""

    grants: Roles = Field(default={})
    settings: SettingsRequest = SettingsRequest()


class UpsertUsersRequest(Request):
    users: list[UserRequest] = Field(min_length=1, max_length=MAX_LIST)


class SortRequest(Request):
    field: Annotated[str, Field(pattern=CALL_PATTERN)]
    direction: Literal[1, -1] = Field(default=1, description="1: rising, -1: falling.")


class QueryRequest(Request):
    """A list in pages."""

    filter_conditions: Conditions = Field(default={})
    sort: list[SortRequest] = Field(default=[], max_length=4)
    limit: int = Field(default=25, ge=1, le=MAX_PAGE)
    next: Cursor | None = None
    prev: Cursor | None = None


class QueryCallsRequest(QueryRequest):
    """Fields: cid, type, id, created_by_user_id, members (user ids), backstage, live, broadcasting, created_at, updated_at, starts_at,
    live_started_at, live_ended_at, ended_at."""

    filter_conditions: Conditions = Field(
        default={},
        examples=[
            {"type": "livestream", "live": True},
            {"$or": [{"starts_at": {"$gt": "2026-01-01T00:00:00Z"}}, {"members": {"$in": ["john"]}}]},
        ],
    )


class QueryMembersRequest(QueryRequest):
    """Fields: user_id, role, created_at, updated_at."""

    filter_conditions: Conditions = Field(default={}, examples=[{"role": "host"}])


class QueryUsersRequest(QueryRequest):
    """Fields: id, role, name, created_at, updated_at."""

    filter_conditions: Conditions = Field(default={}, examples=[{"id": {"$in": ["john", "mary"]}}])
