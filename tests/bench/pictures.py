"""The pictures of the dashboards in docs/operators.md: `python -m tests.bench.pictures [--minutes N]` draws them anew into `docs/`.

A gateway with streams by RTMP, SRT (over a bad network) and WHIP, viewers and a few refusals runs for so long beside Debian's Prometheus,
which is then asked each panel's own queries. No Grafana is needed for that, and none is started.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from playwright.async_api import async_playwright

from tests.bench.drawing import WIDTH, Series, legend, page
from tests.bench.sessions import child
from tests.browser.chromium import EXECUTABLE, FLAGS
from tests.support.encoders import X264_LIVE, ffmpeg, programme
from tests.support.gateway_process import ROOT, GatewayProcess, running_gateway
from tests.support.prometheus import Prometheus, filled_in, running_prometheus, self_signed
from tests.support.publishing import Pasted, publishing
from tests.support.relay import relaying

CALLS = [f"livestream:{name}" for name in ("news", "sport", "talk", "field", "studio", "desk")]
STEP_S, VIEWERS = 2, 3
AAC = ("-c:a", "aac")
REORDERED = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "60")
LONG_GROUPS = ("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-bf", "0", "-g", "300")


async def main(minutes: float) -> None:
    dashboards = [json.loads(file.read_text()) for file in sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))]
    async with AsyncExitStack() as stack:
        settings = self_signed(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        gateway = await stack.enter_async_context(running_gateway(f"calls.public={','.join(CALLS)}", *settings))
        prometheus = await stack.enter_async_context(running_prometheus(gateway))
        begin, length = time.time(), minutes * 60
        await _streams(gateway, stack, length / 8)
        await asyncio.sleep(max(0.0, begin + length - time.time()))
        end = time.time()
        answers = [await _ask(prometheus, dashboard, begin + 5, end) for dashboard in dashboards]
    (ROOT / "docs").mkdir(exist_ok=True)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=EXECUTABLE, args=list(FLAGS))
        tab = await browser.new_page(viewport={"width": WIDTH, "height": 100})
        for dashboard, answer in zip(dashboards, answers, strict=True):
            await tab.set_content(page(dashboard, answer))
            await tab.screenshot(path=ROOT / "docs" / f"{dashboard['uid']}.png", full_page=True)
        await browser.close()


async def _streams(gateway: GatewayProcess, stack: AsyncExitStack, pause_s: float) -> None:
    """One after the other, each with viewers, and each time somebody with a key that is none."""
    news, sport, talk, field, studio, services = CALLS
    small = programme(320, 240)
    bad = await stack.enter_async_context(relaying(gateway.ports["srt"], loss=0.03, round_trip_s=0.04))
    field_address = f"srt://127.0.0.1:{bad.port}?streamid={gateway.key(field, 'field')}"
    studio_address = f"srt://127.0.0.1:{gateway.ports['srt']}?streamid={gateway.key(studio, 'studio')}"
    encoders = (
        (news, ffmpeg(*small, *X264_LIVE, *AAC, "-f", "flv", gateway.rtmp(news, "news"))),
        (field, ffmpeg(*small, *X264_LIVE, *AAC, "-f", "mpegts", field_address)),
        (services, publishing("whip", Pasted.of_gateway(gateway, services, "desk"))),
        (sport, ffmpeg(*small, *REORDERED, *AAC, "-f", "flv", gateway.rtmp(sport, "sport"))),
        (studio, ffmpeg(*small, *X264_LIVE, *AAC, "-f", "mpegts", studio_address)),
        (talk, ffmpeg(*small, *LONG_GROUPS, *AAC, "-f", "flv", gateway.rtmp(talk, "talk"))),
    )
    for call, encoder in encoders:
        await stack.enter_async_context(encoder)
        await gateway.stream(call.partition(":")[2], tracks=2)
        joins = [[0.5 * number, gateway.url(f"/whep/{call}")] for number in range(VIEWERS)]
        viewers = await stack.enter_async_context(child("viewers", {"joins": joins, "measuring": [], "feedback": True}))
        await viewers.line()
        async with ffmpeg(*small, *X264_LIVE, *AAC, "-f", "flv", gateway.rtmp(news).rpartition("/")[0] + "/a-key") as refused:
            await refused.wait()
        await asyncio.sleep(pause_s)


async def _ask(prometheus: Prometheus, dashboard: Mapping[str, Any], begin: float, end: float) -> dict[int, list[Series]]:
    """By panel: the answers to its queries, as Grafana would ask them."""
    answers: dict[int, list[Series]] = {}
    for panel in dashboard["panels"]:
        series = answers.setdefault(panel["id"], [])
        for target in panel.get("targets", ()):
            found = await prometheus.ask(filled_in(target["expr"]), start=begin, end=end, step=STEP_S)
            series += [
                (legend(target["legendFormat"], each["metric"]), [(float(at), float(value)) for at, value in each["values"]])
                for each in found
            ]
    return answers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the dashboards for docs/operators.md.")
    parser.add_argument("--minutes", type=float, default=5)
    asyncio.run(main(parser.parse_args().minutes))
