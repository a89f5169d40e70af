"""What a worker may still do once libav is loaded: compute, start threads, talk over its one socket, and end.

What a stranger's stream makes of a codec is held by several walls, each enough for most of it: no capability and none to be had
(capabilities(7), no_new_privs), no file or port (landlock(7)), and an allow list of system calls (seccomp(2), by libseccomp), from which
opening, connecting, executing, forking and tracing are missing. A refused call fails with EPERM, so that a library that only tried goes on.
A wall that this kernel does not have is missing in what `walls` and `enter` return.

An encoder in hardware gets its device and the drivers' own files besides: `devices` are patterns of paths, as `encoder_table` has them.
"""

import ctypes
import errno
import glob
import os
import resource
from collections.abc import Iterator, Sequence
from functools import cache

from transcode.limits import LANDLOCK, SECCOMP

_MOST_DESCRIPTORS = 0x7FFFFFFF
_PR_SET_DUMPABLE, _PR_SET_NAME, _PR_SET_NO_NEW_PRIVS = 4, 15, 38
_CLONE_THREAD = 0x10000
_REFUSE, _ALLOW = 0x00050000, 0x7FFF0000  # SCMP_ACT_ERRNO, to which the number is added, and SCMP_ACT_ALLOW
_EQUAL, _MASKED = 4, 7  # SCMP_CMP_EQ, SCMP_CMP_MASKED_EQ
_CALLS = (
    "read write readv writev close recvfrom sendto poll ppoll fstat lseek "
    "mmap munmap mprotect mremap madvise brk membarrier "
    "futex set_robust_list rseq sched_yield sched_getaffinity sched_getparam sched_getscheduler getcpu "
    "clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time setitimer restart_syscall "
    "rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack exit exit_group getpid gettid getrusage getrandom sysinfo uname"
)
_DEVICE_CALLS = (
    " open openat access faccessat faccessat2 stat lstat newfstatat statx readlink readlinkat getdents64 pread64 fcntl ioctl dup "
    "pipe2 eventfd2 epoll_create1 epoll_ctl epoll_wait epoll_pwait memfd_create ftruncate getuid geteuid getgid getegid sched_setaffinity"
)
_DRIVER_FILES = (
    "/usr/lib* /lib* /usr/share /usr/local/lib* /opt/intel /opt/amdgpu* /sys/devices /sys/class /sys/dev /sys/bus /proc/self "
    "/proc/driver/nvidia /etc/ld.so.cache /etc/drirc /etc/libva.conf /etc/nvidia /etc/vulkan /etc/OpenCL"
)
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on all architectures
_RULESET_VERSION, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_FOLDER, _IOCTL = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 15


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp of libseccomp."""

    _fields_ = (("argument", ctypes.c_uint), ("operator", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


class _Ruleset(ctypes.Structure):
    """struct landlock_ruleset_attr."""

    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    """struct landlock_path_beneath_attr."""

    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


@cache
def _libseccomp() -> ctypes.CDLL | None:
    """The library; None where it is not installed."""
    try:
        library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError:
        return None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_load.argtypes = (ctypes.c_void_p,)
    library.seccomp_rule_add_array.argtypes = (ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)
    return library


def walls() -> tuple[str, ...]:
    """Those of `WALLS` that stand around a worker here: tried in a child, which ends."""
    _libseccomp()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, ",".join(enter(writing, ())).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as answer:
        held = answer.read().decode()
    os.waitpid(child, 0)
    return tuple(filter(None, held.split(",")))


def enter(socket: int, devices: Sequence[str]) -> tuple[str, ...]:
    """Give up, for good, all that transcoding does not need. `socket` is the descriptor that stays open beside the standard ones. Returns
    those of `WALLS` that stand. Raises `OSError` where the kernel refuses what every kernel has."""
    os.closerange(3, socket)
    os.closerange(socket + 1, _MOST_DESCRIPTORS)
    library = _libseccomp()
    _prctl(_PR_SET_DUMPABLE, 0)  # nobody of the same user reads its memory, either
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _drop_capabilities()
    resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))  # SVT-AV1 takes priority over all else where it may
    stand = [LANDLOCK] if _confine_paths(devices) else []
    if library is not None and _confine_calls(library, bool(devices)):
        stand.append(SECCOMP)
    return tuple(stand)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)):
        raise OSError(ctypes.get_errno(), "prctl")


def _drop_capabilities() -> None:
    """All of them (capset(2), version 3: two words of effective, permitted, inheritable)."""
    header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if _libc.capset(header, nothing):
        raise OSError(ctypes.get_errno(), "capset")


def _confine_calls(library: ctypes.CDLL, device: bool) -> bool:
    """Install the allow list of system calls; False where this kernel has no such thing."""
    context = library.seccomp_init(_REFUSE + errno.EPERM)
    own = _Comparison(0, _EQUAL, os.getpid(), 0)
    rules: tuple[tuple[str, int, tuple[_Comparison, ...]], ...] = (
        *((name, _ALLOW, ()) for name in (_CALLS + _DEVICE_CALLS if device else _CALLS).split()),
        ("clone", _ALLOW, (_Comparison(0, _MASKED, _CLONE_THREAD, _CLONE_THREAD),)),  # threads, no processes
        ("clone3", _REFUSE + errno.ENOSYS, ()),  # its flags cannot be seen here: the C library takes clone instead
        ("prctl", _ALLOW, (_Comparison(0, _EQUAL, _PR_SET_NAME, 0),)),
        ("prlimit64", _ALLOW, (_Comparison(0, _EQUAL, 0, 0),)),  # its own
        ("tgkill", _ALLOW, (own,)),  # abort()
    )
    for name, action, when in rules:
        number = library.seccomp_syscall_resolve_name(name.encode())
        library.seccomp_rule_add_array(context, action, number, len(when), (_Comparison * len(when))(*when))
    return bool(library.seccomp_load(context) == 0)


def _confine_paths(devices: Sequence[str]) -> bool:
    """No file can be opened, no port taken or called, no process outside signalled, whatever a system call is used for it; but for
    `devices` and their drivers' files. False where this kernel has no Landlock."""
    version = _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_RULESET_VERSION))
    if version < 1:
        return False
    # Each version of the interface knows more: 13 rights of files, then REFER, TRUNCATE, IOCTL_DEV; ports since 4; signals and abstract
    # sockets since 6
    rights = (1 << (13 + (version >= 2) + (version >= 3) + (version >= 5))) - 1
    wanted = _Ruleset(rights, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _libc.syscall(_CREATE_RULESET, ctypes.byref(wanted), ctypes.c_size_t(size), ctypes.c_uint32(0))
    if ruleset < 0:
        return False
    for path in _present(devices):
        _allow_beneath(ruleset, path, (_READ_FILE | _WRITE_FILE | _IOCTL) & rights)
    for path in _present(_DRIVER_FILES.split() if devices else ()):
        _allow_beneath(ruleset, path, _EXECUTE | _READ_FILE | _READ_FOLDER)
    refused = _libc.syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    os.close(ruleset)
    return not refused


def _present(patterns: Sequence[str]) -> Iterator[str]:
    return (path for pattern in patterns for path in glob.glob(pattern))


def _allow_beneath(ruleset: int, path: str, allowed: int) -> None:
    beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    if not os.path.isdir(path):
        allowed &= ~_READ_FOLDER
    rule = _PathBeneath(allowed, beneath)
    _libc.syscall(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), ctypes.byref(rule), ctypes.c_uint32(0))
    os.close(beneath)
