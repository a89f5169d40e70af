"""The gateway's end of a worker's socket: messages leave at once or together, in order, and what the socket does not take waits."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from transcode import messages
from transcode.host.pipe import Pipe
from transcode.messages import MessageReader, WorkerMessage

LONG = 3600.0


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def came(sock: socket.socket) -> list[int]:
    """The streams of the messages that are there."""
    inbox = MessageReader()
    found: list[int] = []
    while True:
        try:
            count = sock.recv_into(inbox.room())
        except BlockingIOError:
            return found
        found += [frame.stream for frame in inbox.received(count)]


def piped(sock: socket.socket) -> Pipe:
    return Pipe(sock, lambda frame: None, lambda why: None)


def message(stream: int, size: int = 10) -> bytes:
    return messages.pack(WorkerMessage.PACKET, stream, body=bytes(size))


async def test_a_message_leaves_at_once_and_those_that_may_wait_leave_with_it(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    pipe = piped(ends[0])
    pipe.write(message(1))
    assert came(ends[1]) == [1]
    for stream in (2, 3):
        pipe.write(message(stream), within=LONG)
    assert came(ends[1]) == []
    assert pipe.backlog == 44
    pipe.write(message(4))
    assert came(ends[1]) == [2, 3, 4]
    assert pipe.backlog == 0
    pipe.close()


async def test_what_may_wait_leaves_when_the_first_of_it_has_waited_long_enough(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    pipe, loop = piped(ends[0]), asyncio.get_running_loop()
    begun = loop.time()
    pipe.write(message(1), within=0.05)
    pipe.write(message(2)[:12], message(2)[12:], within=LONG)
    readable = asyncio.Event()
    loop.add_reader(ends[1], readable.set)
    async with asyncio.timeout(10):
        await readable.wait()
    loop.remove_reader(ends[1])
    assert came(ends[1]) == [1, 2]
    assert loop.time() - begun >= 0.05
    pipe.close()


async def test_what_the_socket_does_not_take_waits_in_order(ends: tuple[socket.socket, socket.socket]) -> None:
    pipe = piped(ends[0])
    for stream in range(100):
        pipe.write(message(stream, 50_000), within=LONG if stream % 2 else 0)
    pipe.write(message(100))
    assert pipe.backlog > 1_000_000
    found: list[int] = []
    inbox, loop, done = MessageReader(), asyncio.get_running_loop(), asyncio.Event()

    def read() -> None:
        found.extend(frame.stream for frame in inbox.received(ends[1].recv_into(inbox.room())))
        if len(found) > 100:
            done.set()

    loop.add_reader(ends[1], read)
    async with asyncio.timeout(10):
        await done.wait()
    loop.remove_reader(ends[1])
    assert found == list(range(101))
    assert pipe.backlog == 0
    pipe.close()
    pipe.write(message(101))
    assert pipe.backlog == 0, "dropped"
