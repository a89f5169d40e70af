"""Every query of the dashboards and every alert, asked of a Prometheus that scrapes a gateway with streams of all protocols under way."""

import asyncio
import json
import math
import ssl
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.encoders import X264_LIVE, ffmpeg, programme
from tests.support.gateway_process import ROOT, GatewayProcess, fresh_metrics, running_gateway
from tests.support.prometheus import Prometheus, alert_rules, figure, filled_in, panel_queries, running_prometheus, self_signed
from tests.support.publishing import Pasted, publishing
from tests.support.viewer import watching
from tests.support.waiting import eventually

MOST_SERIES = 400
SETTLED_S = 45  # for what needs two scrapes, on a busy machine
CALLS = [f"livestream:{name}" for name in ("rtmp", "rtmps", "srt", "whip")]
X264_REORDERED = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "30")


async def test_every_dashboard_and_alert_query_gives_data(tmp_path: Path) -> None:
    async with running_gateway(f"calls.public={','.join(CALLS)}", *self_signed(tmp_path)) as gateway, AsyncExitStack() as stack:
        prometheus = await stack.enter_async_context(running_prometheus(gateway))
        await publish_and_watch(gateway, stack)
        await be_refused(gateway)
        dashboards = [
            json.loads(file.read_text()) for file in sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
        ]
        queries = {filled_in(query) for dashboard in dashboards for query in panel_queries(dashboard)}
        await all_answer(prometheus, queries | {figure(rule["expr"]) for rule in alert_rules()})
        await all_alerts_are_evaluated(prometheus)
        text = await gateway.text("/metrics")
    series = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(series) <= MOST_SERIES
    assert '{certificate="rtmps"}' in text


async def test_a_renewed_certificate_is_served_and_its_end_told_without_a_restart(tmp_path: Path) -> None:
    async with running_gateway(*self_signed(tmp_path, "http", days=3)) as gateway:
        old = await served(gateway)
        assert 2.9 < await expiry_days(gateway) <= 3
        self_signed(tmp_path, "http", days=90)
        assert await served(gateway) != old
        assert 89.9 < await expiry_days(gateway) <= 90


async def served(gateway: GatewayProcess) -> str:
    return await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", gateway.ports["http"]), timeout=10)


async def expiry_days(gateway: GatewayProcess) -> float:
    address = gateway.url("/metrics").replace("http:", "https:")
    lines = (await fresh_metrics(address, verify=False)).splitlines()
    (line,) = (line for line in lines if line.startswith("ingress_certificate_expiry_seconds{"))
    return float(line.split()[1]) / 86400


async def publish_and_watch(gateway: GatewayProcess, stack: AsyncExitStack) -> None:
    """One stream by each protocol, the one over RTMPS to be transcoded, each with a viewer."""
    aac = ("-c:a", "aac")
    rtmp, rtmps, srt, whip = CALLS
    secure = f"rtmps://127.0.0.1:{gateway.ports['rtmps']}/live/{gateway.key(rtmps, 'rtmps')}"
    await stack.enter_async_context(ffmpeg(*programme(320, 240), *X264_LIVE, *aac, "-f", "flv", gateway.rtmp(rtmp, "rtmp")))
    await stack.enter_async_context(ffmpeg(*programme(320, 240), *X264_REORDERED, *aac, "-f", "flv", secure))
    address = f"srt://127.0.0.1:{gateway.ports['srt']}?streamid={gateway.key(srt, 'srt')}"
    await stack.enter_async_context(ffmpeg(*programme(320, 240), *X264_LIVE, *aac, "-f", "mpegts", address))
    await stack.enter_async_context(publishing("whip", Pasted.of_gateway(gateway, whip, "whip")))
    for call in CALLS:
        await gateway.stream(call.partition(":")[2], tracks=2)
        viewer = await stack.enter_async_context(watching(gateway.url(f"/whep/{call}")))
        await viewer.until(frames=10)


async def be_refused(gateway: GatewayProcess) -> None:
    nowhere = gateway.rtmp().rpartition("/")[0] + "/a-key"
    async with ffmpeg(*programme(320, 240), *X264_LIVE, "-c:a", "aac", "-f", "flv", nowhere) as refused:
        async with asyncio.timeout(SETTLED_S):
            await refused.wait()
    assert await gateway.metric('ingress_refused_total{protocol="rtmp",reason="unauthorized"}') == 1


async def all_answer(prometheus: Prometheus, queries: set[str]) -> None:
    """Each gives at least one number, once there have been scrapes enough."""
    silent = set(queries)

    async def answered() -> bool:
        for query in sorted(silent):
            if any(map(is_number, await prometheus.ask(query))):
                silent.remove(query)
        return not silent

    try:
        await eventually(answered, within_s=SETTLED_S, every_s=0.5)
    except TimeoutError:
        pytest.fail("no data:\n" + "\n".join(sorted(silent)))


def is_number(series: dict[str, Any]) -> bool:
    return not math.isnan(float(series["value"][1]))


async def all_alerts_are_evaluated(prometheus: Prometheus) -> None:
    """None is in error; those that a healthy gateway must not raise are not raised."""
    rules = await prometheus.rules()
    assert {rule["name"] for rule in rules} == {rule["alert"] for rule in alert_rules()}
    for rule in rules:
        assert rule["health"] == "ok", rule
    firing = {rule["name"] for rule in rules if rule["state"] == "firing"}
    assert firing <= {"IngressCapacityLow", "IngressOverloaded"}, firing  # which are this machine's business
