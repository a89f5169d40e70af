"""Sockets that somebody else has opened, as systemd hands them over: from descriptor 3 on, for the process that is named."""

import json
import socket
import subprocess
import sys
from contextlib import ExitStack

import pytest

SAY = """
import json, os
from gateway.node.inherited_sockets import InheritedSockets
inherited = InheritedSockets.of(os.environ)
passed_down = [os.get_inheritable(3 + n) for n in range(COUNT)]
taken = {port: len(inherited.take(port)) for port in PORTS for _ in range(2)}
passed_on = [name for name in os.environ if name.startswith("LISTEN_")]
print(json.dumps([bool(inherited), list(taken.values()), passed_on, passed_down]))
inherited.warn_of_unused()
"""


def child(
    sockets: list[socket.socket], ports: list[int], *, pid: str = "$$", count: str = "", twice: bool = False
) -> list[object]:
    """What a process says that gets these."""
    moves = " ".join(f"{3 + number}<&{each.fileno()}" for number, each in enumerate(sockets))
    program = SAY.replace("PORTS", repr(ports)).replace("COUNT", str(len(sockets)))
    program = program if twice else program.replace(" for _ in range(2)", "")
    command = f'exec {moves}; LISTEN_PID={pid} LISTEN_FDS={count or len(sockets)} LISTEN_FDNAMES=a:b exec "$0" -c "$1"'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, program],
        pass_fds=[each.fileno() for each in sockets],
        capture_output=True,
        text=True,
        check=True,
    )
    return [*json.loads(done.stdout), done.stderr]


@pytest.fixture
def stack() -> ExitStack:  # type: ignore[misc]
    with ExitStack() as entered:
        yield entered


def opened(stack: ExitStack, count: int) -> tuple[list[socket.socket], list[int]]:
    """High above the descriptors that they are moved to."""
    sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
    return sockets, [each.getsockname()[1] for each in sockets]


def test_each_is_taken_by_its_port_once_and_nobody_below_inherits_it(stack: ExitStack) -> None:
    sockets, ports = opened(stack, 2)
    there, taken, passed_on, inheritable, _ = child(sockets, [*ports, 1, 0])
    assert (there, taken, passed_on, inheritable) == (True, [1, 1, 0, 0], [], [False, False])
    assert child(sockets, ports, twice=True)[1] == [0, 0]


def test_what_is_for_another_process_or_is_no_number_is_not_ours(stack: ExitStack) -> None:
    sockets, ports = opened(stack, 1)
    assert child(sockets, ports, pid="1")[:3] == [False, [0], []]
    for count in ("0", "-1", "many", "1000000"):
        assert child(sockets, ports, count=count)[:3] == [False, [0], []], count


def test_what_nobody_takes_and_what_is_no_listening_socket_is_said(stack: ExitStack) -> None:
    (listening,), (port,) = opened(stack, 1)
    datagrams = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    unbound = stack.enter_context(socket.socket())
    there, taken, _, _, said = child([datagrams, unbound, listening], [1])
    assert (there, taken) == (True, [0])
    assert str(said).count("no listening TCP socket") == 2
    assert "nobody answers there" in str(said)
    assert child([datagrams, unbound, listening], [port])[1] == [1]
