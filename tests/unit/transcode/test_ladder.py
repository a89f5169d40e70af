"""Which layers a size has."""

import itertools

import pytest

from transcode.ladder import ladder


@pytest.mark.parametrize(
    ("size", "layers", "sizes"),
    [
        ((1920, 1080), 3, [("f", 1920, 1080), ("h", 960, 540), ("q", 480, 270)]),
        ((1920, 1080), 2, [("f", 1920, 1080), ("h", 960, 540)]),
        ((1920, 1080), 1, [("", 1920, 1080)]),
        ((1080, 1920), 3, [("f", 1080, 1920), ("h", 540, 960), ("q", 270, 480)]),
        ((1280, 720), 3, [("f", 1280, 720), ("h", 640, 360), ("q", 320, 180)]),
        ((1366, 768), 3, [("f", 1366, 768), ("h", 682, 384), ("q", 340, 192)]),
        ((854, 480), 3, [("f", 854, 480), ("h", 426, 240)]),
        ((640, 360), 3, [("f", 640, 360), ("h", 320, 180)]),
        ((320, 180), 3, [("f", 320, 180)]),
        ((2, 2), 3, [("f", 2, 2)]),
    ],
)
def test_each_layer_is_half_of_the_one_above_while_it_is_worth_it(
    size: tuple[int, int], layers: int, sizes: list[tuple[str, int, int]]
) -> None:
    assert [(rung.layer, rung.width, rung.height) for rung in ladder(*size, layers)] == sizes


def test_no_layer_of_any_size_is_larger_than_the_one_above_or_odd() -> None:
    for width, height, layers in itertools.product(range(2, 700, 2), range(2, 700, 34), (1, 2, 3)):
        rungs = ladder(width, height, layers)
        assert 1 <= len(rungs) <= layers
        assert (rungs[0].width, rungs[0].height) == (width, height)
        for above, below in itertools.pairwise(rungs):
            assert below.width < above.width
            assert below.height < above.height
            assert below.width % 2 == below.height % 2 == 0
