"""Draws a dashboard from its JSON and what Prometheus answered, for docs/operators.md: a page for a browser, about as Grafana shows it."""

import html
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Series = tuple[str, list[tuple[float, float]]]
"""Legend, and (time, value) in the order of time."""

COLORS = (
    "#73bf69",
    "#f2cc0c",
    "#8ab8ff",
    "#ff780a",
    "#f2495c",
    "#5794f2",
    "#b877d9",
    "#fade2a",
    "#96d98d",
    "#ffb357",
    "#c4162a",
    "#8f3bb8",
)
WIDTH = 1680  # px of the page
LEFT, BOTTOM, UNDER = 78, 212, 232  # of a chart: where its axes and its lower edge are; it is 75 wide for each column
_STEPS = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))
_DURATIONS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs"))

STYLE = """
body { margin: 0; background: #111217; color: #ccccdc; font: 12px 'DejaVu Sans', sans-serif }
h1 { font-size: 18px; margin: 14px 12px 2px; font-weight: 500 } p { margin: 0 12px 8px; color: #9a9aaa }
main { display: grid; grid-template-columns: repeat(24, 1fr); grid-auto-rows: 34px; gap: 6px; padding: 0 8px 12px }
h2 { grid-column: 1 / -1; font-size: 14px; font-weight: 500; margin: 8px 4px 0; align-self: end }
section { background: #181b1f; border: 1px solid #25282d; padding: 6px 8px; overflow: hidden; display: flex; flex-direction: column }
h3 { font-size: 12px; font-weight: 500; margin: 0 0 4px } .stat { font-size: 34px; margin: auto; color: #73bf69 }
svg { flex: 1; min-height: 0; width: 100% } text { fill: #9a9aaa; font-size: 11px }
ul { margin: 2px 0 0; padding: 0; list-style: none; columns: 3; column-gap: 14px; font-size: 11px; line-height: 1.35 }
li { display: flex; gap: 5px; break-inside: avoid } li span { flex: 1; overflow: hidden; white-space: nowrap; text-overflow: ellipsis }
i { width: 10px; height: 3px; margin-top: 6px; flex: none } .bar { display: flex; align-items: center; gap: 6px; margin: 3px 0 }
.bar b { font-weight: 400; width: 45%; text-align: right; overflow: hidden; white-space: nowrap; text-overflow: ellipsis }
.bar div { height: 13px; background: #73bf69; min-width: 2px }
"""


def page(dashboard: Mapping[str, Any], answers: Mapping[int, Sequence[Series]]) -> str:
    """The whole dashboard as HTML; `answers` by the panels' ids."""
    parts = [
        f"<h2>{html.escape(panel['title'])}</h2>" if panel["type"] == "row" else _panel(panel, answers[panel["id"]])
        for panel in dashboard["panels"]
    ]
    return (
        f"<!doctype html><meta charset=utf-8><style>{STYLE}</style><h1>{html.escape(dashboard['title'])}</h1>"
        f"<p>{html.escape(dashboard['description'])}</p><main>{''.join(parts)}</main>"
    )


def legend(form: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), form)


def human(value: float, unit: str) -> str:
    """With three digits, in the unit that Grafana calls so."""
    if math.isnan(value):
        return "no data"
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        size, name = next((step for step in _DURATIONS if abs(value) >= step[0]), (1.0, "s"))
        return f"{value / size:.3g} {name}"
    tail = {"bps": "bit/s", "pps": "p/s", "ops": "/s", "bytes": "B"}.get(unit, "")
    size, name = next((step for step in _STEPS if abs(value) >= step[0]), (1.0, ""))
    return f"{value / size:.3g} {name}{tail}".strip()


def _panel(panel: Mapping[str, Any], series: Sequence[Series]) -> str:
    place, unit = panel["gridPos"], panel["fieldConfig"]["defaults"]["unit"]
    draw: dict[str, Callable[[Mapping[str, Any], Sequence[Series], str], str]] = {
        "stat": _stat,
        "bargauge": _bars,
        "timeseries": _lines,
    }
    body = draw[panel["type"]](panel, series, unit)
    style = f"grid-column: {place['x'] + 1} / span {place['w']}; grid-row: span {place['h']}"
    return f'<section style="{style}"><h3>{html.escape(panel["title"])}</h3>{body}</section>'


def _last(points: Sequence[tuple[float, float]]) -> float:
    return next((value for _, value in reversed(points) if not math.isnan(value)), math.nan)


def _stat(panel: Mapping[str, Any], series: Sequence[Series], unit: str) -> str:
    value = _last(series[0][1]) if series else math.nan
    color = "#73bf69"
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1:]:
        color = {"yellow": "#f2cc0c", "red": "#f2495c"}[step["color"]] if value >= step["value"] else color
    return f'<div class=stat style="color: {color}">{human(value, unit)}</div>'


def _bars(panel: Mapping[str, Any], series: Sequence[Series], unit: str) -> str:
    values = [(name, _last(points)) for name, points in series]
    most = max((value for _, value in values), default=1) or 1
    return "".join(
        f'<div class=bar><b>{html.escape(name)}</b><div style="width: {40 * value / most:.1f}%"></div>{human(value, unit)}</div>'
        for name, value in values[:12]
    )


def _lines(panel: Mapping[str, Any], series: Sequence[Series], unit: str) -> str:
    times = sorted({time for _, points in series for time, _ in points})
    if len(times) < 2:
        return "<div class=stat>no data</div>"
    stacked = panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal"
    curves = list(_stacked(series, times) if stacked else (_known(points) for _, points in series))
    top = max((value for points in curves for _, value in points), default=0) * 1.08 or 1.0
    width = panel["gridPos"]["w"] * 75
    x, y = _scale(times[0], times[-1], LEFT, width - 4), _scale(0, top, BOTTOM, 6)
    parts = []
    for part in (0.0, 0.5, 1.0):
        height, ago = y(top * part), (1 - part) * (times[-1] - times[0])
        parts.append(f'<path d="M{LEFT} {height:.1f}H{width - 4}" stroke="#2c3036"/>')
        parts.append(f"<text x={LEFT - 6} y={height + 4:.1f} text-anchor=end>{human(top * part, unit)}</text>")
        anchor = ("start", "middle", "end")[int(part * 2)]
        when = f"-{ago / 60:.1f} min" if ago else "now"
        parts.append(f"<text x={LEFT + part * (width - 4 - LEFT):.0f} y={UNDER - 4} text-anchor={anchor}>{when}</text>")
    for number, points in reversed(list(enumerate(curves))):
        if points:
            color, path = COLORS[number % len(COLORS)], "L".join(f"{x(time):.1f} {y(value):.1f}" for time, value in points)
            area = f"M{x(points[0][0]):.1f} {BOTTOM}L{path}L{x(points[-1][0]):.1f} {BOTTOM}Z"
            parts.append(f'<path d="{area}" fill="{color}" fill-opacity="{0.3 if stacked else 0.05}"/>')
            parts.append(f'<path d="M{path}" fill=none stroke="{color}" stroke-width=1.5 />')
    items = "".join(
        f'<li><i style="background: {COLORS[n % len(COLORS)]}"></i><span>{html.escape(name)}</span>{human(_last(points), unit)}</li>'
        for n, (name, points) in enumerate(series[:15])
    )
    return f'<svg viewBox="0 0 {width} {UNDER}">{"".join(parts)}</svg><ul>{items}</ul>'


def _known(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(time, value) for time, value in points if not math.isnan(value)]


def _stacked(series: Sequence[Series], times: Sequence[float]) -> Iterator[list[tuple[float, float]]]:
    """Each series on top of those before it."""
    below = dict.fromkeys(times, 0.0)
    for _, points in series:
        below |= {time: below[time] + value for time, value in _known(points)}
        yield [(time, below[time]) for time, _ in _known(points)]


def _scale(low: float, high: float, first: float, last: float) -> Callable[[float], float]:
    return lambda value: first + (value - low) / ((high - low) or 1) * (last - first)
