"""The architecture, kept: who may import what, which files do no I/O, where an unknown error may be caught, where state lives, how large
things grow.

Each rule is a function from the sources to what breaks it, in words. It runs over the product, which must give nothing, and over the
product with one planted case, which must be found: a rule that finds nothing proves nothing.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("protocols", "transcode", "gateway")
Sources = Mapping[str, ast.Module]
"""Each file, relative to the repository, as its syntax tree."""

WINGS = (
    *("model", "config", "telemetry", "store", "access", "sessions", "ingress", "outputs"),
    *("events", "enforcement", "node", "api", "wiring", "commands", "web"),
)
"""Of gateway/, lowest first: a wing imports only from those before it."""
OWN_LEVEL = frozenset({"gateway/__init__.py", "gateway/__main__.py", "gateway/app.py"})

# What a package may import of the others, and of what is not the standard library (None: anything)
PROTOCOLS_FOR_TRANSCODE = ("protocols.media", "protocols.bitstream", "protocols.errors", "protocols.wire")
FORBIDDEN_IMPORTS = {
    "protocols": (
        *("transcode", "gateway", "av", "aiortc", "aioice"),
        *("prometheus_client", "sqlalchemy", "pydantic_settings", "pydantic"),
    ),
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
    "gateway": ("aiortc", "aioice", "pylibsrtp"),
}
WORKER = "transcode/worker/"

# Sans-IO files say so in their first paragraph or stand in a package that does; these must be.
SANS_IO = (
    *("protocols/bitstream/h264.py", "protocols/rtmp/chunk.py", "protocols/rtmp/session.py", "protocols/rtmp/tracks.py"),
    *("protocols/srt/pes.py", "protocols/srt/tracks.py", "protocols/whip/tracks.py", "protocols/hls/playlist.py"),
    *("protocols/webrtc/sdp/answer.py", "protocols/webrtc/send/packetize.py", "protocols/webrtc/receive/jitter.py"),
    *("transcode/plan.py", "transcode/messages.py", "gateway/sessions/timeline.py", "gateway/sessions/pacer.py"),
    *("gateway/sessions/replanner.py", "gateway/sessions/track_selection.py", "transcode/group_cache.py"),
    *("gateway/sessions/capacity.py", "gateway/model/permissions.py", "gateway/model/lifecycle.py", "gateway/access/jwt.py"),
)
IO_MODULES = (
    *("asyncio", "socket", "ssl", "select", "selectors", "threading", "multiprocessing", "subprocess", "logging", "time"),
)

# Modules that one file each may know
ONE_FILE = {
    "uvloop": ("gateway/__main__.py",),
    "prometheus_client": ("gateway/api/metrics.py",),
    "pylibsrtp": ("protocols/webrtc/transport/dtls.py", "protocols/webrtc/transport/srtp.py"),
    "OpenSSL": ("protocols/webrtc/transport/dtls.py",),
    "ctypes": (
        "protocols/srt/libsrt.py",
        "transcode/worker/sandbox.py",
        "gateway/node/memory.py",
    ),  # each one thing of the system
    "cffi": ("protocols/srt/libsrt.py", "protocols/webrtc/native/build.py"),  # a library of the system; our own in C
    "threading": ("protocols/srt/threads.py", "gateway/telemetry/tracing.py"),  # a thread only waits, or the process ends
    "sqlalchemy": ("gateway/store/",),
    "alembic": ("gateway/store/",),
    "av": (WORKER,),
}
UPSTREAM_PRIVATE = ("aiortc", "aioice", "pylibsrtp", "OpenSSL", "cryptography")
"""Whose private names only the files of `PRIVATE_FILES` may use."""
PRIVATE_FILES = ("protocols/webrtc/transport/srtp.py",)

# Only the wiring names concrete listeners and outputs; the rest of the gateway knows the contracts
CONCRETE = ("protocols.srt.caller", "protocols.whep.resource", "gateway.outputs")  # and each `listener` of a protocol
CONCRETE_FOR = ("gateway/wiring/", "gateway/outputs/", "gateway/app.py")

CATCH_ALL = (
    *("gateway/sessions/seat.py", "transcode/worker/process.py", "gateway/api/framework/middleware.py", "gateway/__main__.py"),
)
EMPTY_CONTAINERS = frozenset({"list", "dict", "set", "bytearray", "deque", "defaultdict", "OrderedDict", "Counter"})
LONGEST_FUNCTION = 60
LONGEST_FILE = 400
MIGRATIONS = "gateway/store/migrations/versions/"  # are history: they stay as they were


@cache
def product() -> Sources:
    files = (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"), str(path)) for path in files}


def inside(file: str, places: Iterable[str]) -> bool:
    """Whether a file is one of these, or in one of these folders."""
    return any(file == place or (place.endswith("/") and file.startswith(place)) for place in places)


def of(names: Iterable[str], modules: tuple[str, ...]) -> set[str]:
    """The imported names that are, or are inside, one of the modules."""
    return {name for name in names if any(name == module or name.startswith(f"{module}.") for module in modules)}


@cache
def imports(tree: ast.Module) -> frozenset[str]:
    """Full names of what a file imports, under TYPE_CHECKING too: `from a.b import c` gives `a.b` and `a.b.c`."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def module_of(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@cache
def _names(sources: tuple[str, ...]) -> Mapping[str, str]:
    return {module_of(file): file for file in sources}


def imported_files(sources: Sources) -> Mapping[str, set[str]]:
    """Each file with those of ours that it imports; a package's own file only where a name is taken from it."""
    by_module = _names(tuple(sources))
    graph: dict[str, set[str]] = {}
    for file, tree in sources.items():
        graph[file] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                graph[file] |= {by_module[alias.name] for alias in node.names if alias.name in by_module}
            elif isinstance(node, ast.ImportFrom) and node.module is not None and node.module in by_module:
                for alias in node.names:
                    graph[file].add(by_module.get(f"{node.module}.{alias.name}", by_module[node.module]))
    return graph


def reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """What a file imports, and what that imports, and so on."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for file in graph[waiting.pop()] - seen:
            seen.add(file)
            waiting.append(file)
    return seen


def layers(sources: Sources) -> Iterator[str]:
    for file, tree in sources.items():
        package = file.partition("/")[0]
        for name in of(imports(tree), FORBIDDEN_IMPORTS[package]):
            if not any(inside(file, places) and of({name}, (module,)) for module, places in ONE_FILE.items()):
                yield f"{file} imports {name}"
        if package == "transcode":
            for name in of(imports(tree), ("protocols",)) - of(imports(tree), PROTOCOLS_FOR_TRANSCODE):
                yield f"{file} imports {name}, which is not of the media"


def wings(sources: Sources) -> Iterator[str]:
    def wing(path: list[str]) -> int | None:
        return WINGS.index(path[1]) if len(path) > 2 and path[0] == "gateway" else None

    for file, targets in imported_files(sources).items():
        above = wing(file.split("/"))
        for target in targets:
            below = wing(target.split("/"))
            if above is not None and below is not None and below > above:
                yield f"{file} imports {target}: {WINGS[below]} is above {WINGS[above]}"
            if above is not None and target in ("gateway/__main__.py", "gateway/app.py"):
                yield f"{file} imports {target}"


def circles(sources: Sources) -> Iterator[str]:
    graph = imported_files(sources)
    for file in graph:
        if file in reached(graph, file):
            yield f"{file} imports itself by way of others"


def own_level(sources: Sources) -> Iterator[str]:
    for file in sources:
        if file.startswith("gateway/") and file.count("/") == 1 and file not in OWN_LEVEL:
            yield f"{file} stands at gateway/'s own level"


def class_names(sources: Sources) -> Iterator[str]:
    places: defaultdict[str, set[str]] = defaultdict(set)
    for file, tree in sources.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].add(file)
    for name, files in places.items():
        if len(files) > 1:
            yield f"{name} is the name of classes in {sorted(files)}"


def libav(sources: Sources) -> Iterator[str]:
    """`av` only in the worker's room, and nobody else reaches in."""
    graph = imported_files(sources)
    for file in sources:
        if not file.startswith(WORKER):
            for other in sorted(reached(graph, file)):
                if other.startswith(WORKER) and other != f"{WORKER}__init__.py":
                    yield f"{file} reaches {other}"


def says_sans_io(sources: Sources, file: str) -> bool:
    def first_paragraph(of: str) -> str:
        docstring = ast.get_docstring(sources[of]) if of in sources else None
        return (docstring or "").partition("\n\n")[0]

    folders = [file.rpartition("/")[0]]
    while folders[-1]:
        folders.append(folders[-1].rpartition("/")[0])
    return "Sans-IO" in first_paragraph(file) or any("Sans-IO" in first_paragraph(f"{each}/__init__.py") for each in folders)


def sans_io(sources: Sources) -> Iterator[str]:
    for file in SANS_IO:
        if not says_sans_io(sources, file):
            yield f"{file} must be sans-IO, and say so"
    for file, tree in sources.items():
        if says_sans_io(sources, file):
            for name in of(imports(tree), IO_MODULES):
                yield f"{file} is sans-IO and imports {name}"


def one_file(sources: Sources) -> Iterator[str]:
    for module, places in ONE_FILE.items():
        for file, tree in sources.items():
            if of(imports(tree), (module,)) and not inside(file, places):
                yield f"{file} imports {module}"


def private_names(sources: Sources) -> Iterator[str]:
    for file, tree in sources.items():
        for name in of(imports(tree), UPSTREAM_PRIVATE):
            if any(part.startswith("_") for part in name.split(".")) and file not in PRIVATE_FILES:
                yield f"{file} imports {name}"


def concrete(sources: Sources) -> Iterator[str]:
    for file, tree in sources.items():
        if file.startswith("gateway/") and not inside(file, CONCRETE_FOR):
            listeners = {name for name in imports(tree) if re.fullmatch(r"protocols\.\w+\.listener", name)}
            for name in sorted(of(imports(tree), CONCRETE) | listeners):
                yield f"{file} imports {name}"


def absolute_imports(sources: Sources) -> Iterator[str]:
    for file, tree in sources.items():
        if any(name.startswith(".") for name in imports(tree)):
            yield f"{file} imports relatively"


def unknown_errors(sources: Sources) -> Iterator[str]:
    def catches_all(handler: ast.ExceptHandler) -> bool:
        if handler.type is None:
            return True
        names = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        return any(isinstance(name, ast.Name) and name.id in ("Exception", "BaseException") for name in names)

    for file, tree in sources.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and catches_all(node) and file not in CATCH_ALL:
                yield f"{file}:{node.lineno} catches everything"


def module_state(sources: Sources) -> Iterator[str]:
    """A container at module level is a table: named in capitals, filled where it is made, and never rebound."""
    for file, tree in sources.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Global):
                yield f"{file}:{node.lineno}: global {', '.join(node.names)}"
        for statement in tree.body:
            if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None and not _is_table(statement):
                yield f"{file}:{statement.lineno}: {ast.unparse(statement)[:60]}"


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


def sizes(sources: Sources) -> Iterator[str]:
    for file, tree in sources.items():
        if file.startswith(MIGRATIONS):
            continue
        last = max((node.end_lineno or 0 for node in tree.body), default=0)
        if last > LONGEST_FILE:
            yield f"{file} has {last} lines"
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > LONGEST_FUNCTION:
                    yield f"{file}:{node.lineno} {node.name} has {length} lines"


# Each rule with cases that it must find: a file, and what it holds.
PLANTED: dict[Callable[[Sources], Iterator[str]], list[tuple[str, str]]] = {
    layers: [
        ("protocols/rtmp/planted.py", "from gateway.model import events"),
        ("protocols/webrtc/planted.py", "from aiortc import RTCDtlsTransport"),
        ("transcode/planted.py", "from protocols.rtmp.chunk import ChunkReader"),
    ],
    wings: [
        ("gateway/model/planted.py", "from gateway.store.store import Store"),
        (
            "gateway/sessions/planted.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from gateway.api import pages",
        ),
        ("gateway/api/planted.py", "from gateway import app"),
    ],
    circles: [
        ("transcode/ladder.py", "from transcode.plan import plan"),
        ("transcode/ladder.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from transcode import plan"),
    ],
    own_level: [("gateway/planted.py", "")],
    class_names: [("gateway/api/planted.py", "class Seat: pass")],
    libav: [
        ("gateway/sessions/planted.py", "from transcode.worker.video import VideoTranscoder"),
        ("transcode/plan.py", '"""Sans-IO."""\ndef planted():\n    from transcode.worker import encoders'),
    ],
    sans_io: [
        ("gateway/sessions/pacer.py", '"""The live edge. Sans-IO."""\nfrom time import monotonic_ns'),
        ("gateway/sessions/pacer.py", '"""The live edge."""\nfrom time import monotonic_ns'),
        ("protocols/bitstream/planted.py", "import logging"),
    ],
    one_file: [("gateway/sessions/planted.py", "import av"), ("gateway/__main__.py", "import prometheus_client")],
    private_names: [("protocols/whip/planted.py", "from pylibsrtp._binding import lib")],
    concrete: [
        ("gateway/api/planted.py", "from protocols.rtmp.listener import RtmpListener"),
        ("gateway/api/planted.py", "from protocols.planted.listener import PlantedListener"),
        ("gateway/api/planted.py", "from gateway.outputs.hls.policy import HlsPolicy"),
    ],
    absolute_imports: [("gateway/api/planted.py", "from . import pages")],
    unknown_errors: [("gateway/api/planted.py", "try:\n    pass\nexcept (OSError, Exception):\n    pass")],
    module_state: [("gateway/api/planted.py", "seen = set()"), ("gateway/api/planted.py", "def f():\n    global x")],
    sizes: [
        ("gateway/api/planted.py", "def long():\n" + "    pass\n" * LONGEST_FUNCTION),
        ("gateway/api/planted.py", "pass\n" * (LONGEST_FILE + 1)),
    ],
}


@pytest.mark.parametrize("rule", PLANTED)
def test_the_product_keeps_the_rule(rule: Callable[[Sources], Iterator[str]]) -> None:
    assert list(rule(product())) == []


@pytest.mark.parametrize(("rule", "file", "text"), [(rule, *case) for rule, cases in PLANTED.items() for case in cases])
def test_the_rule_finds_what_breaks_it(rule: Callable[[Sources], Iterator[str]], file: str, text: str) -> None:
    assert list(rule({**product(), file: ast.parse(text)})) != []
