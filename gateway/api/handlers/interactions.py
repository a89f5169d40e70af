"""Reactions and custom events: what people in a call send each other."""

from typing import Any

from gateway.api.framework.route import ApiRequest
from gateway.api.framework.services import Services
from gateway.api.schemas.answers import EmptyResponse, ReactionResponse, SendReactionResponse
from gateway.api.schemas.requests import EventRequest, ReactionRequest
from gateway.events.interactions import InteractionSender
from gateway.model.permissions import Role


async def react(services: Services, request: ApiRequest[ReactionRequest]) -> SendReactionResponse:
    body = request.body
    sender = await _sender(services, request, body.user_id)
    services.interactions.react(request.cid, sender, body.type, body.emoji_code, body.custom)
    reaction = ReactionResponse(type=body.type, emoji_code=body.emoji_code, custom=body.custom, user_id=sender.id)
    return SendReactionResponse(reaction=reaction)


async def send_event(services: Services, request: ApiRequest[EventRequest]) -> EmptyResponse:
    sender = await _sender(services, request, request.body.user_id)
    services.interactions.send(request.cid, sender, request.body.custom)
    return EmptyResponse()


async def _sender(services: Services, request: ApiRequest[Any], named: str | None) -> InteractionSender:
    user_id = request.speaking_for(named)
    if not user_id:
        return InteractionSender("", "", Role.ANONYMOUS, request.remote)
    user = (await services.store.users.get([user_id])).get(user_id)
    return InteractionSender(user_id, user.name if user is not None else "", user.role if user is not None else Role.USER)
