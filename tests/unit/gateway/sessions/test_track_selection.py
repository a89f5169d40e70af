"""Which tracks of a publisher go into the call."""

from dataclasses import replace

import pytest

from gateway.sessions.track_selection import select
from protocols.media import Codec, Track
from tests.support.memory import as_a_call
from transcode.plan import Passthrough, Policy, plan

HIGH = Track(1, Codec.H264, width=1280, height=720, reorder=0, layer="h")
MIDDLE = replace(HIGH, id=2, width=640, height=360, layer="m")
LOW = replace(HIGH, id=3, width=320, height=180, layer="l")
SOUND = Track(9, Codec.OPUS, sample_rate=48_000, channels=2)


def vp8(track: Track) -> Track:
    return replace(track, codec=Codec.VP8)


@pytest.mark.parametrize(
    ("tracks", "expected"),
    [
        ((), {}),
        ((HIGH, MIDDLE, LOW, SOUND), {"h": "Passthrough", "m": "Passthrough", "l": "Passthrough", "": "Passthrough"}),
        ((vp8(HIGH), vp8(MIDDLE), vp8(LOW)), {"h": "Transcode"}),
        ((replace(HIGH, width=3840, height=2160), MIDDLE, LOW), {"m": "Passthrough", "l": "Passthrough"}),
        ((replace(HIGH, reorder=2), LOW), {"l": "Passthrough"}),
        ((replace(HIGH, layer=""), replace(MIDDLE, layer="")), {"": "Passthrough"}),
        ((HIGH, replace(HIGH, id=7), LOW), {"h": "Passthrough", "l": "Passthrough"}),
    ],
    ids=["none", "all pass", "none passes", "too large", "b-frames", "two pictures", "a name twice"],
)
def test_all_layers_that_pass_or_the_best_alone(tracks: tuple[Track, ...], expected: dict[str, str]) -> None:
    policy = Policy()
    selected = select(tracks, lambda track: plan(track, as_a_call(frozenset({Codec.H264, Codec.OPUS})), policy))
    assert {track.layer: type(decision).__name__ for track, decision in selected} == expected


def test_no_layers_are_made_below_those_that_the_publisher_sends() -> None:
    policy = Policy(layers=3)
    decided = {
        track.layer: decision
        for track in (replace(HIGH, layer=""), HIGH)
        for _, decision in select((track,), lambda track: plan(track, as_a_call(frozenset({Codec.H264})), policy))
    }
    assert {layer: isinstance(each, Passthrough) and each.below is not None for layer, each in decided.items()} == {
        "": True,
        "h": False,
    }


def test_the_first_sound_alone_is_taken() -> None:
    policy = Policy()
    selected = select((SOUND, replace(SOUND, id=10)), lambda track: plan(track, as_a_call(frozenset({Codec.OPUS})), policy))
    assert [track.id for track, _ in selected] == [9]
