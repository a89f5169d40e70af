"""What is written into the store takes effect here: rights, events, and calls as HLS."""

import logging

from gateway.api.framework.broadcasts import in_step, resume
from gateway.enforcement.change_feed import ChangeFeed
from gateway.enforcement.enforcement import Enforcement
from gateway.events.producers import CallEvents
from gateway.telemetry.log import event
from gateway.wiring.events import EventServices
from gateway.wiring.sessions import SessionServices
from gateway.wiring.store import StoreAccess

log = logging.getLogger(__name__)


async def change_feed(access: StoreAccess, seats: SessionServices, told: EventServices, calls: CallEvents) -> ChangeFeed:
    """Started, to be run; HLS is on where it was wished before, and who was live before is awaited. Raises `StoreUnavailable`."""
    enforcement = Enforcement(
        seats.registry,
        seats.admission.rights,
        seats.viewers,
        access.rights_cache,
        access.authorizer,
        access.store,
        on_changed=told.fanout.reconsider,
        on_ended=in_step(seats.broadcasts, calls.written),
        on_muted=told.producers.muted,
    )
    elsewhere = in_step(seats.broadcasts, calls.elsewhere)
    feed = ChangeFeed(access.store, access.rights_cache, enforcement, elsewhere)
    await feed.start()
    for key, why in access.authenticator.useless_secrets().items():
        words = f"a secret of an API key signs nothing: {why}. Give it another one with gateway apikey rotate"
        event(log, logging.ERROR, words, api_key=key)
    await resume(seats.broadcasts, access.store)
    await seats.kept.restore()
    return feed
