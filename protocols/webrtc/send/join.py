"""The times of a group of pictures that is sent again to a viewer who joins: compressed, so that the live picture is reached when they
have come. Sans-IO.
"""

from collections.abc import Sequence

from protocols.webrtc.send.history import SentFrame

_CATCH_UP = 1_000  # 1/s: cached frames are stamped 1 ms apart: shown as fast as they are decoded


def compressed(group: Sequence[SentFrame], offset: int, last: int | None, clock_rate: int) -> range:
    """Timestamps between the last one sent and the next live one: 1 ms apart or, where there is no room, as close as need be.

    `offset` is from the source's timestamps to the viewer's; `last` is of the viewer's.
    """
    count, end = len(group), group[-1].timestamp + offset
    step = clock_rate // _CATCH_UP
    if last is not None and last + count * step > end:
        # The live ones up to here were sent: what is left is the gap before the next, of which half stays free for its jitter.
        interval = (group[-1].timestamp - group[0].timestamp) // (count - 1) if count > 1 else clock_rate // 60
        end = max(end, last) + min(max(interval, 0) // 2, count * step)
        step = max(1, (end - last) // count)
        return range(last + step, last + step * count + 1, step)
    return range(end - step * (count - 1), end + 1, step)
