"""Admission: each publisher that a listener yields is authorised and becomes a session, takes over its own session, or is told why not.

Kept true: `examine` alone decides; who asks before there is a publisher (SRT, before the handshake) gets the same answer.
"""

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
    """Serves listeners until cancelled. At most `max_sessions` at once; more are refused as overloaded.

    `take_over`: a second encoder with the same right replaces the first one; else it is refused while that one is live.
    """

    def __init__(
        self, registry: Registry, authorise: Authorise, workers: Workers, *, max_sessions: int, take_over: bool = True
    ) -> None:
        self.draining = False
        self._registry = registry
        self._authorise = authorise
        self._workers = workers
        self._max_sessions = max_sessions
        self._take_over = take_over

    async def serve(self, listener: Listener, policy: SessionPolicy) -> None:
        """Sessions of `listener`'s publishers behave by `policy`."""
        # No TaskGroup: in it a defect met with one publisher would cancel all the others.
        receiving: set[asyncio.Task[None]] = set()

        def ended(task: asyncio.Task[None]) -> None:
            receiving.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("a publisher was lost by a defect of ours", exc_info=error)

        try:
            async for publisher in listener:
                task = asyncio.create_task(self._receive(publisher, policy), name=f"publisher {publisher.id}")
                receiving.add(task)
                task.add_done_callback(ended)
            if receiving:
                await asyncio.wait(receiving)
        finally:
            leaving = list(receiving)
            for task in leaving:
                task.cancel()
            await asyncio.gather(*leaving, return_exceptions=True)

    def examine(self, credential: Credential, call: str | None) -> Grant:
        """What a publisher may do now; raises `Rejected`. Reads memory only: any thread may ask."""
        grant = self._authorise(credential, call)
        present = self._registry.sessions.get((grant.call_cid, grant.user_id))
        if present is None and self.draining:
            raise Rejected(Reason.OVERLOADED, "the gateway is shutting down: connect again in a moment")
        if present is not None and present.occupied and not self._take_over:
            raise Rejected(
                Reason.CONFLICT, "another encoder is live with this key: stop that one first, or wait until it is gone"
            )
        if present is None and len(self._registry.sessions) >= self._max_sessions:
            raise Rejected(Reason.OVERLOADED, "the gateway has no room for another stream: try again later or on another node")
        return grant

    def log_refusal(self, refusal: Rejected, **who: str) -> None:
        event(log, logging.WARNING, f"refused: {refusal.detail}", **who, reason=refusal.reason.label)

    async def _receive(self, publisher: Publisher, policy: SessionPolicy) -> None:
        try:
            session = await self._admit(publisher, policy)
        except Rejected as refusal:
            self._registry.refused[publisher.protocol, refusal.reason.label] += 1
            self.log_refusal(
                refusal,
                session=publisher.id,
                protocol=publisher.protocol,
                remote=publisher.remote,
                software=publisher.software,
            )
            await publisher.reject(refusal)
            return
        if session is not None:
            try:
                await session.run()
            finally:
                self._registry.remove(session)

    async def _admit(self, publisher: Publisher, policy: SessionPolicy) -> Session | None:
        """The new session to run, or None when the publisher went to the session that its user already has."""
        grant = self.examine(publisher.credential, publisher.params.get("call"))
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
        session = Session(publisher, grant.user_id, grant.call_cid, self._registry.call(grant.call_cid), self._workers, policy)
        self._registry.add(session)
        return session
