"""An encoder that is connected and sends nothing worth showing, from its wire to what viewers see, are told and can read."""

import asyncio
from collections.abc import Sequence

import pytest

from tests.gateway.test_continuity import CALL, CONNECT, Seeing, told
from tests.support.application import running_application
from tests.support.encoders import X264_LIVE, ffmpeg
from tests.support.gateway_process import running_gateway
from tests.support.listener import listening
from tests.support.publishing import SOUND, Pasted
from tests.support.slow import slow
from tests.support.viewer import watching

FROM_S, TO_S = 4, 11
DURING = f"enable='between(t,{FROM_S},{TO_S})'"
CODED = (*X264_LIVE, "-g", "30", "-b:v", "1500k", "-maxrate", "1500k")
LITTLE = 150_000  # bit/s: more than a black picture takes and the sound beside it


def source(*, over: str = "", quiet: bool = False) -> Sequence[str]:
    """A picture that moves and a tone; for some seconds there is another picture over it, or silence."""
    inputs = [
        "testsrc2=size=640x360:rate=30",
        f"color={over or 'black'}:size=640x360:rate=30",
        "sine=frequency=1000:sample_rate=48000",
    ]
    live = [part for each in inputs for part in ("-re", "-f", "lavfi", "-i", each)]
    picture = f"[0:v][1:v]overlay={DURING},format=yuv420p[v]" if over else "[0:v]format=yuv420p[v]"
    sound = f"[2:a]volume=0:{DURING}[a]" if quiet else "[2:a]anull[a]"
    return [*live, "-filter_complex", f"{picture};{sound}", "-map", "[v]", "-map", "[a]", *CODED]


CASES = {
    "black": ("slate.black_s=2", source(over="black"), "its picture is black"),
    "frozen": ("slate.frozen_s=3", source(over="blue"), "its picture stands still"),
    "no_sound": ("slate.silent_s=2", source(quiet=True), "nothing is heard of it"),
    "low_bitrate": (f"slate.low_bitrate_bps={LITTLE * 2}", source(over="black"), "too little comes of it"),
}


@pytest.mark.parametrize(
    ("cause", "protocol"),
    [("black", "rtmp"), slow("frozen", "srt"), ("no_sound", "rtmp"), slow("low_bitrate", "rtmp"), slow("black", "whip")],
)
async def test_it_is_not_shown_and_shown_again_by_itself(cause: str, protocol: str) -> None:
    setting, media, words = CASES[cause]
    async with (
        running_gateway(setting, "slate.low_bitrate_s=2") as gateway,
        watching(gateway.url(f"/whep/{CALL}"), viewer=Seeing()) as viewer,
        listening(gateway.url(CONNECT), CALL) as listener,
    ):
        assert isinstance(viewer, Seeing)
        pasted = Pasted.of_gateway(gateway, CALL)
        target = pasted.target(protocol)
        async with ffmpeg(*media, *SOUND[protocol], *target, version=9 if protocol == "whip" else 5):
            await viewer.until_look(viewer.is_programme)
            await listener.until("ingress.slate")
            await viewer.until_look(viewer.is_card)
            stream = await gateway.stream(states=("slate",), tracks=2)
            assert any(words in each and setting.partition("=")[0] in each for each in stream["warnings"]), stream["warnings"]
            await listener.until("ingress.resumed")
            await viewer.until_look(viewer.is_programme)
            sounding = viewer.sounding
            await viewer.until_sounding(sounding + 50)
            assert told(listener) == [("ingress.slate", cause), ("ingress.resumed", cause)]
            stream = await gateway.stream(tracks=2)
            assert not any(words in each for each in stream["warnings"])
            assert stream["reconnects"] == 0
        series = f'ingress_interruptions_total{{cause="{cause}",protocol="{protocol}"}}'
        assert await gateway.metric(series) == 1


async def test_a_call_has_triggers_of_its_own_and_an_encoder_that_then_dies_is_away() -> None:
    async with running_application("slate.black_s=3000") as application:
        settings = {"continuity": {"black_seconds": 1, "linger_seconds": 2}}
        members = [{"user_id": "john", "role": "host"}]
        call = {"created_by_id": "john", "members": members, "settings_override": settings}
        await application.ok("POST", "/call/livestream/show", {"data": call})
        pasted = Pasted.of_key(await application.ok("POST", "/call/livestream/show/stream_keys", {}, user="john"))
        gateway, token = application.gateway, application.token("john")
        async with listening(gateway.url(CONNECT), "livestream:show", token) as host:
            async with ffmpeg(*source(over="black"), *SOUND["rtmp"], *pasted.target("rtmp")) as encoder:
                assert (await host.until("ingress.slate"))["payload"]["cause"] == "black"
                encoder.kill()
                began = asyncio.get_running_loop().time()
                await host.until("call.session_participant_left")
                assert asyncio.get_running_loop().time() - began < 5
            assert told(host) == [("ingress.slate", "black")]
