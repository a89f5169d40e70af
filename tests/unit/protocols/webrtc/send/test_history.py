"""What can be repaired and joined, and that both are bounded."""

from protocols.webrtc.send.history import GROUP_BYTES, REPAIR_BYTES, History, SentFrame
from tests.unit.protocols.webrtc.loopback import FRAME, SECOND


def fill(
    history: History, frames: int, *, group: int = 30, payloads: int = 3, size: int = 100, begin: int = 0
) -> list[SentFrame]:
    return [
        history.append([bytes((n % 256,)) * size] * payloads, n * FRAME, n * 3000, n % group == 0, n * FRAME)
        for n in range(begin, begin + frames)
    ]


def test_packets_are_found_by_index_with_their_marker() -> None:
    history = History(groups=True)
    history.append([b"a" * 9, b"b" * 9, b"c", b"d" * 5], 0, 0, True, 0)
    history.append([b"e"], FRAME, 3000, False, FRAME)
    assert [history.packet(index) for index in range(-1, 6)] == [
        None,
        (0, b"a" * 9),
        (0, b"b" * 9),
        (0, b"c"),
        (0x80, b"d" * 5),
        (0x80, b"e"),
        None,
    ]


def test_every_index_of_a_long_frame_is_found() -> None:
    history = History(groups=True)
    payloads = [index.to_bytes(2, "big") for index in range(100)]
    frame = history.append(payloads, 0, 0, True, 0)
    assert [history.packet(index) for index in range(100)] == [(0, each) for each in payloads[:-1]] + [(0x80, payloads[-1])]
    assert [run.ends for run in frame.runs] == [False] * 6 + [True]
    assert [run.index for run in frame.runs] == list(range(0, 100, 16))


def test_audio_has_no_markers_and_no_groups() -> None:
    history = History(groups=False)
    history.append([b"opus"], 0, 0, True, 0)
    assert history.packet(0) == (0, b"opus")
    assert not history.group


def test_packets_are_kept_for_two_seconds() -> None:
    history = History(groups=True)
    frames = fill(history, 91)
    assert frames[-1].arrival == 3 * SECOND - 30
    assert history.oldest == frames[31 - 1].index
    assert history.packet(history.oldest - 1) is None
    assert history.packet(history.oldest) is not None


def test_repair_is_bounded_in_bytes() -> None:
    history = History(groups=False)
    for number in range(40):
        history.append([bytes(1 << 20)], 0, 0, True, number)
    assert history.next - history.oldest == REPAIR_BYTES >> 20
    history.append([bytes(REPAIR_BYTES + 1)], 0, 0, True, 41)
    assert history.oldest == history.next
    assert history.packet(history.next - 1) is None


def test_the_group_begins_with_the_last_key_frame() -> None:
    history = History(groups=True)
    assert not history.group
    fill(history, 10, begin=5)  # nothing to begin with
    assert not history.group
    frames = fill(history, 40, begin=30)
    assert history.group == frames[30:]
    assert history.group[0].keyframe


def test_a_group_over_its_time_is_given_up_until_the_next_key_frame() -> None:
    history = History(groups=True)
    fill(history, 301, group=1000)
    assert len(history.group) == 301
    fill(history, 10, group=1000, begin=301)
    assert not history.group
    fill(history, 2, group=1000, begin=1000)
    assert [frame.keyframe for frame in history.group] == [True, False]


def test_a_group_over_its_bytes_is_given_up() -> None:
    history = History(groups=True)
    fill(history, 4, payloads=1, size=GROUP_BYTES // 4)
    assert len(history.group) == 4
    fill(history, 1, payloads=1, size=1, begin=4)
    assert not history.group
