"""A gateway that has learned what it can do refuses what does not fit, in words, and still takes what passes through."""

from tests.support.encoders import X264_LIVE, ffmpeg, programme
from tests.support.gateway_process import running_gateway
from tests.support.srt_encoders import Way

BFRAMES = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "60")  # must be transcoded
AAC = ("-c:a", "aac")
RTMP = ("-f", "flv")
SETTINGS = ("capacity.cores=0.15", "capacity.reserve=0", "calls.linger_s=0")  # room for one 360p picture, and not for two


async def test_a_transcode_too_many_is_refused_and_what_passes_is_taken() -> None:
    async with running_gateway(*SETTINGS) as gateway:
        async with ffmpeg(*programme(), *BFRAMES, *AAC, *RTMP, gateway.rtmp(user="one")):
            await gateway.stream("one", tracks=2)
            for target in ([*RTMP, gateway.rtmp(user="two")], ["-f", "mpegts", Way(gateway, user="two").url()]):
                # Its tracks are known only when it sends, and while ffmpeg sends it shows nothing of what it is told: see the log.
                async with ffmpeg(*programme(), *BFRAMES, *AAC, *target) as encoding:
                    assert await encoding.wait() != 0
            async with ffmpeg(*programme(audio=False), *X264_LIVE, *RTMP, gateway.rtmp(user="three")):
                (track,) = (await gateway.stream("three"))["tracks"]
                assert track["mode"] == "passthrough"
                assert (await gateway.stream("one", tracks=2))["reconnects"] == 0
            for protocol in ("rtmp", "srt"):
                assert await gateway.metric(f'ingress_refused_total{{protocol="{protocol}",reason="overloaded"}}') == 1
            assert await gateway.metric("ingress_capacity_cores") == 0.15
            assert await gateway.metric("ingress_capacity_pressure") > 0.5
            assert await gateway.metric('ingress_capacity_cost_cores{kind="video_360p"}') > 0
            assert await gateway.text("/readyz") == "ready\n"
    refused = [line for line in gateway.log if line["message"].startswith("refused")]
    assert len(refused) == 2
    assert all(line["session"] and line["reason"] == "overloaded" for line in refused)
    ended = [line["why"] for line in gateway.log if line["message"] == "ended" and "overloaded" in line["why"]]
    assert len(ended) == 2  # this is what the encoder was told
    assert all("transcoding this stream takes about 0." in why and "without B-frames" in why for why in ended)
    assert not [line for line in gateway.log if line["level"] == "error"]
