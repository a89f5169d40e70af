"""How packets are cut: every packet once and in order, segments at key frames, parts of the promised length."""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import pytest

from protocols.hls.segmenter import MS, SECOND, Cut, Segmenter, Timing
from protocols.media import EncodedPacket

SEGMENT = 2 * SECOND


@dataclass
class Always:
    """What is shown while no picture comes."""

    unit: bytes

    def note(self, access_unit: bytes, pts: int) -> None:
        pass

    def repeat(self, pts: int) -> bytes:
        return self.unit


NEVER, AGAIN = Always(b""), Always(b"again")


def video(seconds: float, rate: float = 30, gop: float = 2.0, *, jitter: int = 0, rounded: bool = False) -> list[EncodedPacket]:
    chance = random.Random(1)
    packets, next_key = [], 0.0
    for number in range(round(seconds * rate)):
        at = number / rate
        key = at >= next_key - 1e-9
        next_key += gop if key else 0
        time = round(at * 1e9) + chance.randint(0, jitter)
        packets.append(
            EncodedPacket(1, time // MS * MS if rounded else time, time // MS * MS if rounded else time, key, b"x", 0, 0)
        )
    return packets


def sound(seconds: float, frame: int = 21_333_333) -> list[EncodedPacket]:
    return [EncodedPacket(2, at, at, True, b"x", 0, 0) for at in range(0, round(seconds * 1e9), frame)]


def cuts(segmenter: Segmenter, packets: Iterable[EncodedPacket]) -> list[Cut]:
    made = [cut for packet in packets for cut in segmenter.push(packet)]
    return [*made, *segmenter.close()]


def segments(made: list[Cut]) -> list[list[Cut]]:
    result: list[list[Cut]] = []
    for cut in made:
        if cut.opens:
            result.append([])
        result[-1].append(cut)
    assert all(segment[-1].closes and not any(cut.closes for cut in segment[:-1]) for segment in result)
    return result


@pytest.mark.parametrize(
    ("gop", "target", "length"),
    [(0.5, 2, 1.5), (1.0, 2, 2.0), (1.5, 2, 1.5), (2.0, 2, 2.0), (2.002, 2, 2.002), (4.0, 4, 4.0), (8.0, 8, 8.0)],
)
def test_segments_are_whole_groups_of_pictures(gop: float, target: int, length: float) -> None:
    timing = Timing.of(SEGMENT, round(gop * 1e9), 34 * MS)
    assert timing.target == target * SECOND
    made = cuts(Segmenter(timing, video=True, segment=SEGMENT, stills=NEVER), video(30, gop=gop))
    whole = segments(made)[:-1]
    assert all(segment[0].independent for segment in whole)
    assert all(sum(cut.duration for cut in segment) == pytest.approx(length * 1e9, abs=40 * MS) for segment in whole)


@pytest.mark.parametrize("rate", [15, 23.976, 24, 25, 29.97, 30, 50, 60])
@pytest.mark.parametrize("rounded", [False, True])
def test_parts_have_the_promised_length(rate: float, rounded: bool) -> None:
    timing = Timing.of(SEGMENT, SEGMENT, round(1e9 / rate) + MS)
    packets = video(20, rate, rounded=rounded)
    made = cuts(Segmenter(timing, video=True, segment=SEGMENT, stills=NEVER), packets)
    for cut in made:
        assert cut.duration <= timing.part
        assert cut.closes or cut.duration >= 0.85 * timing.part
    assert [packet for cut in made for packet in cut.packets] == packets
    assert [cut.start + cut.duration for cut in made[:-1]] == [cut.start for cut in made[1:]]


def test_uneven_frames_never_make_a_part_too_long() -> None:
    timing = Timing.of(SEGMENT, SEGMENT, 45 * MS)
    made = cuts(Segmenter(timing, video=True, segment=SEGMENT, stills=NEVER), video(20, jitter=15 * MS))
    assert all(cut.duration <= timing.part for cut in made)


@pytest.mark.parametrize("frame", [21_333_333, 23_219_954, 42_666_667])
def test_sound_is_cut_anywhere(frame: int) -> None:
    timing = Timing.of(SEGMENT, SEGMENT, 34 * MS)
    made = cuts(Segmenter(timing, video=False, segment=SEGMENT, stills=NEVER), sound(20, frame))
    assert all(cut.duration <= timing.part and cut.independent for cut in made)
    assert all(timing.target - frame <= sum(cut.duration for cut in part) <= timing.target for part in segments(made)[:-1])


def test_a_group_of_pictures_that_got_longer_ends_its_segment_without_a_key_frame() -> None:
    timing = Timing.of(SEGMENT, SEGMENT, 34 * MS)
    made = segments(cuts(Segmenter(timing, video=True, segment=SEGMENT, stills=NEVER), video(20, gop=10.0)))
    lengths = [sum(cut.duration for cut in segment) for segment in made]
    assert all(round(length / 1e9) <= 2 for length in lengths)
    # four in one group, and what is left of it: the next key frame begins one at once
    assert [segment[0].independent for segment in made][:6] == [True, False, False, False, False, True]


def test_video_begins_with_a_key_frame_and_after_an_interruption_again() -> None:
    timing = Timing.of(SEGMENT, SEGMENT, 34 * MS)
    segmenter = Segmenter(timing, video=True, segment=SEGMENT, stills=NEVER)
    packets = video(8)
    for packet in packets[10:80]:
        list(segmenter.push(packet))
    (rest,) = segmenter.close()
    assert rest.closes
    assert not list(segmenter.close())
    later = cuts(segmenter, packets[100:])
    assert later[0].packets[0] is packets[120]
    assert later[0].opens
    assert segmenter.skipped == 50 + 20


def test_time_that_goes_back_is_left_out() -> None:
    segmenter = Segmenter(Timing.of(SEGMENT, SEGMENT, 34 * MS), video=True, segment=SEGMENT, stills=NEVER)
    packets = video(4)
    made = cuts(segmenter, [*packets[:50], *packets[40:]])
    assert [packet for cut in made for packet in cut.packets] == packets
    assert segmenter.skipped == 10


def test_a_key_frame_is_wanted_shortly_before_the_segment_should_end() -> None:
    segmenter = Segmenter(Timing.of(SEGMENT, SEGMENT, 34 * MS), video=True, segment=SEGMENT, stills=NEVER)
    wanted = [
        packet.dts for packet in video(2.2, gop=100) if list(segmenter.push(packet)) is not None and segmenter.wants_keyframe
    ]
    assert 1600 * MS < wanted[0] < 1900 * MS


def test_no_part_is_larger_than_its_bound() -> None:
    segmenter = Segmenter(Timing.of(SEGMENT, SEGMENT, 34 * MS), video=True, segment=SEGMENT, stills=NEVER)
    large = [EncodedPacket(1, n * 33 * MS, n * 33 * MS, n == 0, bytes(3 << 20), 0, 0) for n in range(20)]
    assert max(len(cut.packets) for cut in cuts(segmenter, large)) <= 2


@pytest.mark.parametrize(
    "missing",
    [
        range(70, 78),
        range(100, 115),
        range(115, 119),
        range(117, 140),
        range(61, 65),
        range(62, 66),
        range(70, 110),
        range(70, 118),
    ],
)
def test_missing_frames_make_no_segment_too_long_and_parts_that_are_whole(missing: range) -> None:
    timing = Timing.of(SEGMENT, SEGMENT, 34 * MS)
    packets = [packet for number, packet in enumerate(video(12)) if number not in missing]
    made = cuts(Segmenter(timing, video=True, segment=SEGMENT, stills=NEVER), packets)
    assert [packet for cut in made for packet in cut.packets] == packets
    lengths: list[int] = []
    for cut in made:
        lengths = [*lengths, cut.duration] if cut.opens else [*lengths[:-1], lengths[-1] + cut.duration]
        assert cut.closes or cut.duration >= 0.85 * timing.part
    assert max(lengths) <= timing.limit
    assert sum(cut.duration > timing.part for cut in made) <= 1


@pytest.mark.parametrize("pause", [0.3, 0.5, 1.0, 2.7, 60.0])
@pytest.mark.parametrize("begin", [5.0, 5.1, 5.25, 5.31, 5.9])
def test_a_frame_that_is_shown_again_begins_each_part_of_a_pause(pause: float, begin: float) -> None:
    timing = Timing.of(SEGMENT, SEGMENT, 34 * MS)
    segmenter = Segmenter(timing, video=True, segment=SEGMENT, stills=AGAIN)
    packets = [packet for packet in video(begin + pause + 5) if not begin * SECOND < packet.dts < (begin + pause) * SECOND]
    made: list[Cut] = []
    for packet in packets:
        made += [*segmenter.stand(packet.dts), *segmenter.push(packet)]
    lengths: list[int] = []
    for cut in made:
        lengths = [*lengths, cut.duration] if cut.opens else [*lengths[:-1], lengths[-1] + cut.duration]
        assert cut.duration <= timing.part
        assert cut.closes or cut.duration >= 0.85 * timing.part
    assert max(lengths) <= timing.limit
    assert [cut.start + cut.duration for cut in made[:-1]] == [cut.start for cut in made[1:]]
    shown = [packet for cut in made for packet in cut.packets if packet.data != b"again"]
    assert shown == packets[: len(shown)]
    assert len(packets) - len(shown) <= 10, "the part that is under way"
    assert not segmenter.skipped


def test_frames_that_come_after_their_time_was_shown_follow_it_in_order() -> None:
    segmenter = Segmenter(Timing.of(SEGMENT, SEGMENT, 34 * MS), video=True, segment=SEGMENT, stills=AGAIN)
    packets = video(4)
    made = [cut for packet in packets[:50] for cut in segmenter.push(packet)]
    made += segmenter.stand(packets[70].dts)
    made += cuts(segmenter, packets[50:])
    shown = [packet for cut in made for packet in cut.packets]
    assert len([packet for packet in shown if packet.data != b"again"]) == len(packets) < len(shown)
    assert all(before.dts < after.dts for before, after in pairwise(shown))


@pytest.mark.parametrize("apart", [1, 1000, MS, 2 * MS, 20 * MS])
def test_a_picture_stands_behind_pictures_that_followed_each_other_at_once(apart: int) -> None:
    timing = Timing.of(SEGMENT, SEGMENT, 34 * MS)
    segmenter = Segmenter(timing, video=True, segment=SEGMENT, stills=AGAIN)
    packets = [packet._replace(pts=number * apart, dts=number * apart) for number, packet in enumerate(video(2))]
    made = [cut for packet in packets for cut in segmenter.push(packet)]
    made += segmenter.stand(10 * timing.part)
    assert sum(packet.data == b"again" for cut in made for packet in cut.packets) <= 10  # one begins a part
    assert made[-1].start + made[-1].duration >= 9 * timing.part
    assert max(cut.duration for cut in made) <= timing.part
    assert [cut.start + cut.duration for cut in made[:-1]] == [cut.start for cut in made[1:]]


def beside(
    timing: Timing, pictures: list[EncodedPacket], sounds: list[EncodedPacket], lead: int
) -> tuple[list[Cut], list[Cut]]:
    """The cuts of both, told of time as they are in a stream, where the sound comes `lead` ns before the picture of its time."""
    picture = Segmenter(timing, video=True, segment=SEGMENT, stills=NEVER)
    sound = Segmenter(timing, video=False, segment=SEGMENT, stills=NEVER)
    of_pictures: list[Cut] = []
    of_sounds: list[Cut] = []
    coming = [(each.dts, each, True) for each in pictures] + [(each.dts - lead, each, False) for each in sounds]
    for _, packet, is_picture in sorted(coming, key=lambda each: each[0]):
        if not is_picture:
            of_sounds += [*sound.stand(packet.dts), *sound.push(packet)]
            continue
        for cut in [*picture.stand(packet.dts), *picture.push(packet)]:
            of_pictures.append(cut)
            of_sounds += sound.align(cut)
    return [*of_pictures, *picture.close()], [*of_sounds, *sound.close()]


@pytest.mark.parametrize("rate", [15, 24, 25, 29.97, 30, 50, 60])
@pytest.mark.parametrize("frame", [20 * MS, 21_333_333, 23_219_954, 42_666_667])
@pytest.mark.parametrize("lead", [-400 * MS, 0, 20 * MS, 60 * MS, 300 * MS])
def test_sound_beside_a_picture_is_cut_where_the_picture_is(rate: float, frame: int, lead: int) -> None:
    timing = Timing.of(SEGMENT, SEGMENT, round(1e9 / rate), frame)
    sounds = sound(20, frame)
    of_pictures, of_sounds = beside(timing, video(20, rate), sounds, lead)
    assert [packet for cut in of_sounds for packet in cut.packets] == sounds
    for cut in (*of_pictures, *of_sounds):
        assert cut.duration <= timing.part
        assert cut.closes or cut.duration >= 0.85 * timing.part
    for picture, heard in zip(segments(of_pictures)[:-1], segments(of_sounds)[:-1], strict=True):
        assert len(picture) == len(heard)
        assert all(abs(seen.start - each.start) <= frame for seen, each in zip(picture, heard, strict=True))


@pytest.mark.parametrize("later", [40 * MS, 100 * MS, 170 * MS, 250 * MS])
def test_sound_that_was_cut_elsewhere_comes_to_be_cut_where_the_picture_is(later: int) -> None:
    timing = Timing.of(SEGMENT, 8 * SECOND, 34 * MS, 21_333_333)
    sounds = [packet._replace(dts=packet.dts + later, pts=packet.pts + later) for packet in sound(6)]
    of_pictures, of_sounds = beside(timing, video(6, gop=8.0), sounds, 0)
    then = [cut for cut in of_pictures if cut.start > 2500 * MS]
    assert len(then) > 6
    assert all(min(abs(cut.start - each.start) for each in of_sounds) < 22 * MS for cut in then)


def test_whatever_comes_beside_a_picture_the_sound_keeps_the_rules() -> None:
    """Holes in the sound, pictures that come late, early and not at all."""
    for seed in range(60):
        chance = random.Random(seed)
        timing = Timing.of(SEGMENT, SEGMENT, 34 * MS, 21_333_333)
        sounds, hole = [], 0
        for packet in sound(20):
            hole += chance.choice((0,) * 60 + (chance.randrange(1400),)) * MS
            sounds.append(packet._replace(dts=packet.dts + hole, pts=packet.pts + hole))
        seen_until = chance.choice((5, 30))
        pictures = [each for each in video(30, jitter=10 * MS) if each.dts < seen_until * SECOND]
        _, made = beside(timing, pictures, sounds, chance.randrange(-900, 900) * MS)
        assert [packet for cut in made for packet in cut.packets] == sounds
        assert [cut.start + cut.duration for cut in made[:-1]] == [cut.start for cut in made[1:]]
        for cut in made:
            assert cut.closes or cut.duration >= 0.85 * timing.part
            assert cut.duration <= timing.part or max(cut.durations) > 22 * MS, "one frame lasts long"
        for segment in _opened(made):
            assert sum(cut.duration for cut in segment) <= timing.limit


def _opened(made: list[Cut]) -> list[list[Cut]]:
    """By segment, where the one before a new one need not have been closed."""
    result: list[list[Cut]] = []
    for cut in made:
        if cut.opens:
            result.append([])
        result[-1].append(cut)
    return result
