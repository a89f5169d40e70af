"""What is kept of an input that is not forwarded."""

from dataclasses import replace

from gateway.sessions.standby import LARGEST_BYTES, Standby
from protocols.media import EncodedPacket
from tests.support.memory import H264, OPUS

MS = 1_000_000


def came(at_ms: int, *, track: int = 1, keyframe: bool = False, size: int = 10, dts_ms: int | None = None) -> EncodedPacket:
    dts, arrival = (at_ms if dts_ms is None else dts_ms) * MS, at_ms * MS
    return EncodedPacket(track, dts, dts, keyframe, bytes(size), arrival, arrival)


def standby() -> Standby:
    it = Standby()
    it.expect((H264, OPUS))
    return it


def test_it_has_the_group_that_is_under_way_and_no_sound() -> None:
    it = standby()
    for packet in (came(0), came(40, keyframe=True), came(80), came(90, track=2), came(120, keyframe=True), came(160)):
        it.add(packet)
    assert it.oldest == 120 * MS
    assert [packet.arrival // MS for packet in it.take()] == [120, 160]
    assert it.take() == []
    it.add(came(200))
    assert it.oldest is None, "nothing follows from what was taken"


def test_layers_come_out_in_the_order_in_which_they_came() -> None:
    it, low = Standby(), replace(H264, id=3, layer="q")
    it.expect((H264, low))
    for packet in (came(0, keyframe=True), came(10, track=3, keyframe=True), came(40), came(50, track=3)):
        it.add(packet)
    assert [packet.arrival // MS for packet in it.take()] == [0, 10, 40, 50]


def test_it_is_bounded_in_bytes_and_in_time() -> None:
    it = standby()
    assert it.add(came(0, keyframe=True))
    kept = [it.add(came(n, size=LARGEST_BYTES // 8)) for n in range(1, 20)]
    assert not all(kept)
    assert it.oldest is None
    assert it.add(came(20, track=2)), "the sound needs no key frame"
    it.add(came(1000, keyframe=True))
    for at_ms in range(1040, 7000, 40):
        it.add(came(at_ms))
    assert it.oldest is None


def test_what_came_with_other_tracks_is_forgotten() -> None:
    it = standby()
    it.add(came(0, keyframe=True))
    it.expect((H264,))
    assert it.oldest == 0
    it.expect((replace(H264, width=1920),))
    assert it.oldest is None


def test_who_is_read_faster_than_its_media_last_is_known() -> None:
    it = standby()
    live = [it.ahead(came(n * 40, dts_ms=n * 40 + (-1) ** n)) for n in range(100)]
    assert set(live) == {0}
    file = [it.ahead(came(4000 + n, dts_ms=4000 + 40 * n)) for n in range(100)]
    assert file[0] == 0
    assert 3.7e9 < file[-1] < 4e9
    assert it.ahead(came(9000, dts_ms=8000)) == 0, "it has waited"
    assert {it.ahead(came(12_000 + n, dts_ms=8000 + 40 * n)) for n in range(100)} == {0}, "it was stopped and catches up"
    assert {it.ahead(came(16_000 + 40 * n, dts_ms=16_000 + 40 * n + n // 50)) for n in range(5000)} == {0}, "its clock is fast"
    assert it.ahead(came(300_000, dts_ms=3_600_000)) == 0, "a jump of its clock is another thing"
