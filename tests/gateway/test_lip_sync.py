"""Sound and picture in step from the first seconds at a viewer, also where the encoder sends sound in spurts; and the streamer is told."""

from pathlib import Path

import pytest

from tests.support.gateway_process import running_gateway
from tests.support.lipsync import LipSync
from tests.support.lipsync_encoders import AT_ONCE, IN_SPURTS
from tests.support.slow import slow
from tests.support.viewer import watching

BEFORE, AFTER = 40, 60  # ms that sound may be before and after the picture: EBU R 37
BEGINS, ENDS = 3, 8  # s after the first packet
HELD_UP = 1  # of these seconds, in which a busy machine may have held up one medium and not the other
QUICK = {"ffmpeg over SRT, in spurts"}


@pytest.mark.parametrize("name", [name if name in QUICK else slow(name) for name in IN_SPURTS | AT_ONCE])
async def test_lips_and_voice_are_together_from_the_third_second_on(name: str, tmp_path: Path) -> None:
    call, viewer = "livestream:demo", LipSync()
    publish = (IN_SPURTS | AT_ONCE)[name]
    async with running_gateway(f"calls.public={call}") as gateway, watching(gateway.url(f"/whep/{call}"), viewer=viewer):
        async with publish(gateway, call, "host", tmp_path):
            await viewer.until_seconds(ENDS)
            await viewer.until_pairs(3)
            stream = await gateway.stream("host", tracks=2)
            late, offsets = [viewer.heard_after_seen(second) for second in range(BEGINS, ENDS)], viewer.offsets
    seen = f"late by {late}, beeps after flashes by {offsets}"
    print(name, seen, stream["warnings"])
    assert sum(each + max(offsets) < -BEFORE or each + min(offsets) > AFTER for each in late) <= HELD_UP, seen
    assert any(warning.startswith("The sound arrives ") for warning in stream["warnings"]) is (name in IN_SPURTS)
