#!/usr/bin/env python3
"""The Grafana dashboards as code: `build.py` writes `dashboards/*.json` from the tables of `panels.py`, their one source.

Tests hold the JSON equal to the tables, parse each query, and ask each of a Prometheus that scrapes a gateway under load.
"""

import json
import re
from pathlib import Path
from typing import Any

from panels import DASHBOARDS, Dashboard, Panel

FOLDER = Path(__file__).parent / "dashboards"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS, HEIGHT, STAT_HEIGHT = 24, 8, 4
SELECTOR = re.compile(r"\b((?:ingress|process)_\w+)(\{)?")


def selecting(query: str) -> str:
    """The query for the nodes that are chosen at the top of the dashboard."""
    return SELECTOR.sub(lambda m: m[1] + '{instance=~"$instance"' + (", " if m[2] else "}"), query)


def thresholds(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    steps += [{"color": color, "value": at} for color, at in (("yellow", panel.warn), ("red", panel.bad)) if at is not None]
    return {"mode": "absolute", "steps": steps}


def options(panel: Panel) -> dict[str, Any]:
    reduced = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    match panel.kind:
        case "stat":
            return {"colorMode": "value", "graphMode": "area", "reduceOptions": reduced, "textMode": "auto"}
        case "bargauge":
            return {"displayMode": "basic", "orientation": "horizontal", "reduceOptions": reduced, "showUnfilled": True}
        case _:
            legend = {"calcs": ["lastNotNull", "max"], "displayMode": "table", "placement": "bottom", "showLegend": True}
            return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}


def custom(panel: Panel) -> dict[str, Any]:
    """How lines are drawn, where there are any."""
    if panel.kind != "timeseries":
        return {}
    fill = 30 if panel.stacked else 5
    stacking = {"group": "A", "mode": "normal" if panel.stacked else "none"}
    limit = {"mode": "line" if panel.warn is not None else "off"}
    return {
        "drawStyle": "line",
        "fillOpacity": fill,
        "lineWidth": 1,
        "showPoints": "never",
        "stacking": stacking,
        "thresholdsStyle": limit,
    }


def panel_json(panel: Panel, identity: int, x: int, y: int) -> dict[str, Any]:
    instant = panel.kind == "bargauge"
    targets = [
        {
            "datasource": DATASOURCE,
            "expr": selecting(query),
            "instant": instant,
            "legendFormat": legend or "__auto",
            "range": not instant,
            "refId": chr(ord("A") + number),
        }
        for number, (query, legend) in enumerate(panel.queries)
    ]
    defaults = {
        "color": {"mode": "palette-classic"},
        "custom": custom(panel),
        "min": 0,
        "thresholds": thresholds(panel),
        "unit": panel.unit,
    }
    if panel.kind == "stat":
        defaults["color"] = {"mode": "thresholds"}
        del defaults["min"]
    return {
        "datasource": DATASOURCE,
        "description": panel.explains,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "gridPos": {"h": STAT_HEIGHT if panel.kind == "stat" else HEIGHT, "w": panel.width, "x": x, "y": y},
        "id": identity,
        "options": options(panel),
        "targets": targets,
        "title": panel.title,
        "type": panel.kind,
    }


def panels_json(dashboard: Dashboard) -> list[dict[str, Any]]:
    """All panels, from left to right and from top to bottom, under the titles of their rows."""
    made: list[dict[str, Any]] = []
    y = 0
    for title, panels in dashboard.rows:
        place = {"h": 1, "w": COLUMNS, "x": 0, "y": y}
        made.append({"collapsed": False, "gridPos": place, "id": len(made) + 1, "panels": [], "title": title, "type": "row"})
        y, x, lowest = y + 1, 0, y + 1
        for panel in panels:
            if x + panel.width > COLUMNS:
                x, y = 0, lowest
            made.append(panel_json(panel, len(made) + 1, x, y))
            x, lowest = x + panel.width, max(lowest, y + made[-1]["gridPos"]["h"])
        y = lowest
    return made


def dashboard_json(dashboard: Dashboard) -> dict[str, Any]:
    """The whole of it, as Grafana stores it."""
    instance = {
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "datasource": DATASOURCE,
        "includeAll": True,
        "label": "Node",
        "multi": True,
        "name": "instance",
        "query": {"query": "label_values(ingress_calls, instance)", "refId": "instance"},
        "refresh": 2,
        "type": "query",
    }
    source = {"label": "Prometheus", "name": "datasource", "query": "prometheus", "type": "datasource"}
    link = {
        "asDropdown": False, "icon": "dashboard", "includeVars": True, "keepTime": True, "tags": ["ingress"], "targetBlank": False,
        "title": "", "tooltip": "", "type": "dashboards", "url": "",
    }  # fmt: skip
    return {
        "description": dashboard.explains,
        "editable": True,
        "fiscalYearStartMonth": 0,
        "graphTooltip": 1,
        "links": [link],
        "panels": panels_json(dashboard),
        "refresh": "10s",
        "schemaVersion": 39,
        "tags": ["ingress"],
        "templating": {"list": [source, instance]},
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "title": dashboard.title,
        "uid": dashboard.uid,
    }


def texts() -> dict[str, str]:
    """File name to contents."""
    return {
        f"{dashboard.uid}.json": json.dumps(dashboard_json(dashboard), indent=2, ensure_ascii=False) + "\n"
        for dashboard in DASHBOARDS
    }


if __name__ == "__main__":
    for name, text in texts().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
