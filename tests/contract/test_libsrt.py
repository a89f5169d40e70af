"""What we rely on in the system's libsrt: names, numbers, layouts, and a clean end."""

import contextlib
import os
import subprocess
import sys
import threading

import pytest

from protocols.srt.address import Address
from protocols.srt.libsrt import FAILED, READABLE, Libsrt, LibsrtMissing, Option, SrtError, load


@pytest.fixture
def pair() -> tuple[Libsrt, int, int]:
    """A listening socket whose hook takes `yes`, and its port."""
    srt = load()
    listening = srt.create()
    srt.set(listening, Option.RCVSYN, 1)
    srt.bind(listening, "127.0.0.1", 0)
    srt.listen(listening, 4, lambda socket, sockaddr, raw: 0 if raw == b"yes" else 1404, lambda error: None)
    return srt, listening, srt.local_port(listening)


def call(srt: Libsrt, port: int, stream_id: str) -> int:
    socket = srt.create()
    srt.set(socket, Option.STREAMID, stream_id)
    srt.set(socket, Option.PEERLATENCY, 300)
    srt.connect(socket, Address("127.0.0.1", port))
    return socket


def test_the_version_is_one_whose_layout_is_known() -> None:
    assert load().version.startswith("1.5.")
    assert load() is load()


def test_statistics_stand_where_we_read_them(pair: tuple[Libsrt, int, int]) -> None:
    srt, listening, port = pair
    calling = call(srt, port, "yes")
    accepted = srt.accept(listening)
    assert accepted is not None
    try:
        srt.set(accepted, Option.RCVSYN, 0)
        epoll = srt.epoll()
        srt.epoll_add(epoll, accepted, READABLE | FAILED)
        for _ in range(10):
            srt.send(calling, bytes(1316))
        wait, read, got = srt.waiter(epoll), srt.reader(), b""
        for _ in range(100):
            if len(got) == 13160:
                break
            assert wait(2000)[0][0] == accepted
            got += read(accepted) or b""
        srt.epoll_release(epoll)
        assert len(got) == 13160
        link = srt.statistics(accepted)
        assert link is not None
        assert (link.packets, link.lost, link.dropped, link.undecryptable) == (10, 0, 0, 0)
        assert 13160 <= link.bytes <= 13160 + 10 * 64
        assert link.latency_ms == 300
        assert 0 < link.round_trip_ms < 200
        assert srt.peer(accepted).host == "127.0.0.1"
        assert srt.get(accepted, Option.RCVLATENCY) == 300
    finally:
        for socket in (calling, accepted, listening):
            srt.close(socket)
    assert srt.statistics(accepted) is None


def test_a_reject_code_reaches_the_caller(pair: tuple[Libsrt, int, int]) -> None:
    srt, listening, port = pair
    socket = srt.create()
    srt.set(socket, Option.STREAMID, "no")
    with pytest.raises(SrtError):
        srt.connect(socket, Address("127.0.0.1", port))
    assert srt.reject_reason(socket) == 1404
    srt.close(socket)
    srt.close(listening)


def test_a_hook_that_raises_refuses() -> None:
    srt, failed = load(), threading.Event()
    listening = srt.create()
    srt.bind(listening, "127.0.0.1", 0)

    def hook(socket: int, sockaddr: bytes, raw: bytes) -> int:
        raise ZeroDivisionError

    srt.listen(listening, 4, hook, lambda error: failed.set())
    socket = srt.create()
    with pytest.raises(SrtError):
        srt.connect(socket, Address("127.0.0.1", srt.local_port(listening)))
    assert srt.reject_reason(socket) == 1500
    assert failed.wait(2)
    srt.close(socket)
    srt.close(listening)


def test_while_the_listen_callback_waits_only_closing_its_socket_waits_with_it() -> None:
    """Why an event loop may answer the callback, and must not close the listening socket meanwhile."""
    srt, called, answered = load(), threading.Event(), threading.Event()
    asking: list[int] = []

    def hook(socket: int, sockaddr: bytes, raw: bytes) -> int:
        if raw == b"asks":
            asking.append(socket)
            called.set()
            assert answered.wait(10)
        return 0

    listening, epoll = srt.create(), srt.epoll()
    srt.set(listening, Option.RCVSYN, 0)
    srt.bind(listening, "127.0.0.1", 0)
    srt.listen(listening, 4, hook, lambda error: None)
    srt.epoll_add(epoll, listening, READABLE | FAILED)
    port, wait, read = srt.local_port(listening), srt.waiter(epoll), srt.reader()
    callers, accepted = [call(srt, port, "at once") for _ in range(2)], list[int]()
    while len(accepted) < 2:
        assert wait(2000)
        while (socket := srt.accept(listening)) is not None:
            srt.epoll_add(epoll, socket, READABLE | FAILED)
            accepted.append(socket)

    def third_caller() -> None:
        with contextlib.suppress(SrtError):  # the listener is closed before it is through
            callers.append(call(srt, port, "asks"))

    third = threading.Thread(target=third_caller, daemon=True)
    third.start()
    assert called.wait(2)

    assert (wait(0), read(accepted[0]), srt.accept(listening)) == ([], b"", None)
    srt.set(asking[0], Option.RCVLATENCY, 200)
    assert srt.get(asking[0], Option.RCVLATENCY) == 200
    assert srt.statistics(accepted[0]) is not None
    srt.epoll_remove(epoll, accepted[1])
    srt.close(accepted[1])
    other = srt.create()
    srt.bind(other, "127.0.0.1", 0)
    srt.listen(other, 4, hook, lambda error: None)
    srt.close(other)
    calling = srt.create()
    srt.set(calling, Option.RCVSYN, 0)
    srt.connect(calling, Address("127.0.0.1", 9))
    srt.close(calling)

    closing = threading.Thread(target=srt.close, args=(listening,), daemon=True)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive()
    answered.set()
    closing.join(2)
    assert not closing.is_alive()
    third.join(10)
    for socket in (*callers, accepted[0]):
        srt.close(socket)
    srt.epoll_release(epoll)


def test_a_read_after_the_end_says_so(pair: tuple[Libsrt, int, int]) -> None:
    srt, listening, port = pair
    calling = call(srt, port, "yes")
    accepted = srt.accept(listening)
    assert accepted is not None
    srt.close(calling)
    assert srt.reader()(accepted) is None
    assert not srt.connected(accepted)
    srt.close(accepted)
    srt.close(listening)


def test_a_missing_library_is_said_in_one_line() -> None:
    with pytest.raises(LibsrtMissing, match=r"libsrt 1\.5.*install") as missing:
        load("/nowhere/libsrt.so.1.5")
    assert "\n" not in str(missing.value)


def test_a_library_that_is_not_libsrt_1_5_is_refused() -> None:
    with pytest.raises(LibsrtMissing, match=r"which libc\.so\.6 is not"):
        load("libc.so.6")


def test_the_process_ends_cleanly_with_streams_running() -> None:
    """A listener left open at exit, again and again: libsrt's threads and exit handlers race when this is done wrongly."""
    program = """
import asyncio
from protocols.srt.address import Address
from protocols.srt.libsrt import load, Option
from protocols.srt.admission import Access
from protocols.srt.listener import SrtListener
async def authorise(stream, host):
    return Access()
async def main():
    listener = await SrtListener("127.0.0.1", 0, authorise=authorise).__aenter__()
    srt = load()
    for n in range(4):
        socket = srt.create()
        srt.set(socket, Option.STREAMID, f"key{n}")
        await asyncio.to_thread(srt.connect, socket, Address("127.0.0.1", listener.port))
        srt.send(socket, bytes(1316))
asyncio.run(main())
"""
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", program], timeout=20, capture_output=True, env={**os.environ})
        assert (done.returncode, done.stderr) == (0, b"")
