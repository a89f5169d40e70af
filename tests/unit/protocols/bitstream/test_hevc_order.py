"""The order of presentation, read off HEVC pictures as x265 makes them."""

import itertools
import random

import pytest

from protocols.bitstream.hevc_order import HevcPictureOrder
from protocols.bitstream.picture_order import PicturePosition
from protocols.media import Codec, EncodedPacket
from tests.unit.transcode.media import pictures
from transcode.worker.decoder import parameter_sets

FRAME = 33_333_333  # ns: the order is counted in frames


def made(params: str) -> list[EncodedPacket]:
    options = {"preset": "ultrafast", "x265-params": f"log-level=none:repeat-headers=1:bframes=3:b-adapt=0:{params}"}
    return pictures(Codec.HEVC, options=options, seconds=4)[1]


def following(packets: list[EncodedPacket]) -> HevcPictureOrder:
    order = HevcPictureOrder()
    assert order.place(packets[0].data) is None
    order.follow(parameter_sets(packets[0].data, Codec.HEVC))
    return order


@pytest.mark.parametrize(
    "params", ["keyint=30:open-gop=0", "keyint=250", "keyint=20:open-gop=1", "temporal-layers=1", "slices=2"]
)
def test_the_order_is_that_of_the_times(params: str) -> None:
    packets = made(params)
    order = following(packets)
    groups: list[list[tuple[int, int]]] = []
    for packet in packets:
        place = order.place(packet.data)
        assert place is not None
        if place.idr:
            assert packet.keyframe
            groups.append([])
        groups[-1].append((packet.pts, place.order))
    assert any(a.pts > b.pts for a, b in itertools.pairwise(packets))
    for group in groups:
        first = min(group)[0]
        assert [round((pts - first) / FRAME) for pts, _ in group] == [place for _, place in group]


def test_broken_pictures_have_a_place_or_none() -> None:
    packets = made("keyint=30")
    order = following(packets)
    dice = random.Random(1)
    for packet in packets * 5:
        data = bytearray(packet.data[: dice.randrange(60)])
        for _ in range(dice.randrange(4)):
            if data:
                data[dice.randrange(len(data))] = dice.randrange(256)
        order.follow(bytes(data))
        order.follow(parameter_sets(packets[0].data, Codec.HEVC))
        assert isinstance(order.place(bytes(data)), PicturePosition | None)
