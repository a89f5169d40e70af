"""Dashboards and alerts against what they speak of: queries parse, ask the nodes that are chosen and name series that exist, each alert is
tested and has its line in `docs/operators.md`. The JSON is the dashboards' only source."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from tests.support.gateway_process import ROOT
from tests.support.prometheus import alert_rules, filled_in, panel_queries

GRAFANA, PROMETHEUS = ROOT / "deploy" / "grafana", ROOT / "deploy" / "prometheus"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
UNITS = {"short", "s", "bytes", "bps", "pps", "ops", "percentunit"}  # ids of Grafana's units
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}  # the one that is chosen at the top of the dashboard
LONGEST_LINE = 240  # a line is a query, or how a panel looks: the files are edited by hand


def loaded(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_a_dashboard_is_sound(file: Path) -> None:
    dashboard = loaded(file)
    panels = dashboard["panels"]
    assert dashboard["uid"] == file.stem
    assert len({panel["id"] for panel in panels}) == len(panels)
    titles = [panel["title"] for panel in panels if panel["type"] != "row"]
    assert len(set(titles)) == len(titles)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["datasource"] == DATASOURCE
            assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
            references = [target["refId"] for target in panel["targets"]]
            assert references
            assert len(set(references)) == len(references)
    lines = file.read_text(encoding="utf-8").splitlines()
    assert max(map(len, lines)) <= LONGEST_LINE
    assert len(lines) < 20 * len(panels), "as Grafana exports it: keep a query on one line, and so each part of a panel"


def test_every_query_and_alert_parses() -> None:
    queries = [query for file in DASHBOARDS for query in panel_queries(loaded(file))]
    assert len(queries) > 60
    for query in queries:
        assert 'instance=~"$instance"' in query
        promql_parser.parse(filled_in(query))
    for rule in alert_rules():
        assert isinstance(promql_parser.parse(rule["expr"]), promql_parser.BinaryExpr), rule["alert"]


def test_dashboards_and_alerts_ask_only_for_series_that_there_are() -> None:
    """`gateway/api/metrics.py` and the counters of the protocols name them all: here only that no name is misspelt."""
    code = "\n".join(
        path.read_text(encoding="utf-8") for folder in ("gateway", "protocols") for path in (ROOT / folder).rglob("*.py")
    )
    for name in sorted(set(asked())):
        stem = re.sub(r"_(total|bucket)$", "", name)
        tails = {stem, *(stem.partition(f"{group}_")[2] for group in ("srt", "whip", "viewer", "webrtc", "capacity"))}
        assert any(f'"{tail}"' in code or f"ingress_{tail}" in code for tail in tails if tail), name


def asked() -> Iterator[str]:
    for file in DASHBOARDS:
        for query in panel_queries(loaded(file)):
            yield from re.findall(r"\bingress_(\w+)", query)
    for rule in alert_rules():
        yield from re.findall(r"\bingress_(\w+)", rule["expr"])


def test_each_alert_is_tested_both_ways_and_is_explained_to_operators() -> None:
    names = [rule["alert"] for rule in alert_rules()]
    explained = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    tests = yaml.safe_load((PROMETHEUS / "alerts.test.yml").read_text(encoding="utf-8"))["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    assert len(set(names)) == len(names)
    for rule in alert_rules():
        name = rule["alert"]
        fires = [len(case["exp_alerts"]) for case in cases if case["alertname"] == name]
        assert max(fires) > min(fires), name
        assert f"`{name}`" in explained
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert "$labels.instance" in rule["annotations"]["summary"]


@pytest.mark.parametrize(
    "check",
    [("check", "rules", "alerts.yml"), ("test", "rules", "alerts.test.yml"), ("check", "config", "prometheus.yml")],
    ids=lambda check: " ".join(check),
)
def test_promtool_agrees(check: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *check], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_finds_the_dashboards_where_they_are_mounted() -> None:
    provider = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "ingress.yaml").read_text(encoding="utf-8"))
    source = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yaml").read_text(encoding="utf-8"))
    scraped = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    assert provider["providers"][0]["options"]["path"] == "/var/lib/grafana/dashboards"
    assert source["datasources"][0]["jsonData"]["timeInterval"] == scraped["global"]["scrape_interval"]
