"""The layers of the design, kept: who may import what, which files do no I/O, where an unknown error may be caught, and where state lives.

The rules are tables of paths relative to the repository. A file that does not exist yet is no error; a new file is under the rules of its
folder unless a table names it.
"""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("protocols", "transcode", "gateway")

# What a package may import of the others, and of what is not the standard library (None: anything)
PROTOCOLS_FOR_TRANSCODE = ("protocols.media", "protocols.bitstream", "protocols.errors", "protocols.wire")
FORBIDDEN_IMPORTS = {
    "protocols": ("transcode", "gateway", "av", "prometheus_client", "sqlalchemy", "pydantic_settings", "pydantic"),
    "transcode": (
        "gateway",
        "aiohttp",
        "aiortc",
        "aioice",
        "pylibsrtp",
        "prometheus_client",
        "sqlalchemy",
        "pydantic_settings",
    ),
    "gateway": ("av", "aiortc", "aioice", "pylibsrtp"),
}

# The files of protocols/ that meet sockets, clocks or the event loop. All others there are sans-IO: time is an argument.
IO_FILES = frozenset({
    "protocols/rtmp/backlog.py",  # the queue between a connection and its session
    "protocols/rtmp/connection.py",
    "protocols/rtmp/server.py",
    "protocols/rtmp/tls.py",
    "protocols/srt/address.py",  # the numbers of address families
    "protocols/srt/caller.py",
    "protocols/srt/libsrt.py",
    "protocols/srt/receiver.py",
    "protocols/srt/server.py",
    "protocols/webrtc/dtls.py",
    "protocols/webrtc/egress.py",
    "protocols/webrtc/fanout.py",  # timers of the shared pacing
    "protocols/webrtc/http.py",
    "protocols/webrtc/mux.py",
    "protocols/webrtc/peer.py",
    "protocols/whep/resource.py",
    "protocols/whep/viewer.py",
    "protocols/whip/receiver.py",
    "protocols/whip/resource.py",
    "protocols/whip/sender.py",
    "protocols/whip/server.py",
})  # fmt: skip
SANS_IO_ELSEWHERE = frozenset({
    "transcode/plan.py",
    "gateway/access.py",
    "gateway/bearer.py",
    "gateway/capacity.py",
    "gateway/lifecycle.py",
    "gateway/pacer.py",
    "gateway/stream_keys.py",
    "gateway/throttle.py",
})  # fmt: skip
IO_MODULES = (
    "asyncio",
    "socket",
    "ssl",
    "select",
    "selectors",
    "threading",
    "multiprocessing",
    "subprocess",
    "logging",
    "time",
)

# Modules that one file each may know
ONE_FILE = {
    "uvloop": frozenset({"gateway/__main__.py"}),
    "prometheus_client": frozenset({"gateway/metrics.py"}),
    "pylibsrtp": frozenset({"protocols/webrtc/dtls.py", "protocols/webrtc/srtp.py"}),
    "aiortc.rtcdtlstransport": frozenset({"protocols/webrtc/dtls.py"}),
    "ctypes": frozenset({"protocols/srt/libsrt.py"}),
    "sqlalchemy": frozenset(path.relative_to(ROOT).as_posix() for path in (ROOT / "gateway/store").rglob("*.py")),
    "alembic": frozenset(path.relative_to(ROOT).as_posix() for path in (ROOT / "gateway/store").rglob("*.py")),
}
UPSTREAM_PRIVATE = ("aiortc", "aioice", "pylibsrtp")  # whose private names only the files of `PRIVATE_FILES` may use
PRIVATE_FILES = frozenset({"protocols/webrtc/dtls.py", "protocols/webrtc/srtp.py"})

# Only these name concrete listeners and calls; the rest of the gateway knows the contracts
CONCRETE = (
    "protocols.rtmp.server",
    "protocols.srt.server",
    "protocols.srt.caller",
    "protocols.whip.resource",
    "protocols.whep.resource",
)
CONCRETE_CALLS = ("gateway.calls.embedded", "gateway.calls.whip")
COMPOSERS = frozenset({
    "gateway/app.py",
    "gateway/srt.py",  # composes what needs libsrt
    "gateway/metrics.py",  # reads their counters
    "gateway/registry.py",  # holds the calls
})  # fmt: skip

CATCH_ALL = frozenset({"gateway/session.py", "transcode/worker.py", "gateway/api/middleware.py", "gateway/__main__.py"})

EMPTY_CONTAINERS = frozenset({"list", "dict", "set", "bytearray", "deque", "defaultdict", "OrderedDict", "Counter"})


def files(*packages: str) -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for package in packages for path in (ROOT / package).rglob("*.py"))


@cache
def tree(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"), file)


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """Every node but what stands under `if TYPE_CHECKING`."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        yield from walk(child)


@cache
def imports(file: str) -> frozenset[str]:
    """Full names of what a file imports: `from a.b import c` gives `a.b` and `a.b.c`."""
    found: set[str] = set()
    for node in walk(tree(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute"
            module = node.module or ""
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def of(names: Iterable[str], modules: tuple[str, ...]) -> set[str]:
    """The imported names that are, or are inside, one of the modules."""
    return {name for name in names if any(name == module or name.startswith(f"{module}.") for module in modules)}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_layer_imports_nothing_above_it(package: str) -> None:
    found = {file: of(imports(file), FORBIDDEN_IMPORTS[package]) for file in files(package)}
    allowed = {file: {name for name in names if not _is_the_one_file(file, name)} for file, names in found.items()}
    assert {file: names for file, names in allowed.items() if names} == {}


def _is_the_one_file(file: str, name: str) -> bool:
    return any(file in knowing and of({name}, (module,)) for module, knowing in ONE_FILE.items())


def test_transcode_knows_of_protocols_only_the_media() -> None:
    found = {
        file: of(imports(file), ("protocols",)) - of(imports(file), PROTOCOLS_FOR_TRANSCODE) for file in files("transcode")
    }
    assert {file: names for file, names in found.items() if names} == {}


def test_only_the_composers_name_concrete_listeners_and_calls() -> None:
    found = {
        file: of(imports(file), CONCRETE + CONCRETE_CALLS)
        for file in files("gateway")
        if file not in COMPOSERS and not file.startswith("gateway/calls/")
    }
    assert {file: names for file, names in found.items() if names} == {}


def test_sans_io_files_do_no_io_and_read_no_clock() -> None:
    sans_io = [file for file in files("protocols") if file not in IO_FILES] + [
        f for f in SANS_IO_ELSEWHERE if (ROOT / f).exists()
    ]
    assert len(sans_io) > 10
    found = {file: of(imports(file), IO_MODULES) for file in sans_io}
    assert {file: names for file, names in found.items() if names} == {}


@pytest.mark.parametrize("module", ONE_FILE)
def test_modules_that_one_file_may_know(module: str) -> None:
    knowing = {file for file in files(*PACKAGES) if of(imports(file), (module,))}
    assert knowing <= ONE_FILE[module]


def test_private_names_of_upstream_stay_in_their_files() -> None:
    def private(name: str) -> bool:
        return any(part.startswith("_") for part in name.split("."))

    found = {file: {n for n in of(imports(file), UPSTREAM_PRIVATE) if private(n)} for file in files(*PACKAGES)}
    assert {file for file, names in found.items() if names} <= PRIVATE_FILES


def test_unknown_errors_are_caught_at_four_boundaries_only() -> None:
    found = {
        f"{file}:{node.lineno}"
        for file in files(*PACKAGES)
        for node in ast.walk(tree(file))
        if isinstance(node, ast.ExceptHandler) and _catches_all(node) and file not in CATCH_ALL
    }
    assert found == set()


def _catches_all(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    names = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(isinstance(name, ast.Name) and name.id in ("Exception", "BaseException") for name in names)


def test_modules_hold_no_state() -> None:
    """A container at module level is a table: named in capitals, filled where it is made, and never rebound."""
    found: list[str] = []
    for file in files(*PACKAGES):
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.Global):
                found.append(f"{file}:{node.lineno}: global {', '.join(node.names)}")
        for node in tree(file).body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and not _is_table(node):
                found.append(f"{file}:{node.lineno}: {ast.unparse(node)[:60]}")
    assert found == []


def _is_table(node: ast.Assign | ast.AnnAssign) -> bool:
    value = node.value
    name = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
    match value:
        case ast.List(elts=items) | ast.Set(elts=items) | ast.Dict(values=items):
            return bool(items) and (name.isupper() or name == "__all__")
        case ast.ListComp() | ast.SetComp() | ast.DictComp():
            return name.isupper()
        case ast.Call(func=ast.Name(id=kind) | ast.Attribute(attr=kind), args=args, keywords=keywords) if (
            kind in EMPTY_CONTAINERS
        ):
            return name.isupper() and bool(args or keywords)
        case _:
            return True
