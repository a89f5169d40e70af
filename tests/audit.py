"""What is locked, looked at: everything has a version and a hash, and none of it a known vulnerability.

    python -m tests.audit [--strict]

The first needs nothing. The second asks OSV (https://google.github.io/osv.dev/api/) and so the network: what it knows, or that it cannot be
asked, is said, and fails only with --strict: it may change while nothing here does. Exit codes: 0 nothing found, 1 something is.
"""

import argparse
import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PYTHON = ("deploy/requirements.lock", "deploy/requirements-trace.lock", "tests/requirements.lock")
NPM = ("deploy/web/package-lock.json",)
OSV = "https://api.osv.dev/v1/querybatch"
TIMEOUT_S = 20

_PINNED = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}\b")


class Locked(NamedTuple):
    """One package of a lock; `hashed`: what is fetched must have a hash that stands there."""

    ecosystem: str  # as OSV names it
    name: str
    version: str
    hashed: bool
    lock: str


class NotAsked(Exception):
    """OSV does not answer."""


def locked(root: Path = ROOT) -> Iterator[Locked]:
    """Everything in the locks. Raises `ValueError` for a line of a lock that pins nothing."""
    for lock in PYTHON:
        text = re.sub(r"\\\n\s*", " ", (root / lock).read_text(encoding="utf-8"))
        for line in (line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")):
            if (found := _PINNED.match(line)) is None:
                raise ValueError(f"{lock} pins no version: {line[:80]}")
            yield Locked("PyPI", found[1], found[2], bool(_HASH.search(line)), lock)
    for lock in NPM:
        for place, package in json.loads((root / lock).read_text(encoding="utf-8"))["packages"].items():
            if place:  # the empty one is the lock's own
                name = place.rpartition("node_modules/")[2]
                yield Locked("npm", name, package["version"], package.get("integrity", "").startswith("sha512-"), lock)


def vulnerabilities(packages: Sequence[Locked], osv: str = OSV) -> list[str]:
    """In words, with the number to look up. Raises `NotAsked`."""
    queries = [{"package": {"ecosystem": each.ecosystem, "name": each.name}, "version": each.version} for each in packages]
    body = json.dumps({"queries": queries}).encode()
    request = urllib.request.Request(osv, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            results = json.load(response)["results"]
    except (OSError, ValueError, KeyError) as error:
        raise NotAsked(str(error) or type(error).__name__) from None
    if len(results) != len(packages):
        raise NotAsked(f"{len(results)} answers to {len(packages)} questions")
    return [
        f"{package.name} {package.version} ({package.lock}): {known['id']}"
        for package, result in zip(packages, results, strict=True)
        for known in result.get("vulns", ())
    ]


def main(strict: bool, root: Path = ROOT, osv: str = OSV) -> int:
    packages = sorted(set(locked(root)))
    found = [f"{each.name} ({each.lock}) has no hash" for each in packages if not each.hashed]
    print(f"{len(packages)} packages are locked, {len(packages) - len(found)} of them with a hash.")
    try:
        known = vulnerabilities(packages, osv)
    except NotAsked as why:
        print(f"NOT AUDITED for known vulnerabilities: {osv} cannot be asked ({why}).", file=sys.stderr)
        return int(strict or bool(found))
    print(f"{len(known)} known vulnerabilities.")
    print(*found, *known, sep="\n", file=sys.stderr, end="")
    return int(bool(found) or (strict and bool(known)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Looks at what is locked.")
    parser.add_argument("--strict", action="store_true", help="fail for what OSV knows, and where it cannot be asked")
    sys.exit(main(parser.parse_args().strict))
