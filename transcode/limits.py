"""What a worker process may use, and how much may wait for it."""

from dataclasses import dataclass

SECCOMP, LANDLOCK = "seccomp", "landlock"
WALLS = frozenset({SECCOMP, LANDLOCK})
"""What stands around a worker (`transcode.worker.sandbox`), where the kernel has it."""
WALLS_MENDED = "it needs the package libseccomp2, Linux 5.13, and a container that may call seccomp and landlock"

MAX_REQUEST = 4096  # bytes of one datagram between the gateway and the fork server


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    workers: int = 64  # at once
    sharing: int = 16  # sessions whose sound one worker makes
    restarts: int = 1  # crashes that are mended within `restart_window`; the next one is a failure
    restart_window: float = 60.0  # s
    hang: float = 5.0  # s without progress on a packet, after which a worker is killed
    video_queue: int = 500  # ms of media that may wait for a worker; and the time after which a picture is too late to be shown
    audio_queue: int = 1000
    backlog: int = 16 << 20  # bytes that may wait for a worker
    memory: int = 1 << 30  # bytes of address space beyond what the fork server itself has mapped
    memory_together: int = 8 << 30  # bytes that all workers may hold that they do not share; beyond it the largest is ended
    sound_cores: float = 0.25  # that one session may take of a worker that others share; AAC takes 0.01
    sound_cpu: float = 0.3  # s of CPU that one packet of sound may take, after which the kernel ends the worker
    cpu: int = 30  # s of CPU without a message taken, after which the kernel ends the worker
    niceness: int = 5
    sound_niceness: int = 0  # of a process that makes nothing but sound: little, of many, and heard when it is late
    close: float = 1.0  # s to end by itself before it is killed
