"""The streams that encoders send into calls: listed, looked at and ended; each is one user's in one call."""

from gateway.api.framework.errors import ApiError
from gateway.api.framework.route import ApiRequest
from gateway.api.framework.services import Services
from gateway.api.schemas.answers import EmptyResponse, OneStreamResponse, StreamsResponse
from gateway.api.schemas.requests import EmptyRequest, SwitchRequest
from gateway.api.status import listed, stream, streams_page
from gateway.sessions.seat import Seat


async def get_all(services: Services, request: ApiRequest[EmptyRequest]) -> StreamsResponse:
    """Of all calls whose streams the caller may list."""
    return _shown(services, listed(services.authorizer, request.identity, services.registry.seats.values()), request.cursor)


async def of_call(services: Services, request: ApiRequest[EmptyRequest]) -> StreamsResponse:
    return _shown(services, services.seats(request.cid), request.cursor)


async def get(services: Services, request: ApiRequest[EmptyRequest]) -> OneStreamResponse:
    seat = _seat(services, request)
    return OneStreamResponse(stream=stream(seat, services.registry.viewers(seat.call_cid)))


async def end(services: Services, request: ApiRequest[EmptyRequest]) -> EmptyResponse:
    await services.store.calls.end_stream(request.cid, request.path["user_id"], now=request.now)
    return EmptyResponse()


async def switch(services: Services, request: ApiRequest[SwitchRequest]) -> OneStreamResponse:
    seat = _seat(services, request)
    seat.inputs.switch(request.body.rank)
    return OneStreamResponse(stream=stream(seat, services.registry.viewers(seat.call_cid)))


def _seat(services: Services, request: ApiRequest[EmptyRequest] | ApiRequest[SwitchRequest]) -> Seat:
    seat = services.registry.seats.get((request.cid, request.path["user_id"]))
    if seat is None:
        raise ApiError(404, f"no stream of {request.path['user_id']} is in the call")
    return seat


def _shown(services: Services, seats: list[Seat], cursor: str | None) -> StreamsResponse:
    shown, after = streams_page(services.registry, seats, cursor)
    return StreamsResponse(streams=shown, next=after)
