"""Every route of the API, one line each: the dispatcher serves this table and the OpenAPI document tells it."""

from typing import Final

from gateway.api.framework.route import AnyRoute, Route, Scope
from gateway.api.handlers import call_types, calls, interactions, live, people, stream_keys, streams
from gateway.api.schemas import answers as gives
from gateway.api.schemas import requests as takes
from gateway.model.permissions import Capability

_CALL: Final = "/call/{type}/{id}"
_KIND: Final = "/calltypes/{name}"
_CONFLICT: Final = frozenset({409})
_MISSING: Final = frozenset({404})
_C = Capability

CALLS: Final[tuple[AnyRoute, ...]] = (
    Route("POST", _CALL, "get_or_create_call", "Gets a call, or creates it", _C.CREATE_CALL, takes.GetOrCreateCallRequest,
          gives.GetOrCreateCallResponse, calls.get_or_create, makes=True, makes_call=True, refuses=_MISSING),
    Route("GET", _CALL, "get_call", "A call", _C.READ_CALL, None, gives.CallStateResponse, calls.get),
    Route("PATCH", _CALL, "update_call", "Changes what is given", _C.UPDATE_CALL, takes.UpdateCallRequest,
          gives.CallStateResponse, calls.update),
    Route("DELETE", _CALL, "delete_call", "Deletes a call with its members and keys", _C.DELETE_CALL, None,
          gives.EmptyResponse, calls.delete),
    Route("POST", "/calls", "query_calls", "Calls that the caller may read, by filter, in pages", Scope.USER, takes.QueryCallsRequest,
          gives.QueryCallsResponse, calls.query),
    Route("POST", _CALL + "/watch_token", "create_watch_token", "The caller's own token, narrowed to watching this call", _C.JOIN_CALL,
          takes.EmptyRequest, gives.WatchTokenResponse, calls.watch_token, makes=True),
    Route("POST", _CALL + "/go_live", "go_live", "Lets viewers in", _C.GO_LIVE, takes.GoLiveRequest,
          gives.GoLiveResponse, live.go_live, refuses=_CONFLICT),
    Route("POST", _CALL + "/stop_live", "stop_live", "Sends viewers out; the call is in backstage", _C.GO_LIVE,
          takes.StopLiveRequest, gives.StopLiveResponse, live.stop_live, refuses=_CONFLICT),
    Route("POST", _CALL + "/mark_ended", "end_call", "Ends the call for good", _C.END_CALL, takes.EmptyRequest,
          gives.EmptyResponse, live.mark_ended),
    Route("POST", _CALL + "/start_broadcasting", "start_broadcasting", "Starts HLS", _C.START_BROADCAST, takes.EmptyRequest,
          gives.BroadcastingResponse, live.start_broadcasting, refuses=_CONFLICT),
    Route("POST", _CALL + "/stop_broadcasting", "stop_broadcasting", "Stops HLS", _C.START_BROADCAST, takes.EmptyRequest,
          gives.EmptyResponse, live.stop_broadcasting),
)  # fmt: skip

PEOPLE: Final[tuple[AnyRoute, ...]] = (
    Route("POST", _CALL + "/members", "update_members", "Adds, changes and removes members", _C.UPDATE_MEMBERS,
          takes.UpdateMembersRequest, gives.UpdateMembersResponse, people.update_members),
    Route("POST", _CALL + "/members/query", "query_members", "Members by filter, in pages", _C.READ_CALL,
          takes.QueryMembersRequest, gives.QueryMembersResponse, people.query_members),
    Route("POST", _CALL + "/block", "block_user", "Sends a user out, who may not come back", _C.BLOCK_USERS,
          takes.UserOfCallRequest, gives.EmptyResponse, people.block),
    Route("POST", _CALL + "/unblock", "unblock_user", "They may come back", _C.BLOCK_USERS, takes.UserOfCallRequest,
          gives.EmptyResponse, people.unblock),
    Route("POST", _CALL + "/kick", "kick_user", "Sends a user out", _C.KICK_USERS, takes.KickRequest,
          gives.EmptyResponse, people.kick),
    Route("POST", _CALL + "/mute_users", "mute_users", "Nobody hears or sees them any more", _C.MUTE_USERS,
          takes.MuteUsersRequest, gives.EmptyResponse, people.mute),
    Route("POST", _CALL + "/unmute_users", "unmute_users", "They are heard and seen again", _C.MUTE_USERS,
          takes.UnmuteUsersRequest, gives.EmptyResponse, people.unmute),
    Route("POST", _CALL + "/reaction", "send_reaction", "Reacts", _C.CREATE_REACTION, takes.ReactionRequest,
          gives.SendReactionResponse, interactions.react),
    Route("POST", _CALL + "/event", "send_event", "Sends a custom event to all in the call", _C.SEND_EVENT,
          takes.EventRequest, gives.EmptyResponse, interactions.send_event),
    Route("POST", "/users", "upsert_users", "Adds or replaces users", Scope.SERVER, takes.UpsertUsersRequest,
          gives.UpsertUsersResponse, people.upsert_users),
    Route("POST", "/users/query", "query_users", "Users by filter, in pages", Scope.SERVER, takes.QueryUsersRequest,
          gives.QueryUsersResponse, people.query_users),
    Route("GET", "/user/{user_id}", "get_user", "A user", Scope.USER, None, gives.OneUserResponse, people.get_user,
          refuses=_MISSING),
)  # fmt: skip

ENCODERS: Final[tuple[AnyRoute, ...]] = (
    Route("GET", "/streams", "list_streams", "Streams of all calls whose streams the caller may list", Scope.USER, None,
          gives.StreamsResponse, streams.get_all, pages=True),
    Route("GET", _CALL + "/streams", "list_streams_of_call", "Streams of a call", _C.LIST_STREAMS, None,
          gives.StreamsResponse, streams.of_call, pages=True),
    Route("GET", _CALL + "/streams/{user_id}", "get_stream", "A user's stream: codec, treatment and why, delay, advice",
          _C.LIST_STREAMS, None, gives.OneStreamResponse, streams.get),
    Route("DELETE", _CALL + "/streams/{user_id}", "end_stream", "Ends a user's stream; the encoder may come back",
          _C.END_STREAM, None, gives.EmptyResponse, streams.end),
    Route("POST", _CALL + "/streams/{user_id}/switch", "switch_stream", "Makes another of a user's encoders the live one", _C.END_STREAM,
          takes.SwitchRequest, gives.OneStreamResponse, streams.switch, refuses=_CONFLICT),
    Route("POST", _CALL + "/stream_keys", "create_stream_key", "A short key for an encoder", _C.SEND_VIDEO,
          takes.StreamKeyRequest, gives.CreatedStreamKeyResponse, stream_keys.create, makes=True),
    Route("GET", _CALL + "/stream_keys", "list_stream_keys", "Stream keys, without what is secret of them", _C.SEND_VIDEO,
          None, gives.StreamKeysResponse, stream_keys.get_all),
    Route("DELETE", _CALL + "/stream_keys/{key}", "revoke_stream_key", "The key is not taken any more; its stream ends",
          _C.SEND_VIDEO, None, gives.EmptyResponse, stream_keys.revoke),
)  # fmt: skip

KINDS: Final[tuple[AnyRoute, ...]] = (
    Route("GET", "/calltypes", "list_call_types", "All call types", Scope.SERVER, None, gives.CallTypesResponse,
          call_types.get_all, pages=True),
    Route("POST", "/calltypes", "create_call_type", "A call type of one's own", Scope.SERVER, takes.CreateCallTypeRequest,
          gives.OneCallTypeResponse, call_types.create, makes=True, refuses=_CONFLICT),
    Route("GET", _KIND, "get_call_type", "A call type", Scope.SERVER, None, gives.OneCallTypeResponse, call_types.get,
          refuses=_MISSING),
    Route("PUT", _KIND, "update_call_type", "Changes what is given", Scope.SERVER, takes.UpdateCallTypeRequest,
          gives.OneCallTypeResponse, call_types.update, refuses=_MISSING),
    Route("DELETE", _KIND, "delete_call_type", "Deletes a call type that no call has", Scope.SERVER, None,
          gives.EmptyResponse, call_types.delete, refuses=_MISSING | _CONFLICT),
)  # fmt: skip

ROUTES: Final[tuple[AnyRoute, ...]] = CALLS + PEOPLE + ENCODERS + KINDS
