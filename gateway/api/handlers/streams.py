"""The streams that encoders send into calls: listed, looked at and ended; each is one user's in one call."""

from gateway.api.framework.errors import ApiError
from gateway.api.framework.route import Asked
from gateway.api.framework.services import Desk
from gateway.api.schemas.answers import EmptyResponse, OneStreamResponse, StreamsResponse
from gateway.api.schemas.requests import EmptyRequest
from gateway.api.status import listed, stream
from gateway.sessions.seat import Session


async def get_all(desk: Desk, asked: Asked[EmptyRequest]) -> StreamsResponse:
    """Of all calls whose streams the caller may list."""
    return _shown(listed(desk.authority, asked.identity, desk.registry.sessions.values()))


async def of_call(desk: Desk, asked: Asked[EmptyRequest]) -> StreamsResponse:
    return _shown(desk.sessions(asked.cid))


async def get(desk: Desk, asked: Asked[EmptyRequest]) -> OneStreamResponse:
    return OneStreamResponse(stream=stream(_session(desk, asked)))


async def end(desk: Desk, asked: Asked[EmptyRequest]) -> EmptyResponse:
    await desk.store.calls.end_stream(asked.cid, asked.path["user_id"], now=asked.now)
    return EmptyResponse()


def _session(desk: Desk, asked: Asked[EmptyRequest]) -> Session:
    session = desk.registry.sessions.get((asked.cid, asked.path["user_id"]))
    if session is None:
        raise ApiError(404, f"no stream of {asked.path['user_id']} is in the call")
    return session


def _shown(sessions: list[Session]) -> StreamsResponse:
    return StreamsResponse(streams=[stream(each) for each in sessions])
