"""The process that has libav loaded once and forks workers from itself (`python -m transcode.worker.fork_server FD`).

It is ours and not multiprocessing's, since that one imports the gateway's `__main__` into each child, keeps a resource tracker, cannot be
ended, and tells an exit only to who polls for it. It speaks JSON datagrams over a SOCK_SEQPACKET pair with the gateway:

    gateway -> {"launch": id, "limits": {...}, "devices": [...]} with the worker's end of its socket as SCM_RIGHTS;  {"kill": id}
    server  -> {"ready": true, "encoders": [...], "walls": [...]};  {"launched": id, "pid": pid};
               {"exited": id, "status": code or -signal, "done": packets that it was through with}

Keeps true: one thread, so that a fork is safe; no worker outlives it; it ends with the gateway, by the end of the socket, and so the
signals that a terminal or a supervisor sends to the whole group are not for it: the gateway drains first.
"""

import array
import contextlib
import gc
import json
import mmap
import os
import selectors
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from transcode.limits import MAX_REQUEST, WorkerLimits

_COUNT = 4  # bytes: packets that a worker is through with, modulo 2**32, as it writes them


class Forked(NamedTuple):
    pid: int
    watch: int  # pidfd
    done: mmap.mmap  # the worker's count, readable when it has ended, however it did


def main(control: socket.socket) -> None:
    """Serve until the gateway's end of `control` is closed."""
    from transcode.worker import encoders, process, sandbox  # libav is loaded here, once

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    gc.collect()
    gc.freeze()  # the collector's marks would unshare these pages in each child
    children: dict[int, Forked] = {}  # by worker id
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    _send(control, {"ready": True, "encoders": encoders.built_in(), "walls": sandbox.walls()})
    while True:
        for key, _ in selector.select():
            if key.data is not None:
                identity = key.data
                child = children.pop(identity)
                selector.unregister(child.watch)
                os.close(child.watch)
                status = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
                done = int.from_bytes(child.done[:_COUNT], sys.byteorder)
                child.done.close()
                _send(control, {"exited": identity, "status": status, "done": done})
                continue
            request, sock = _receive(control)
            match request:
                case {"launch": int(identity), "limits": dict(limits), "devices": list(devices)} if sock is not None:
                    counted = mmap.mmap(-1, _COUNT)  # stays shared
                    pid = os.fork()
                    if pid == 0:
                        _become_worker(process.run, sock, WorkerLimits(**limits), devices, counted)
                    sock.close()
                    watch = os.pidfd_open(pid)
                    children[identity] = Forked(pid, watch, counted)
                    selector.register(watch, selectors.EVENT_READ, identity)
                    _send(control, {"launched": identity, "pid": pid})
                case {"kill": int(identity)}:
                    if identity in children:
                        os.kill(children[identity].pid, signal.SIGKILL)
                case _:
                    for child in children.values():
                        os.kill(child.pid, signal.SIGKILL)
                    return


def _become_worker(run: Any, sock: socket.socket, limits: WorkerLimits, devices: Sequence[str], done: mmap.mmap) -> None:
    status = 1
    try:
        sock.setblocking(True)
        run(sock, limits, devices, done)
        status = 0
    finally:
        os._exit(status)  # not back into the server's loop, nor through its exit


def _send(control: socket.socket, reply: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the gateway has gone: the next receive says so
        control.sendall(json.dumps(reply).encode())


def _receive(control: socket.socket) -> tuple[dict[str, Any], socket.socket | None]:
    data, ancillary, _, _ = control.recvmsg(MAX_REQUEST, socket.CMSG_SPACE(array.array("i").itemsize))
    sock = None
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            sock = socket.socket(fileno=array.array("i", content)[0])
    return (json.loads(data) if data else {}), sock


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
