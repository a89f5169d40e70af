"""A task that ends by an error that nobody foresaw is told to the operator, however it was started."""

import asyncio
import logging
from typing import Any


def log_defect(log: logging.Logger, what: str, task: asyncio.Future[Any]) -> bool:
    """Log `what` came of it, if the finished task raised; whether it did. One that was cancelled did not.

    With its first two arguments bound it is a done callback.
    """
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log.error("%s, by a defect of ours", what, exc_info=error)
    return error is not None
