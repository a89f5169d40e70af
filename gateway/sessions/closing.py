"""Ends that are waited for, but not for ever."""

import asyncio
import logging
from collections.abc import Awaitable
from typing import Final

CLOSE_TIMEOUT_S: Final = 2.0

log = logging.getLogger(__name__)


async def close_in_time(closing: Awaitable[None], words: str, session: str) -> None:
    """Waits for it at most `CLOSE_TIMEOUT_S`; what takes longer is left, and `words` say so in the log."""
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await closing
    except TimeoutError:
        log.warning(words, extra={"session": session})
