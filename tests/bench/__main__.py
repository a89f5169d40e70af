"""Benchmarks in turn, each in a process of its own: `python -m tests.bench [name ...]`, all of them when none is named."""

import subprocess
import sys
from collections.abc import Sequence

from tests.support.gateway_process import ROOT

BENCHES = (
    "fanout",
    "fanout_processes",
    "rtmp_parse",
    "srt_receive",
    "whip_receive",
    "whip_forward",
    "whip_loss",
    "whip_glass",
    "transcode",
    "opus",
    "sandbox",
    "sessions",
    "key_frames",
    "srt_sessions",
    "hls",
    "events",
    "scrape",
)
_LIMIT_S = 900


def main(names: Sequence[str]) -> None:
    if unknown := set(names) - set(BENCHES):
        sys.exit(f"unknown: {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    for name in names or BENCHES:
        print(f"== {name}", flush=True)
        try:
            subprocess.run([sys.executable, "-m", f"tests.bench.{name}"], cwd=ROOT, timeout=_LIMIT_S, check=True)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            print(f"{name}: {error}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
