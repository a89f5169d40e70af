"""Reactions and messages: what they become, and how many are too many."""

import json

import pytest

from gateway.events.interactions import (
    CALL_BURST,
    SENDER_BURST,
    SENDER_RATE,
    Interactions,
    InteractionSender,
)
from gateway.model.events import Bus, EventType
from protocols.errors import Reason, Rejected
from protocols.rate_limit import SECOND

ANNA = InteractionSender("anna", "Anna", "user", "192.0.2.1")


async def test_what_is_sent_becomes_an_event_that_names_the_sender_and_no_address() -> None:
    interactions = Interactions(Bus())
    reaction = interactions.react("livestream:demo", ANNA, "like", ":heart:", {"n": 1})
    message = interactions.send("livestream:demo", ANNA, {"text": "hello"})
    anna = {"id": "anna", "name": "Anna", "role": "user"}
    assert (reaction.type, message.type) == (EventType.REACTION_NEW, EventType.CUSTOM)
    assert json.loads(reaction.text)["payload"] == {
        "reaction": {"type": "like", "emoji_code": ":heart:", "custom": {"n": 1}},
        "user": anna,
    }
    assert json.loads(message.text)["payload"] == {"custom": {"text": "hello"}, "user": anna}
    assert "192.0.2.1" not in reaction.text + message.text


async def test_a_sender_has_a_rate_and_a_burst_of_his_own() -> None:
    now = 0
    reasons = set[Reason]()
    interactions = Interactions(Bus(), lambda: now)

    def sent(sender: InteractionSender, tries: int) -> int:
        n = 0
        for _ in range(tries):
            try:
                interactions.send("livestream:demo", sender, {})
                n += 1
            except Rejected as refusal:
                reasons.add(refusal.reason)
        return n

    assert sent(ANNA, 30) == SENDER_BURST
    assert sent(InteractionSender("ben", "", "user", ANNA.address), 5) == 5
    now += SECOND
    assert sent(ANNA, 30) == SENDER_RATE
    assert sent(InteractionSender("", "", "anonymous", "192.0.2.7"), 30) == SENDER_BURST
    assert sent(InteractionSender("", "", "anonymous", "192.0.2.7"), 30) == 0
    assert sent(InteractionSender("", "", "anonymous", "192.0.2.8"), 1) == 1
    assert interactions.refused == {"sender": 20 + 25 + 20 + 30}
    assert reasons == {Reason.TOO_MANY_REQUESTS}


async def test_a_crowd_has_a_rate_in_each_call() -> None:
    interactions = Interactions(Bus(), lambda: 0)
    for n in range(int(CALL_BURST)):
        interactions.send("livestream:demo", InteractionSender(f"user{n}", "", "user"), {})
    with pytest.raises(Rejected, match="too many are writing"):
        interactions.send("livestream:demo", ANNA, {})
    interactions.send("livestream:other", ANNA, {})
    assert interactions.refused == {"call": 1}
