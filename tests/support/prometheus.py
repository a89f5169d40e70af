"""Debian's Prometheus as a process beside a gateway, and the queries of the dashboards and alerts that it is asked."""

import asyncio
import json
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import promql_parser
import yaml

from tests.support.gateway_process import ROOT, GatewayProcess

_START_S = 30
_VARIABLES = {"$__rate_interval": "20s", "$instance": ".*"}


def panel_queries(dashboard: dict[str, Any]) -> Iterator[str]:
    """The PromQL of each panel, Grafana's variables still in it."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


def filled_in(query: str) -> str:
    """A query as Grafana sends it, for all nodes."""
    for name, value in _VARIABLES.items():
        query = query.replace(name, value)
    return query


def alert_rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def figure(alert: str) -> str:
    """What an alert compares with its limit: it has a value while the alert is quiet."""
    comparison = promql_parser.parse(alert)
    assert isinstance(comparison, promql_parser.BinaryExpr)
    return comparison.lhs.prettify()


@dataclass(frozen=True, slots=True)
class Prometheus:
    url: str

    async def ask(self, query: str, **parameters: Any) -> list[dict[str, Any]]:
        """The result of an instant query, or with `start`, `end` and `step` (s) of one over a range; an error fails the test."""
        path = "query_range" if "step" in parameters else "query"
        async with aiohttp.ClientSession() as http:
            async with http.post(f"{self.url}/api/v1/{path}", data={"query": query} | parameters) as response:
                answer = await response.json()
        assert answer["status"] == "success", (query, answer)
        return list(answer["data"]["result"])

    async def rules(self) -> list[dict[str, Any]]:
        """The alert rules as Prometheus has loaded and evaluated them."""
        async with aiohttp.ClientSession() as http, http.get(f"{self.url}/api/v1/rules") as response:
            return [rule for group in (await response.json())["data"]["groups"] for rule in group["rules"]]


@asynccontextmanager
async def running_prometheus(gateway: GatewayProcess) -> AsyncIterator[Prometheus]:
    """It scrapes `gateway` once a second and evaluates the alerts as they are deployed."""
    with tempfile.TemporaryDirectory() as folder:
        configuration = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(ROOT / "deploy" / "prometheus" / "alerts.yml")],
            "scrape_configs": [
                {"job_name": "ingress", "static_configs": [{"targets": [f"127.0.0.1:{gateway.ports['http']}"]}]},
            ],
        }
        file = Path(folder) / "prometheus.yml"
        file.write_text(json.dumps(configuration), encoding="utf-8")  # JSON is YAML
        process = await asyncio.create_subprocess_exec(
            shutil.which("prometheus") or "prometheus",
            f"--config.file={file}",
            f"--storage.tsdb.path={folder}/data",
            "--web.listen-address=127.0.0.1:0",
            "--log.format=json",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )
        assert process.stderr is not None
        ready = asyncio.get_running_loop().create_future()
        complaints = asyncio.create_task(_listened_to(process.stderr, ready))
        try:
            async with asyncio.timeout(_START_S):
                address = await ready
            assert address, "Prometheus has ended at its start"
            yield Prometheus(f"http://{address}")
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
            print("".join(await complaints))  # shown where the test fails


async def _listened_to(log: asyncio.StreamReader, ready: asyncio.Future[str]) -> list[str]:
    """The lines that are more than information. `ready` becomes where it listens once it is ready, "" where it ends before."""
    complaints, address = list[str](), ""
    async for line in log:
        try:
            entry = json.loads(line)
        except ValueError:
            entry = {}
        message = entry.get("msg", "")
        if entry.get("level", "").lower() != "info":
            complaints.append(line.decode(errors="replace"))
        elif message == "Listening on":
            address = entry["address"]
        elif message.startswith("Server is ready") and not ready.done():
            ready.set_result(address)
    if not ready.done():
        ready.set_result("")
    return complaints


def self_signed(folder: Path, section: str = "rtmp", days: int = 30) -> tuple[str, str]:
    """Settings that give a listener a certificate for so many days, made anew in `folder`."""
    chain, key = folder / "chain.pem", folder / "key.pem"
    made = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", str(days))
    subprocess.run(
        [*made, "-keyout", key, "-out", chain, "-subj", "/CN=localhost"], check=True, capture_output=True, timeout=30
    )
    return f"{section}.certificate={chain}", f"{section}.key={key}"
