"""What the walls around a worker cost: `python -m tests.bench.sandbox [pairs] [case ...]`.

The same transcoding is done by a worker behind its walls (`transcode.worker.process.confine`: seccomp, Landlock, no capability) and by
one without, in pairs, the order of which alternates, so that a machine that gets slower or faster takes from both. Each is a process of
its own, forked from this one as the fork server forks workers, and is given everything at once: it is never idle, and nothing is too
late. CPU is user + system time of that process from its fork to its end, building the walls included. On a machine with other work to do
a single figure says little: the middle half of the pairs' ratios is printed, and the ratio of the two quietest, since noise only adds.

Every packet is two system calls at least, which is where seccomp costs: sound has the most of them for its work. The ratio may be 1.02.
"""

import mmap
import os
import resource
import socket
import statistics
import sys
import threading
from dataclasses import replace

import av

from protocols.media import Codec
from tests.bench.transcode import Case
from tests.support.memory import as_a_call
from tests.unit.transcode.media import pictures, tone
from transcode import messages
from transcode.limits import WorkerLimits
from transcode.messages import MessageReader, WorkerMessage
from transcode.plan import AudioTarget, Policy, Transcode, VideoTarget, plan
from transcode.worker import process, sandbox

PAIRS = 12
LIMITS = WorkerLimits()
NEVER_LATE = 1 << 62
STREAM = 1


def sent(case: Case) -> bytes:
    """All that a worker is told of it."""
    packets = (messages.pack_packet(STREAM, each, sent=NEVER_LATE) + each.data for each in case.packets)
    end = messages.pack(WorkerMessage.CLOSE, STREAM)
    return b"".join((messages.pack_open(STREAM, case.track, case.target), *packets, end))


def cases() -> dict[str, Case]:
    track, packets = tone(Codec.AAC, seconds=200)
    sound = Case("200 s of AAC -> Opus", track, packets, AudioTarget(), [])
    options = {"bf": "2", "preset": "veryfast", "b": "3M", "maxrate": "3M", "bufsize": "3M"}
    track, packets = pictures(Codec.H264, (1280, 720), seconds=4, noise=8, options=options)
    decision = plan(replace(track, reorder=2), as_a_call(frozenset({Codec.H264})), Policy(layers=1))
    assert isinstance(decision, Transcode)
    assert isinstance(decision.target, VideoTarget)
    return {"sound": sound, "pictures": Case("4 s of H.264 720p30 B-frames -> H.264", track, packets, decision.target, [])}


def cpu_of(data: bytes, *, walled: bool) -> tuple[float, int]:
    """CPU seconds of one worker that is sent `data`, and how much came out of it (bytes)."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            ours.close()
            work(theirs, walled=walled)
            status = 0
        finally:
            os._exit(status)
    theirs.close()
    with ours:
        sender = threading.Thread(target=ours.sendall, args=(data,))
        sender.start()
        came = drained(ours)
        sender.join()
    _, status, usage = os.wait4(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, "the worker failed"
    return usage.ru_utime + usage.ru_stime, came


def work(theirs: socket.socket, *, walled: bool) -> None:
    if walled:
        process.confine(theirs, LIMITS, ())
    else:
        av.logging.set_level(None)
        os.nice(LIMITS.niceness)
    process.WorkerProcess(theirs, LIMITS, mmap.mmap(-1, 4)).serve()


def drained(ours: socket.socket) -> int:
    """Reads until the stream is closed, and lets the worker end; gives the bytes of media."""
    inbox, came = MessageReader(), 0
    while count := ours.recv_into(inbox.room()):
        for frame in inbox.received(count):
            assert frame.kind != WorkerMessage.FAULT, messages.read_text(frame.body)
            came += len(frame.body) if frame.kind == WorkerMessage.OUTPUT else 0
            if frame.kind == WorkerMessage.CLOSED:
                ours.shutdown(socket.SHUT_WR)
    return came


def main(pairs: int, wanted: set[str]) -> None:
    print(f"walls: {', '.join(sandbox.walls()) or 'none'}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for case in (case for name, case in cases().items() if not wanted or name in wanted):
        data = sent(case)
        cpu_of(data, walled=False)  # pages and caches
        walled, without, came = list[float](), list[float](), set[int]()
        for pair in range(pairs):
            for behind_walls in (True, False) if pair % 2 else (False, True):
                seconds, size = cpu_of(data, walled=behind_walls)
                (walled if behind_walls else without).append(seconds)
                came.add(size)
        assert len(came) == 1, "not all of them did the same"
        ratios = sorted(one / other for one, other in zip(walled, without, strict=True))
        quarter = len(ratios) // 4
        print(
            f"{case.name:40} walled {statistics.median(walled):.3f} s  without {statistics.median(without):.3f} s  "
            f"ratio {statistics.median(ratios):.4f} ({ratios[quarter]:.4f} to {ratios[-1 - quarter]:.4f}), "
            f"of the quietest {min(walled) / min(without):.4f}  n={pairs} pairs",
            flush=True,
        )


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main(int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS, set(sys.argv[2:]))
