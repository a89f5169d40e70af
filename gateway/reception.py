"""Admission: each publisher that a listener yields is authorised and becomes a session, takes over its own session, or is told why not."""

import asyncio
import logging
from collections.abc import Callable

from gateway.auth import Grant
from gateway.log import event
from gateway.registry import Registry
from gateway.session import Session, SessionPolicy
from protocols.errors import Reason, Rejected
from protocols.publisher import Credential, Listener, Publisher
from transcode.pool import Workers

log = logging.getLogger(__name__)

Authorise = Callable[[Credential, str | None], Grant]


class Reception:
    """Serves listeners until cancelled. At most `max_sessions` at once; more are refused as overloaded."""

    def __init__(
        self, registry: Registry, authorise: Authorise, workers: Workers, policy: SessionPolicy, *, max_sessions: int
    ) -> None:
        self.draining = False
        self._registry = registry
        self._authorise = authorise
        self._workers = workers
        self._policy = policy
        self._max_sessions = max_sessions

    async def serve(self, listener: Listener) -> None:
        async with asyncio.TaskGroup() as publishers:
            async for publisher in listener:
                publishers.create_task(self._receive(publisher), name=f"publisher {publisher.id}")

    async def _receive(self, publisher: Publisher) -> None:
        try:
            session = await self._admit(publisher)
        except Rejected as refusal:
            self._registry.refused[publisher.protocol, refusal.reason.label] += 1
            event(
                log,
                logging.WARNING,
                f"refused: {refusal.detail}",
                session=publisher.id,
                protocol=publisher.protocol,
                remote=publisher.remote,
                software=publisher.software,
                reason=refusal.reason.label,
            )
            await publisher.reject(refusal)
            return
        if session is not None:
            try:
                await session.run()
            finally:
                self._registry.remove(session)

    async def _admit(self, publisher: Publisher) -> Session | None:
        """The new session to run, or None when the publisher went to the session that its user already has."""
        if self.draining:
            raise Rejected(Reason.OVERLOADED, "the gateway is shutting down: connect again in a moment")
        grant = self._authorise(publisher.credential, publisher.params.get("call"))
        event(
            log,
            logging.INFO,
            "publishing",
            session=publisher.id,
            protocol=publisher.protocol,
            remote=publisher.remote,
            software=publisher.software,
            call=grant.call_cid,
            user=grant.user_id,
        )
        present = self._registry.sessions.get((grant.call_cid, grant.user_id))
        if present is not None:
            await present.take_over(publisher)
            return None
        if len(self._registry.sessions) >= self._max_sessions:
            raise Rejected(Reason.OVERLOADED, "the gateway has no room for another stream: try again later or on another node")
        session = Session(
            publisher, grant.user_id, grant.call_cid, self._registry.call(grant.call_cid), self._workers, self._policy
        )
        self._registry.add(session)
        return session
