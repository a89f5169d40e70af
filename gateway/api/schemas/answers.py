"""What the gateway answers. Times are in UTC."""

from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field

from gateway.api.schemas.parts import FieldError, Model
from gateway.model.permissions import Capability
from gateway.model.records import Settings


class ErrorResponse(Model):
    """Every error."""

    code: str
    message: str = Field(description="What is wrong, and what to change.")
    status: int
    more_info: str = Field(description="Where the documents say more.")
    details: list[FieldError]


class UserResponse(Model):
    id: str
    role: str
    name: str
    image: str
    custom: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class MemberResponse(Model):
    user_id: str
    user: UserResponse
    role: str = Field(description="In the call.")
    custom: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class AddressResponse(Model):
    address: str = Field(description="Empty: the gateway does not take this protocol.")


class IngressResponse(Model):
    """Where encoders send to. The stream key is the token of a user who may publish, or a short one made by POST …/stream_keys.

    A gateway that takes further protocols gives their addresses beside these.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")
    __pydantic_extra__: dict[str, AddressResponse]

    rtmp: AddressResponse = Field(description="The server; the stream key goes into the encoder's field for it.")
    rtmps: AddressResponse
    srt: AddressResponse = Field(description="The stream id is a stream key, or a token followed by ?call= and the cid.")
    whip: AddressResponse = Field(description="The stream key is the bearer token.")


class HlsEgressResponse(Model):
    playlist_url: str = Field(description="Empty: the call is not broadcast.")


class EgressResponse(Model):
    broadcasting: bool = Field(description="HLS is wished.")
    hls: HlsEgressResponse | None


class ParticipantResponse(Model):
    """A user whose media are in the call."""

    user_id: str
    protocol: str
    joined_at: datetime
    muted_audio: bool
    muted_video: bool


class SessionResponse(Model):
    """What goes on in the call on this node."""

    live_started_at: datetime | None
    live_ended_at: datetime | None
    participants: list[ParticipantResponse]
    viewers: int


class CallResponse(Model):
    cid: str
    type: str
    id: str
    created_by: UserResponse | None = Field(
        description="null, as everything but the call's state and start is empty, to whom backstage is closed."
    )
    created_at: datetime
    updated_at: datetime
    starts_at: datetime | None
    ended_at: datetime | None
    backstage: bool = Field(description="Closed to viewers: only who may join-backstage is in it.")
    live: bool
    custom: dict[str, Any]
    settings: Settings | None
    blocked_user_ids: list[str] = Field(description="Shown to who may block.")
    ingress: IngressResponse
    egress: EgressResponse
    session: SessionResponse


class ApiAnswer(Model):
    """Every answer says how long it took."""

    duration: str = Field(default="", description="Time that it took in the gateway, as 1.23ms.")


class EmptyResponse(ApiAnswer):
    """It is done."""


class CallStateResponse(ApiAnswer):
    call: CallResponse
    members: list[MemberResponse] = Field(description="The first of them: members/query has all. Empty for who shows no token.")
    membership: MemberResponse | None = Field(description="The caller's own.")
    own_capabilities: list[Capability] = Field(description="What the caller may do now.")


class WatchTokenResponse(ApiAnswer):
    token: str = Field(
        description="Of the caller, in this call, for watching alone: it goes into the fragment of the watch page."
    )
    expires_at: datetime


class GetOrCreateCallResponse(CallStateResponse):
    created: bool


class GoLiveResponse(ApiAnswer):
    call: CallResponse
    playlist_url: str = Field(description="Empty: no HLS.")


class StopLiveResponse(ApiAnswer):
    call: CallResponse


class BroadcastingResponse(ApiAnswer):
    playlist_url: str = Field(description="Empty: the gateway has no HLS.")


class UpdateMembersResponse(ApiAnswer):
    members: list[MemberResponse] = Field(description="Those that were added or changed.")


class QueriedCallResponse(Model):
    """Its members are told by the call itself, and by `members/query`."""

    call: CallResponse
    membership: MemberResponse | None
    own_capabilities: list[Capability]


class ListAnswer(ApiAnswer):
    """A list: it costs more than another answer, and is asked for less often."""


class ForwardAnswer(ListAnswer):
    """It has so many bytes at most."""

    next: str | None = Field(description="Give it as next in the query, and get what comes behind; null: there is nothing.")


class PagedAnswer(ListAnswer):
    """A page may have fewer items than were asked for: it has so many bytes at most."""

    next: str | None
    prev: str | None


class QueryCallsResponse(PagedAnswer):
    """Only calls that the caller may read: a page may have fewer than were asked for although there is a next one."""

    calls: list[QueriedCallResponse]


class QueryMembersResponse(PagedAnswer):
    members: list[MemberResponse]


class QueryUsersResponse(PagedAnswer):
    users: list[UserResponse]


class ReactionResponse(Model):
    type: str
    emoji_code: str
    custom: dict[str, Any]
    user_id: str


class SendReactionResponse(ApiAnswer):
    reaction: ReactionResponse


class StreamKeyResponse(Model):
    """`name` is public, it tells the keys of a call apart."""

    name: str
    user_id: str
    call_cid: str
    created_by_id: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    rank: int
    on_conflict: str
    picture: str


class RtmpWay(Model):
    server: str
    stream_key: str


class ServerAndKey(Model):
    server: str
    stream_key: str


class SrtWay(Model):
    server: str
    stream_id: str
    passphrase: str
    address: str = Field(description="All in one, as ffmpeg takes it.")


class WhipWay(Model):
    server: str
    bearer_token: str


class CreatedStreamKeyResponse(ApiAnswer):
    """The key is shown this once, with what to paste for each protocol.

    A gateway that takes further protocols gives their server and key beside these.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")
    __pydantic_extra__: dict[str, ServerAndKey]

    stream_key: StreamKeyResponse
    key: str
    rtmp: RtmpWay
    srt: SrtWay
    whip: WhipWay


class StreamKeysResponse(ListAnswer):
    stream_keys: list[StreamKeyResponse]


class CallTypeResponse(Model):
    name: str
    grants: dict[str, list[Capability]]
    settings: Settings
    built_in: bool
    created_at: datetime
    updated_at: datetime


class OneCallTypeResponse(ApiAnswer):
    call_type: CallTypeResponse


class CallTypesResponse(ForwardAnswer):
    call_types: dict[str, CallTypeResponse]


class UpsertUsersResponse(ApiAnswer):
    users: dict[str, UserResponse]


class OneUserResponse(ApiAnswer):
    user: UserResponse


class TrackResponse(Model):
    """One track: what came, what happens to it and why, and the delay of each stage (ms, median)."""

    kind: str
    codec: str
    layer: str = Field(description="Of several sizes of the same picture, which; empty: the only one.")
    profile: str
    width: int
    height: int
    frame_rate: float
    sample_rate: int
    channels: int
    bitrate_bps: int
    keyframe_interval_ms: int
    mode: str = Field(description="passthrough, transcode or refuse.")
    reason: str
    why: str
    advice: str
    delay_ms_p50: float | None
    delay_ms_p95: float | None
    delay_ms_by_stage: dict[str, float | None]


class LinkResponse(Model):
    """Packets since the start, and the last reading."""

    latency_ms: int
    buffer_ms: int
    capacity_mbps: float
    packets_received: int
    packets_lost: int
    packets_retransmitted: int
    packets_dropped: int
    packets_belated: int


class StandbyTrackResponse(Model):
    kind: str
    codec: str
    width: int
    height: int


class StandbyResponse(Model):
    """One of the encoders of a stream, which stands by for the live one."""

    id: str
    rank: int = Field(description="Of its stream key; 1 is the best.")
    role: Literal["primary", "backup"]
    state: Literal["standby", "silent"] = Field(description="silent: nothing comes of it, so that it could not go on.")
    protocol: str
    software: str
    started_at: datetime
    bitrate_bps: int = Field(description="Of its connection.")
    round_trip_ms: float
    link: LinkResponse | None = Field(description="What SRT knows of the connection.")
    tracks: list[StandbyTrackResponse]
    warnings: list[str] = Field(description="What its streamer should change.")


class StreamResponse(Model):
    """One encoder's stream."""

    id: str
    call: str
    user: str
    protocol: str
    software: str
    started_at: datetime
    state: str
    bitrate_bps: int
    round_trip_ms: float | None
    link: LinkResponse | None = Field(description="What SRT knows of the connection.")
    reconnects: int
    rank: int = Field(description="Of the stream key of the live encoder, of which all else is; 1 is the best.")
    role: Literal["primary", "backup"]
    standbys: list[StandbyResponse] = Field(description="The encoders that stand by for it, the best rank first.")
    tracks: list[TrackResponse]
    viewers: int
    warnings: list[str] = Field(description="What the streamer should change.")


class StreamsResponse(ForwardAnswer):
    streams: list[StreamResponse]


class OneStreamResponse(ApiAnswer):
    stream: StreamResponse
