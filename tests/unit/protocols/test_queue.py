from protocols.media import Codec, EncodedPacket, Track, TracksChanged
from protocols.queue import Item, MediaQueue

MS = 1_000_000
BOTH = TracksChanged((Track(1, Codec.H264), Track(2, Codec.AAC)))


def packet(ms: int, track: int = 1, key: bool = False, size: int = 10) -> EncodedPacket:
    return EncodedPacket(track, ms * MS, ms * MS, key or track == 2, bytes(size), ms * MS, ms * MS)


def drain(queue: MediaQueue) -> list[Item]:
    items = []
    while (item := queue.pop()) is not None:
        items.append(item)
    return items


def test_nothing_is_lost_within_the_bound() -> None:
    queue = MediaQueue(1000 * MS, 1 << 20)
    given: list[Item] = [BOTH, packet(0, key=True), packet(5, 2), packet(900)]
    for item in given:
        queue.push(item)
    assert drain(queue) == given
    assert queue.dropped == 0


def test_an_overflow_drops_both_tracks_to_the_newest_key_frame() -> None:
    queue = MediaQueue(1000 * MS, 1 << 20)
    for item in (BOTH, packet(0, key=True), packet(10, 2), packet(500), packet(600, key=True), packet(610, 2), packet(1100)):
        queue.push(item)
    assert drain(queue) == [BOTH, packet(600, key=True), packet(610, 2), packet(1100)]
    assert queue.dropped == 3


def test_without_a_key_frame_everything_is_dropped_until_the_next() -> None:
    queue = MediaQueue(1000 * MS, 1 << 20)
    for item in (
        BOTH,
        packet(0, key=True),
        packet(500),
        packet(1100),
        packet(1200),
        packet(1210, 2),
        packet(1300, key=True),
        packet(1310, 2),
    ):
        queue.push(item)
    assert drain(queue) == [BOTH, packet(1300, key=True), packet(1310, 2)]
    assert queue.dropped == 5


def test_sound_alone_keeps_its_newer_half() -> None:
    queue = MediaQueue(1000 * MS, 1 << 20)
    tracks = TracksChanged((Track(2, Codec.AAC),))
    queue.push(tracks)
    for ms in range(0, 3000, 20):
        queue.push(packet(ms, 2))
    left = drain(queue)
    assert left[0] == tracks
    assert left[-1] == packet(2980, 2)
    assert 20 <= len(left) <= 52
    assert queue.dropped + len(left) - 1 == 150


def test_the_newest_tracks_survive_an_overflow() -> None:
    queue = MediaQueue(1000 * MS, 1 << 20)
    other = TracksChanged((Track(1, Codec.HEVC),))
    for item in (BOTH, packet(0, key=True), other, packet(500), packet(1500, key=True)):
        queue.push(item)
    assert drain(queue) == [other, packet(1500, key=True)]


def test_bytes_are_bounded() -> None:
    queue = MediaQueue(1000 * MS, 1000)
    for item in (BOTH, packet(0, key=True, size=600), packet(1, size=600), packet(2, key=True, size=300)):
        queue.push(item)
    assert drain(queue) == [BOTH, packet(2, key=True, size=300)]


def test_after_an_overflow_each_layer_goes_on_with_a_key_frame_of_its_own() -> None:
    layers = TracksChanged((Track(1, Codec.H264, layer="h"), Track(3, Codec.H264, layer="l"), Track(2, Codec.AAC)))
    queue = MediaQueue(1000 * MS, 1 << 20)
    given = (
        layers,
        packet(0, key=True),
        packet(0, 3, key=True),
        packet(500),
        packet(600, key=True),
        packet(610, 3),
        packet(620, 2),
        packet(1100),
        packet(1110, 3),
        packet(1120, 3, key=True),
        packet(1130, 3),
    )
    for item in given:
        queue.push(item)
    assert drain(queue) == [layers, given[4], given[6], given[7], given[9], given[10]]
    assert queue.dropped == 5
