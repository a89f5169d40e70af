"""What any input of a peer may cost, by the bytes of it: the one oracle of all fuzzers, and generators of the inputs that break it.

An input of n bytes may take `AT_ONCE_S + PER_BYTE_S * n` of CPU in all, and any one step of it `AT_ONCE_S`, however many bytes were waiting
for it; what is held after it, its results let go, may be `HELD_PER_BYTE * n` bytes, and the most in between `PEAK_PER_BYTE * n`, beside
`STATE_BYTES`.

CPU is counted in the machine's own speed: a loop that does what parsers do is timed beside it, and a figure counts as the part of that
loop's. What seems too dear is run again, and the best of all runs counts: noise only adds.
"""

import gc
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from random import Random
from struct import Struct
from time import process_time, thread_time
from typing import NamedTuple, TypeVar

from protocols.errors import ProtocolError

TURN_BYTES = 64 * 1456
"""What is read of one SRT socket before the next has its turn; a read of RTMP is 128 KiB, that of WHIP one datagram."""
AT_ONCE_S = 0.020
PER_BYTE_S = AT_ONCE_S / TURN_BYTES
PACKET_BYTES = 64
"""Every call is at least one message or datagram: what its headers take on the wire."""

HELD_PER_BYTE = 4
PEAK_PER_BYTE = 6  # a unit stands in its packets, whole, in its parts and in its new form before the packets are let go
STATE_BYTES = 2 << 20
"""Of one peer, whatever it sends: buffers, tables, streams, and the 4,096 units held until tracks are announced."""

REFERENCE_S = 0.0043
"""CPU of `_reference` where the bounds were stated: one core of a virtual machine of 2026, CPython 3.11."""
_RUNS = 5

Receive = Callable[[bytes], Iterator[object]]
"""Takes the next bytes of one peer, by steps, between which others have their turn; a `ProtocolError` is the end of it."""
Atom = Callable[[int], bytes]
"""A small thing of a format, the n-th of its kind: a tag, a section, a unit, a parameter set."""
T = TypeVar("T")


class Spent(NamedTuple):
    """CPU in seconds of the reference machine."""

    total: float
    dearest: float  # of one step
    size: int  # bytes, with those of the packets' headers

    def over(self, at_once: float) -> bool:
        return self.dearest > AT_ONCE_S or self.total > at_once + PER_BYTE_S * self.size

    def __str__(self) -> str:
        per_kib = self.total / self.size * 1024 * 1e6
        return (
            f"{self.total * 1e3:.1f} ms for {self.size} bytes ({per_kib:.0f} us a KiB), {self.dearest * 1e3:.1f} ms in one step"
        )


def check(
    make: Callable[[], Receive], pieces: Sequence[bytes], what: str, *, at_once: float = AT_ONCE_S, memory: bool = False
) -> Spent:
    """Feeds the pieces to what `make` gives. Fails with `what` on any error but `ProtocolError`, and on a cost beyond the bounds.

    `at_once` is CPU in all beyond what the bytes allow, where a protocol states another.
    """
    spent = _run(make, pieces, what, _slowness_at_best())
    for _ in range(_RUNS):
        if not spent.over(at_once):
            break
        again = _run(make, pieces, what, slowness(_RUNS))
        spent = Spent(min(spent.total, again.total), min(spent.dearest, again.dearest), spent.size)
    assert not spent.over(at_once), f"{what}: {spent}"
    if memory:
        check_memory(make, pieces, what)
    return spent


def check_memory(make: Callable[[], Receive], pieces: Sequence[bytes], what: str) -> None:
    """As `check`, of the bytes held. Tracing makes it slow."""
    gc.collect()
    tracemalloc.start()
    try:
        receive = make()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        size = _feed(receive, pieces, what)
        held, peak = (value - before for value in tracemalloc.get_traced_memory())
    finally:
        tracemalloc.stop()
    assert held <= STATE_BYTES + HELD_PER_BYTE * size, f"{what}: {held} bytes held for {size}"
    assert peak <= STATE_BYTES + PEAK_PER_BYTE * size, f"{what}: {peak} bytes at the most for {size}"


def _feed(receive: Receive, pieces: Sequence[bytes], what: str) -> int:
    try:
        for piece in pieces:
            for _ in receive(piece):
                pass
    except ProtocolError:
        pass
    except Exception as error:
        raise AssertionError(f"{what}: {error!r}") from error
    return sum(map(len, pieces))


def _run(make: Callable[[], Receive], pieces: Sequence[bytes], what: str, slowness: float) -> Spent:
    receive = make()
    steps: list[float] = []
    size = 0
    try:
        for piece in pieces:
            size += len(piece) + PACKET_BYTES
            for took in _timed(receive(piece)):
                steps.append(took / slowness)
    except ProtocolError:
        pass
    except Exception as error:
        raise AssertionError(f"{what}: {error!r}") from error
    return Spent(sum(steps), max(steps, default=0.0), max(1, size))


def _timed(steps: Iterator[object]) -> Iterator[float]:
    """CPU of each step, that of one that raises too."""
    error: Exception | None = None
    going_on = True
    while going_on:
        began = thread_time()
        try:
            next(steps)
        except StopIteration:
            going_on = False
        except Exception as raised:
            error, going_on = raised, False
        yield thread_time() - began
    if error is not None:
        raise error


def slowness(runs: int) -> float:
    """How many times longer than where the bounds were stated the machine takes now."""
    return min(_reference() for _ in range(runs)) / REFERENCE_S


@cache
def _slowness_at_best() -> float:
    """Against it a step seems never cheaper than it is: enough to let by what is cheap, without a loop beside each input."""
    return slowness(10 * _RUNS)


_word = Struct(">H").unpack_from


class _Piece(NamedTuple):
    at: int
    data: bytes


def _reference() -> float:
    """CPU of a loop of slices, numbers, calls, small objects and look-ups."""
    data = bytes(range(256)) * 4
    found: dict[int, _Piece] = {}
    began = thread_time()
    for at in range(12_000):
        (number,) = _word(data, at & 1023 - 2)
        piece = _Piece(at, data[at & 1023 : (at & 1023) + 24])
        if piece.data.startswith(b"\x00"):
            found.clear()
        found[number & 63] = piece
    return thread_time() - began


def rounds(seconds: float) -> Iterator[int]:
    """Numbers from 0 on, until so much of the process's own CPU is spent: a busy machine tries as much as an idle one."""
    until, number = process_time() + seconds, 0
    while not number or process_time() < until:
        yield number
        number += 1


# -- generators ----------------------------------------------------------------------------------------------------------------------


def counts(chance: Random, atoms: Sequence[Atom], size: int) -> bytes:
    """About `size` bytes of many small things: one again and again, or numbered so that each is new, some in turn, in runs, or any."""
    chosen = chance.sample(atoms, k=min(len(atoms), chance.choice((1, 1, 1, 2, 3, 8))))
    period = chance.choice((1, 2, 3, 16, 256, 1 << 30))  # how many numbers there are
    made: list[bytes] = []
    length = 0
    for number, atom in enumerate(orders(chance, chosen)):
        piece = atom(number % period)
        if length + len(piece) > size:
            break
        made.append(piece)
        length += len(piece) or 1
    return b"".join(made)


def orders(chance: Random, operations: Sequence[T]) -> Iterator[T]:
    """The operations for ever, in an order that few think of: in turn, in long runs, one between many of another, or any."""
    shape = chance.randrange(4)
    run = chance.choice((1, 2, 7, 64, 1000))
    while True:
        match shape:
            case 0:
                yield from operations
            case 1:
                yield from [chance.choice(operations)] * run
            case 2:
                yield from [operations[0]] * run
                yield from operations[1:]
            case _:
                yield chance.choice(operations)


def cut(data: bytes, size: int = TURN_BYTES) -> list[bytes]:
    """As it may be read of a socket."""
    return [data[at : at + size] for at in range(0, len(data), size)]
