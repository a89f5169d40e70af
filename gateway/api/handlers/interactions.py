"""Reactions and custom events: what people in a call send each other."""

from typing import Any

from gateway.api.framework.route import Asked
from gateway.api.framework.services import Desk
from gateway.api.schemas.answers import EmptyResponse, ReactionResponse, SendReactionResponse
from gateway.api.schemas.requests import EventRequest, ReactionRequest
from gateway.events.interactions import Sender
from gateway.model.permissions import Role


async def react(desk: Desk, asked: Asked[ReactionRequest]) -> SendReactionResponse:
    body = asked.body
    sender = await _sender(desk, asked, body.user_id)
    desk.interactions.react(asked.cid, sender, body.type, body.emoji_code, body.custom)
    reaction = ReactionResponse(type=body.type, emoji_code=body.emoji_code, custom=body.custom, user_id=sender.id)
    return SendReactionResponse(reaction=reaction)


async def send_event(desk: Desk, asked: Asked[EventRequest]) -> EmptyResponse:
    sender = await _sender(desk, asked, asked.body.user_id)
    desk.interactions.send(asked.cid, sender, asked.body.custom)
    return EmptyResponse()


async def _sender(desk: Desk, asked: Asked[Any], named: str | None) -> Sender:
    user_id = asked.speaking_for(named)
    if not user_id:
        return Sender("", "", Role.ANONYMOUS, asked.remote)
    user = (await desk.store.users.get([user_id])).get(user_id)
    return Sender(user_id, user.name if user is not None else "", user.role if user is not None else Role.USER)
