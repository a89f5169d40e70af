"""What ffmpeg 9 can do by WHIP beyond the ordinary; for that see tests/gateway/test_matrix.py."""

from tests.support.encoders import X264_LIVE, ffmpeg, programme
from tests.support.gateway_process import running_gateway
from tests.support.publishing import OPUS


async def test_as_dtls_client_and_where_the_key_names_the_call() -> None:
    async with running_gateway() as gateway:
        target = ("-f", "whip", "-whip_flags", "dtls_active", "-authorization", gateway.key(), gateway.url("/whip"))
        async with ffmpeg(*programme(), *X264_LIVE, *OPUS, *target, version=9):
            stream = await gateway.stream(tracks=2)
    assert stream["call"] == "livestream:demo"
