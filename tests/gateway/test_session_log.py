"""Who reads the log for one session finds all of it by its id: the encoder that came, the one that came back, and what was decided."""

from tests.support.encoders import X264_LIVE, ffmpeg, programme
from tests.support.gateway_process import running_gateway

OF_THE_GATEWAY = {"ready", "SRT", "shutting down: encoders and viewers are told"}  # what belongs to no session


async def test_every_line_of_a_session_has_its_id_also_after_another_encoder_took_over() -> None:
    async with running_gateway("calls.linger_s=0") as gateway:
        async with ffmpeg(*programme(320, 240), *X264_LIVE, "-c:a", "aac", "-f", "flv", gateway.rtmp()):
            session = (await gateway.stream(tracks=2))["id"]
            async with ffmpeg(*programme(320, 240), "-c:v", "libx264", "-bf", "2", "-c:a", "aac", "-f", "flv", gateway.rtmp()):
                stream = await gateway.stream(tracks=2, wanted=lambda stream: stream["reconnects"] == 1)
                assert stream["id"] == session
        await gateway.logged("'message': 'ended'")
    first = next(index for index, line in enumerate(gateway.log) if line["message"] == "publishing")
    lines = [line for line in gateway.log[first:] if line["message"] not in OF_THE_GATEWAY]
    assert {line.get("session") for line in lines} == {session}, lines
    messages = [line["message"] for line in lines]
    assert messages.count("publishing") == messages.count("live") == 2
    assert [line["publisher"] != session for line in lines if "publisher" in line]  # the second connection is told apart
    assert any("B-frames" in message for message in messages)
