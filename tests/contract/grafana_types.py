"""The dashboards against Grafana's own types: `python -m tests.contract.grafana_types`. Takes npm and the network, so no test runs it.

It asks TypeScript whether each JSON is a `Dashboard` of @grafana/schema, and each panel's options and drawing style those of its type.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.support.gateway_process import ROOT

PACKAGES = ("@grafana/schema@13.2.3", "typescript@5.9.3")
COMPOSABLE = "@grafana/schema/dist/esm/raw/composable"
CONFIGS = {
    "timeseries": "timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen",
    "stat": "stat/panelcfg/x/StatPanelCfg_types.gen",
    "bargauge": "bargauge/panelcfg/x/BarGaugePanelCfg_types.gen",
}
PLAIN = """
type Plain<T> = T extends string ? `${T}` : T extends (infer U)[] ? Plain<U>[] : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
"""
"""A type whose enumerations are the words that JSON has for them."""
TSC = ("--noEmit", "--skipLibCheck", "--strict", "--module", "esnext", "--moduleResolution", "bundler", "--target", "es2022")


def module(dashboard: dict[str, Any]) -> str:
    """A TypeScript module that compiles if the dashboard is one."""
    lines = ['import type { Dashboard } from "@grafana/schema";']
    lines += [f'import type * as {name} from "{COMPOSABLE}/{path}";' for name, path in CONFIGS.items()]
    lines.append(PLAIN)
    lines.append(f"export const dashboard: Plain<Dashboard> = {json.dumps(dashboard)};")
    for panel in dashboard["panels"]:
        if panel["type"] in CONFIGS:
            name = f"panel{panel['id']}"
            lines.append(f"export const {name}: Plain<Partial<{panel['type']}.Options>> = {json.dumps(panel['options'])};")
        if panel["type"] == "timeseries":
            custom = json.dumps(panel["fieldConfig"]["defaults"]["custom"])
            lines.append(f"export const {name}Style: Plain<Partial<timeseries.FieldConfig>> = {custom};")
    return "\n".join(lines) + "\n"


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
        for file in files:
            (folder / f"{file.stem}.ts").write_text(module(json.loads(file.read_text(encoding="utf-8"))), encoding="utf-8")
        (folder / "package.json").write_text('{"private": true}', encoding="utf-8")
        install = ("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent", *PACKAGES)
        subprocess.run(install, cwd=folder, check=True, timeout=300)
        checked = subprocess.run(
            ("node_modules/.bin/tsc", *TSC, *(f"{file.stem}.ts" for file in files)), cwd=folder, timeout=300, check=False
        )
        print(f"{len(files)} dashboards: " + ("as @grafana/schema says" if checked.returncode == 0 else "see above"))
        return checked.returncode


if __name__ == "__main__":
    sys.exit(main())
