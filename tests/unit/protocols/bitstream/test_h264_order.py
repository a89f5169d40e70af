"""The order of presentation, read off H.264 pictures as x264 makes them."""

import random

import pytest

from protocols.bitstream.h264_order import H264PictureOrder
from protocols.bitstream.picture_order import PicturePosition
from protocols.media import Codec, EncodedPacket
from tests.unit.transcode.media import pictures
from transcode.worker.decoder import parameter_sets

FIELD = 16_666_667  # ns: the order is counted in fields


def made(profile: str, params: str, **options: str) -> list[EncodedPacket]:
    settings = {"preset": "veryfast", "bf": "3", "b_strategy": "0", "profile": profile, "x264-params": params, **options}
    return pictures(options=settings, seconds=5, pix_fmt="yuv444p" if profile == "high444" else "")[1]


def following(packets: list[EncodedPacket]) -> H264PictureOrder:
    order = H264PictureOrder()
    assert order.place(packets[0].data) is None
    order.follow(parameter_sets(packets[0].data, Codec.H264))
    return order


@pytest.mark.parametrize("profile", ["main", "high", "high444"])
@pytest.mark.parametrize("params", ["keyint=30", "keyint=250", "open-gop=1", "slices=4", "b-pyramid=none", "cqm=jvt"])
def test_the_order_is_that_of_the_times(profile: str, params: str) -> None:
    if (profile, params) == ("main", "cqm=jvt"):
        profile = "high"
    packets = made(profile, params)
    order = following(packets)
    groups: list[list[tuple[int, int]]] = []
    for packet in packets:
        place = order.place(packet.data)
        assert place is not None
        if place.idr:
            assert packet.keyframe
            groups.append([])
        groups[-1].append((packet.pts, place.order))
    for group in groups:
        first = min(group)[0]
        assert [round((pts - first) / FIELD) for pts, _ in group] == [place for _, place in group]


@pytest.mark.parametrize("params", ["tff=1", "bframes=0"], ids=["fields", "nothing is reordered"])
def test_nothing_is_said_of_what_has_fields_or_no_order_of_its_own(params: str) -> None:
    packets = made("high", params, bf="0")
    order = following(packets)
    assert not order.known
    assert {order.place(packet.data) for packet in packets} == {None}


def test_broken_pictures_have_a_place_or_none() -> None:
    packets = made("high", "keyint=30")
    order = following(packets)
    dice = random.Random(1)
    for packet in packets * 5:
        data = bytearray(packet.data[: dice.randrange(60)])
        for _ in range(dice.randrange(4)):
            if data:
                data[dice.randrange(len(data))] = dice.randrange(256)
        order.follow(bytes(data))
        order.follow(parameter_sets(packets[0].data, Codec.H264))
        assert isinstance(order.place(bytes(data)), PicturePosition | None)
