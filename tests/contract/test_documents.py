"""The documents against the code: what they name is there, under that name, and their tables are the code's own.

Each rule is a function from the documents to what breaks it, in words. It runs over the documents, which must give nothing, and over the
documents with one planted fault, which must be found. What stands in `code` is what the code has to have; a part of a path that is written
NAME is yours to choose.
"""

import argparse
import ast
import re
import runpy
import shlex
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path, PurePosixPath

import pytest

from gateway.__main__ import command_line
from gateway.api.framework.errors import KINDS, ApiError, answer
from gateway.api.framework.route import BASE
from gateway.api.routes import ROUTES
from gateway.api.schemas.socket_messages import Close
from gateway.config import PREFIX, Config
from gateway.config.sources import known_keys, load
from gateway.events.webhook_call import signed, signing_key
from gateway.model.events import EventType
from gateway.model.permissions import Capability
from gateway.sessions.diagnostics import Concern
from gateway.sessions.seat_state import TRANSITIONS
from tests.support.gateway_process import ROOT, running_gateway
from tests.test_architecture import WINGS, product
from transcode.plan import Label

Documents = Mapping[str, str]
"""Each document, relative to the repository, and its text."""

README_LINES = 150
TOP = ("gateway", "protocols", "transcode", "tests", "deploy", "docs")
CHOSEN = "NAME"
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_PATH = re.compile(rf"(?<![\w/.-])(?:{'|'.join(TOP)})/[\w./*{{}},-]*[\w*/}}](?:::[\w.]+)?")
_COMMAND = re.compile(r"(?:^|(?<=[\s$(]))(?:\.venv/bin/)?(?:python -m )?gateway (?!python )(?=[a-z])")
_METRIC = re.compile(r"\bingress_[a-z_]+…?")
_KEY = re.compile(rf"(?<![\w./-])({'|'.join(Config.model_fields)})\.([a-z_]+)\b(?![/(])")
_VARIABLE = re.compile(rf"\b{PREFIX}[A-Z][A-Z_]+\b")
_SUFFIXES = frozenset({"py", "js", "md", "toml", "json", "db", "yml", "yaml"})
_TRANSITION = re.compile(r"^ *(\w+) --> (\w+)", re.MULTILINE)
_NEXT_COMMAND = frozenset({"|", "||", "&&", ";", "&", ">", "<"})
_STARTS_THREADS = frozenset({"Thread", "Timer", "ThreadPoolExecutor", "to_thread", "run_in_executor", "start_new_thread"})
_NAMES_A_TEST = re.compile(r"`tests/[\w/]+\.py::\w+`")


@cache
def documents() -> Documents:
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sorted(files)}


def fenced(text: str) -> Iterator[tuple[str, str]]:
    """Language and body of each block of code."""
    yield from _FENCE.findall(text)


def spans(text: str) -> list[str]:
    """What stands between single backticks in a line."""
    return _SPAN.findall(_FENCE.sub("", text))


def code(text: str) -> Iterator[str]:
    """All that is written as code."""
    yield from (body for _, body in fenced(text))
    yield from spans(text)


def table(text: str, heading: str) -> list[str]:
    """The first column of the table under a heading, without backticks and without its head; several names in a cell are several."""
    section = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| (.+?) \|", section[1], re.MULTILINE)[1:] if section else []
    return [name for row in rows for name in _SPAN.findall(row) or [row]]


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(text: str) -> set[str]:
    return {slug(heading) for heading in _HEADING.findall(_FENCE.sub("", text))}


def links(docs: Documents) -> Iterator[str]:
    for name, text in docs.items():
        for target in _LINK.findall(_FENCE.sub("", text)):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (ROOT / name).parent.joinpath(path) if path else ROOT / name
            if not file.exists():
                yield f"{name}: there is no {target}"
            elif anchor and anchor not in anchors(docs[file.resolve().relative_to(ROOT).as_posix()]):
                yield f"{name}: {target} names no heading"


def paths(docs: Documents) -> Iterator[str]:
    for name, text in docs.items():
        for path in {found for piece in code(text) for found in _PATH.findall(piece)}:
            file, _, inside = path.partition("::")
            for each in _braces(file):
                stem = next((part for part in PurePosixPath(each).parents if CHOSEN not in part.as_posix()), PurePosixPath())
                if not any(ROOT.glob(stem.as_posix() if CHOSEN in each else each.rstrip("/"))):
                    yield f"{name}: there is no {each}"
                elif inside and inside not in _defined(each):
                    yield f"{name}: {each} has no {inside}"


def _braces(path: str) -> list[str]:
    """`a/{b,c}.py` as `a/b.py` and `a/c.py`."""
    if (found := re.search(r"\{([^{}]*)\}", path)) is None:
        return [path]
    return [each for part in found[1].split(",") for each in _braces(path[: found.start()] + part + path[found.end() :])]


@cache
def _defined(file: str) -> frozenset[str]:
    """Names of functions, classes, their methods and fields, and of what the module assigns."""
    return frozenset(_names(ast.parse((ROOT / file).read_text(encoding="utf-8")).body, ""))


def _names(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield prefix + name
            case ast.ClassDef(name=name):
                yield prefix + name
                yield from _names(node.body, f"{prefix}{name}.")
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield prefix + name


def commands(docs: Documents) -> Iterator[str]:
    """Those in blocks are parsed whole by the real parser; of those in a sentence the command and its options must be there."""
    for name, text in docs.items():
        for language, body in fenced(text):
            for line in body.replace("\\\n", " ").splitlines() if language == "sh" else ():
                if (words := _words(line)) is not None and (why := _unparsable(words)):
                    yield f"{name}: {line.strip()}: {why}"
        for span in spans(text):
            if (words := _words(span)) is not None and (why := _unknown(words)):
                yield f"{name}: {span}: {why}"


def _words(line: str) -> list[str] | None:
    """The arguments of a command of ours; None where the line is none. Where deploy/up starts it, they are those of `run`."""
    if line.startswith("deploy/up"):
        return ["run", *shlex.split(line, comments=True)[1:]]
    if (found := _COMMAND.search(line.partition(" # ")[0])) is None:
        return None
    words = shlex.split(line[found.end() :], comments=True)
    return words[: next((at for at, word in enumerate(words) if word in _NEXT_COMMAND), len(words))]


def _unparsable(words: list[str]) -> str:
    try:
        command_line().parse_args(words)
    except SystemExit:
        return f"the command line does not take {shlex.join(words)}"
    return ""


def _unknown(words: list[str]) -> str:
    """A word with | is several; what follows an option may be its value."""
    parser, before_options = command_line(), True
    for word in words:
        inside = next((each for each in parser._actions if isinstance(each, argparse._SubParsersAction)), None)
        position = next((each for each in parser._actions if not each.option_strings), None)
        if word.startswith("-"):
            before_options = False
            if word.partition("=")[0] not in parser._option_string_actions:
                return f"there is no option {word}"
        elif inside is not None:
            if any(each not in inside.choices for each in word.split("|")):
                return f"there is no command {word}"
            parser = inside.choices[word.split("|")[0]]
        elif position is not None and before_options:
            try:
                for each in word.split("|"):
                    parser._get_value(position, each)
            except argparse.ArgumentError as why:
                return str(why)
    return ""


def keys(docs: Documents) -> Iterator[str]:
    for name, text in docs.items():
        for language, body in fenced(text):
            if language == "toml":
                for section, values in tomllib.loads(body).items():
                    yield from (f"{name}: there is no key {section}.{key}" for key in values if f"{section}.{key}" not in KEYS)
        for piece in code(text):
            for section, key in _KEY.findall(piece):
                if key not in _SUFFIXES and f"{section}.{key}" not in KEYS:
                    yield f"{name}: there is no key {section}.{key}"
            for variable in _VARIABLE.findall(piece):
                if variable[len(PREFIX) :].lower().replace("__", ".") not in KEYS:
                    yield f"{name}: there is no key {variable}"


KEYS = frozenset(known_keys())


def first_columns(docs: Documents) -> Iterator[str]:
    """The tables that have to be whole, in any order."""
    routes = {f"{route.method} {route.path}" for route in ROUTES}
    operations, api, protocols = docs["docs/operators.md"], docs["docs/api.md"], docs["docs/streamers.md"]
    for what, written, there in (
        ("events", table(api, "Event types"), {each.value for each in EventType}),
        ("closing codes", table(api, "Closing codes"), {str(each.value[0]) for each in Close}),
        ("capabilities", table(api, "Capabilities"), {each.value for each in Capability}),
        ("routes", table(api, "Routes"), routes),
        ("errors", table(api, "Errors"), {str(status) for status in KINDS}),
        ("sections", table(operations, "Sections"), set(Config.model_fields)),
        ("reasons", table(protocols, "Reasons"), {each.value for each in Label}),
        ("findings", table(protocols, "Findings"), {each.value for each in Concern}),
        ("wings", table(docs["docs/architecture.md"], "Wings"), set(WINGS)),
    ):
        yield from (f"{what}: {each} is not in the table" for each in sorted(there - set(written)))
        yield from (f"{what}: there is no {each}" for each in sorted(set(written) - there))


def seat_picture(docs: Documents) -> Iterator[str]:
    drawn = set(_TRANSITION.findall(docs["docs/architecture.md"]))
    there = {(before.value, after.value) for before, allowed in TRANSITIONS.items() for after in allowed}
    yield from (f"a seat goes from {before} to {after}, which is not drawn" for before, after in sorted(there - drawn))
    yield from (f"a seat never goes from {before} to {after}" for before, after in sorted(drawn - there))


def held(docs: Documents) -> Iterator[str]:
    """Each decision of the architecture has a test that holds it."""
    section = docs["docs/architecture.md"].partition("\n## Decisions\n")[2].partition("\n## ")[0]
    decisions = re.findall(r"^(\d+\. .*?)(?=^\d+\. |\Z)", section, re.MULTILINE | re.DOTALL)
    yield from (f"no test holds: {each[:60]}" for each in decisions if not _NAMES_A_TEST.search(each))
    if not decisions:
        yield "docs/architecture.md has no decisions"


def threads(docs: Documents) -> Iterator[str]:
    """Whatever starts a thread of ours, or borrows one of asyncio's, stands in the map of the threads."""
    mapped = docs["docs/architecture.md"].partition("\n## Threads\n")[2].partition("\n## ")[0]
    for file, tree in product().items():
        calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
        names = {func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "") for func in calls}
        if names & _STARTS_THREADS and f"`{file}`" not in mapped:
            yield f"{file} is not in the map of threads"


def sizes(docs: Documents) -> Iterator[str]:
    if (lines := len(docs["README.md"].splitlines())) > README_LINES:
        yield f"README.md has {lines} lines"


def glossary(docs: Documents) -> Iterator[str]:
    """Each word once, in the order of the alphabet."""
    words = [word.lower() for word in re.findall(r"^\| \*([^*]+)\* \|", docs["docs/glossary.md"], re.MULTILINE)]
    yield from (f"{later} stands after {earlier}" for earlier, later in pairwise(words) if later <= earlier)
    if len(words) < 20:
        yield "the glossary is all but empty"


# Each rule with faults that it must find: a document, and what is added to it.
PLANTED: dict[Callable[[Documents], Iterator[str]], list[tuple[str, str]]] = {
    links: [("README.md", "[gone](docs/gone.md)"), ("docs/api.md", "[gone](operators.md#gone)"), ("docs/api.md", "[x](#gone)")],
    paths: [
        ("README.md", "`protocols/rtmp/gone.py`"),
        ("docs/architecture.md", "`tests/test_architecture.py::test_gone`"),
        ("docs/architecture.md", "`gateway/sessions/seat.py::Seat.gone`"),
        ("docs/extending.md", "`protocols/gone/NAME.py`"),
        ("docs/extending.md", "`protocols/{rtmp,gone}/listener.py`"),
        ("docs/operators.md", "```sh\ndeploy/gone --help\n```"),
    ],
    commands: [
        ("README.md", "`gateway gone`"),
        ("README.md", "`gateway run --gone`"),
        ("README.md", "`gateway ingress rtmp|gone`"),
        ("README.md", "```sh\ngateway ingress rtmp --call livestream:demo\n```"),
        ("README.md", "```sh\n.venv/bin/python -m gateway token --call demo --user host | tee key\n```"),
        ("README.md", "```sh\ndeploy/up --gone\n```"),
    ],
    keys: [
        ("docs/operators.md", "`rtmp.gone`"),
        ("docs/operators.md", "`GATEWAY_RTMP__GONE`"),
        ("docs/operators.md", "```toml\n[rtmp]\ngone = 1\n```"),
    ],
    first_columns: [
        ("docs/api.md", "\n### Event types\n\n| a | b |\n|---|---|\n| `call.gone` | x |\n"),
        ("docs/operators.md", "\n### Sections\n\n| a | b |\n|---|---|\n| `gone` | x |\n"),
    ],
    seat_picture: [("docs/architecture.md", "closed --> live")],
    held: [("docs/architecture.md", "\n## Decisions\n\n1. Because.\n")],
    threads: [("docs/architecture.md", "\n## Threads\n\nNone.\n\n## Rest\n")],
    sizes: [("README.md", "\n" * (README_LINES + 1))],
    glossary: [("docs/glossary.md", "\n| *aardvark* | x |\n")],
}


@pytest.mark.parametrize("rule", PLANTED)
def test_the_documents_keep_the_rule(rule: Callable[[Documents], Iterator[str]]) -> None:
    assert list(rule(documents())) == []


@pytest.mark.parametrize(("rule", "document", "text"), [(rule, *case) for rule, cases in PLANTED.items() for case in cases])
def test_the_rule_finds_a_planted_fault(rule: Callable[[Documents], Iterator[str]], document: str, text: str) -> None:
    docs = documents()
    # First, so that a section that is there twice is the planted one.
    assert list(
        rule({**docs, document: f"{text}\n{docs[document]}" if text.startswith("\n#") else f"{docs[document]}\n{text}"})
    )


async def test_every_metric_named_is_one_of_a_gateway_with_all_that_it_can_have() -> None:
    hooks = ("webhooks.url=https://example.org/events", "webhooks.secret=" + "x" * 32)
    async with running_gateway(*hooks) as gateway:
        text = await gateway.text("/metrics")
    there = {name for name in re.findall(r"^# TYPE (\w+)", text, re.MULTILINE) if name.startswith("ingress_")}
    assert list(unknown_metrics(documents(), there)) == []
    assert list(unknown_metrics({"planted.md": "`ingress_gone` and `ingress_gone_…`"}, there))


def unknown_metrics(docs: Documents, there: set[str]) -> Iterator[str]:
    """A name that ends with … stands for all that begin so."""
    for name, text in docs.items():
        for metric in {found for piece in code(text) for found in _METRIC.findall(piece)}:
            if metric not in there and not (metric.endswith("…") and any(each.startswith(metric[:-1]) for each in there)):
                yield f"{name}: there is no metric {metric}"


def test_the_examples_of_configuration_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = [body for text in documents().values() for language, body in fenced(text) if language == "toml"]
    assert examples
    for body in examples:
        (tmp_path / "example.toml").write_text(body, encoding="utf-8")
        load(tmp_path / "example.toml")


def test_the_example_for_receivers_of_webhooks_takes_our_signatures_and_no_others(tmp_path: Path) -> None:
    (example,) = [body for language, body in fenced(documents()["docs/api.md"]) if language == "python"]
    file = tmp_path / "example.py"
    file.write_text(example, encoding="utf-8")
    genuine = runpy.run_path(str(file))["genuine"]
    headers = signed(signing_key("secret"), "evt_1", 1_700_000_000, b"{}")
    assert genuine(headers, b"{}", b"secret")
    assert not genuine(headers, b"[]", b"secret")
    assert not genuine(headers, b"{}", b"other")


def test_errors_of_the_api_point_to_sections_that_there_are() -> None:
    for status in KINDS:
        body = answer(ApiError(status, "words")).body
        assert isinstance(body, bytes)
        (target,) = re.findall(rb'"more_info": "([^"]+)"', body)
        page, _, anchor = target.decode().partition("#")
        assert anchor in anchors(documents()[page])


def test_routes_of_the_api_are_told_with_their_beginning() -> None:
    assert f"`{BASE}`" in documents()["docs/api.md"]
