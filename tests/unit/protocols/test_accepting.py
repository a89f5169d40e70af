"""Who waits at a listening socket is taken one by one, and again once there are file descriptors."""

import asyncio
import logging
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from protocols.accepting import accept

WAITING = 20


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as entered:
        yield entered


def listening(stack: ExitStack, waiting: int) -> socket.socket:
    """With so many who have connected already."""
    bound = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=2 * WAITING))
    bound.setblocking(False)
    for _ in range(waiting):
        stack.enter_context(socket.create_connection(bound.getsockname()))
    return bound


@contextmanager
def without_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_others_have_their_turn_between_two_that_wait(stack: ExitStack) -> None:
    bound, turns = listening(stack, WAITING), 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    busy = asyncio.create_task(other())
    for _ in range(WAITING):
        accepted, host, port = await accept(bound, "RTMP")
        stack.enter_context(accepted)
        assert (host, port) == accepted.getpeername()
    busy.cancel()
    assert turns >= WAITING


async def test_who_comes_while_there_are_no_descriptors_waits_and_is_taken_later(
    stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    bound = listening(stack, 1)
    accepting = accept(bound, "RTMP")
    accepting.send(None)  # by hand, so that nobody else needs a descriptor meanwhile
    with without_descriptors():
        waits_for = accepting.send(None)
    assert isinstance(waits_for, asyncio.Future)
    assert [(each.levelno, each.message) for each in caplog.records] == [
        (logging.WARNING, "no RTMP connection accepted: Too many open files")
    ]
    accepting.close()
    stack.enter_context((await accept(bound, "RTMP"))[0])
