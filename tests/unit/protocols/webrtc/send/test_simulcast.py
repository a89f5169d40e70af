"""Which layer a viewer gets: by its tile, by what its way carries, and what it takes to change."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from protocols.webrtc.send.simulcast import LONGEST_RAISE_NS, RAISE_NS, STRAINED_NS, Layer, LayerChoice, Picture, Wish
from tests.unit.protocols.webrtc.loopback import MS, SECOND

HIGH = Layer("h", 1280, 720, 2_500_000)
MIDDLE = Layer("m", 640, 360, 500_000)
LOW = Layer("l", 320, 180, 150_000)
LAYERS = (HIGH, MIDDLE, LOW)
STEP = 250 * MS


class Viewer:
    """Pictures whose chosen layers are sent, over a way that carries so much and tells what arrives of what is sent."""

    def __init__(self, *wishes: Wish, layers: tuple[Layer, ...] = LAYERS) -> None:
        self.choice = LayerChoice()
        self.pictures = {number: Picture(layers, layers[0].name, wish) for number, wish in enumerate(wishes or (Wish(),))}
        self.now = 1000 * SECOND
        self.history: list[tuple[str, ...]] = []

    @property
    def sent(self) -> int:
        return sum(picture.bitrate for picture in self.pictures.values())

    def live(self, nanoseconds: int, *, carries: int | None = None, estimate: int | None = None) -> tuple[str, ...]:
        """What is shown after this time on a way that carries so many bit/s (None: all there is)."""
        for _ in range(nanoseconds // STEP):
            self.now += STEP
            if estimate is None:
                told = self.sent * 3 // 2 if carries is None or self.sent <= carries else int(carries * 0.85)
            else:
                told = estimate
            self.show(self.choice.choose(self.pictures, told, self.now))
        return self.history[-1]

    def show(self, chosen: Mapping[int, str]) -> None:
        self.pictures = {number: replace(picture, shown=chosen[number]) for number, picture in self.pictures.items()}
        self.history.append(tuple(chosen.values()))


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (Wish(), "h"),
        (Wish(width=1920, height=1080), "h"),
        (Wish(width=1280, height=720), "h"),
        (Wish(width=642, height=361), "h"),
        (Wish(width=640, height=360), "m"),
        (Wish(height=200), "m"),
        (Wish(width=160, height=90), "l"),
        (Wish(width=330, height=800), "m"),  # a tall tile shows the whole picture across
        (Wish(max_height=720), "h"),
        (Wish(max_height=719), "m"),
        (Wish(max_width=400), "l"),
        (Wish(max_height=10), "l"),
        (Wish(height=720, max_height=400), "m"),
        (Wish(layer="l"), "l"),
        (Wish(layer="m", height=90), "m"),
        (Wish(layer="of another picture", height=90), "l"),
    ],
)
def test_the_smallest_layer_that_fills_the_tile_is_wanted(wish: Wish, expected: str) -> None:
    assert LAYERS[Picture(LAYERS, "h", wish).wanted].name == expected


def test_without_any_sign_of_the_way_the_wish_is_followed_at_once() -> None:
    choice = LayerChoice()
    assert choice.choose({0: Picture(LAYERS, "l"), 7: Picture(LAYERS, "l", Wish(height=360))}, None, 0) == {0: "h", 7: "m"}
    assert choice.choose({}, None, 0) == {}


def test_a_way_that_carries_everything_changes_nothing() -> None:
    viewer = Viewer()
    viewer.live(60 * SECOND)
    assert set(viewer.history) == {("h",)}


@pytest.mark.parametrize(("carries", "expected"), [(2_000_000, "m"), (700_000, "m"), (400_000, "l"), (50_000, "l")])
def test_a_way_that_carries_less_gets_what_it_carries_within_a_second(carries: int, expected: str) -> None:
    viewer = Viewer()
    assert viewer.live(STRAINED_NS + 2 * STEP, carries=carries) == (expected,)


def test_a_moment_of_strain_is_the_key_frame_and_no_reason() -> None:
    viewer = Viewer()
    viewer.live(SECOND)
    viewer.live(STRAINED_NS - STEP, estimate=1_000_000)
    viewer.live(SECOND)
    assert set(viewer.history) == {("h",)}


def test_when_the_way_is_free_again_it_goes_up_step_by_step_and_stays() -> None:
    viewer = Viewer()
    assert viewer.live(2 * SECOND, carries=300_000) == ("l",)
    viewer.history.clear()
    assert viewer.live(2 * RAISE_NS) == ("h",)
    assert viewer.history.count(("m",)) * STEP == RAISE_NS
    viewer.history.clear()
    viewer.live(60 * SECOND)
    assert set(viewer.history) == {("h",)}


def test_a_way_that_stays_narrow_is_tried_ever_more_rarely() -> None:
    viewer = Viewer()
    viewer.live(300 * SECOND, carries=700_000)
    high = sum(shown == ("h",) for shown in viewer.history) * STEP
    assert viewer.history[-1] == ("m",)
    assert high < 10 * SECOND, "a picture that breaks up is worse than a small one"
    viewer.history.clear()
    viewer.live(4 * LONGEST_RAISE_NS, carries=700_000)
    assert 1 <= sum(shown == ("h",) for shown in viewer.history) * STEP // SECOND < 10, "but never given up"


def test_pictures_share_the_way_and_the_smallest_goes_up_first() -> None:
    viewer = Viewer(Wish(), Wish(), Wish())
    assert viewer.live(2 * SECOND, carries=1_500_000) == ("m", "m", "l")
    viewer.live(RAISE_NS)
    assert viewer.history[-1] == ("m", "m", "m")
    viewer.live(30 * SECOND)
    assert viewer.history[-1] == ("h", "h", "h")


def test_a_small_tile_is_no_strain_and_a_larger_one_is_followed_at_once() -> None:
    viewer = Viewer(Wish(height=90))
    assert viewer.live(10 * SECOND, carries=700_000) == ("l",)
    viewer.pictures = {0: replace(viewer.pictures[0], wish=Wish(height=360))}
    assert viewer.live(STEP, carries=700_000) == ("m",)


def test_a_wish_for_a_layer_is_held_to_what_the_way_carries() -> None:
    viewer = Viewer(Wish(layer="h"))
    assert viewer.live(2 * SECOND, carries=600_000) == ("m",)


def test_layers_that_come_and_go_are_followed() -> None:
    viewer = Viewer()
    viewer.live(SECOND)
    viewer.pictures = {0: replace(viewer.pictures[0], layers=LAYERS[1:])}
    assert viewer.live(STEP) == ("m",)
    viewer.pictures = {0: replace(viewer.pictures[0], layers=LAYERS)}
    assert viewer.live(STEP) == ("h",)
