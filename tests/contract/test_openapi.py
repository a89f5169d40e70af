"""The OpenAPI document is true: it lists what is served and nothing else, its examples are taken, and what schemathesis makes of it gets
only statuses and bodies that it tells, and never a 5xx."""

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from gateway.api.framework.filters import parsed
from gateway.api.framework.openapi import ADDRESS, document
from gateway.api.framework.route import BASE
from gateway.api.routes import ROUTES
from tests.support.api import API_KEY, Stage, api_stage
from tests.support.postgres import running_postgres
from tests.support.slow import slow

SECONDS = 20
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)
# So that requests meet what there is, and not only 404.
SETTINGS = """
[parameters]
"path.type" = "livestream"
"path.id" = "show"
"path.name" = "concert"
"path.user_id" = "john"
"""


def test_the_document_is_openapi_3_1() -> None:
    validate(document(ROUTES, "1"))


async def test_what_is_served_is_in_it_and_the_reverse(tmp_path: Path) -> None:
    async with api_stage(tmp_path) as stage:
        async with stage.client.get(ADDRESS) as response:
            assert response.content_type == "application/json"
            told = (await response.json())["paths"]
        served = {
            (route.method.lower(), route.resource.canonical)
            for route in stage.client.app.router.routes()
            if route.method != "HEAD"  # which every GET has (RFC 9110 §9.3.2)
            and route.resource is not None
            and route.resource.canonical.startswith(BASE)
        }
    assert {(method, path) for path, methods in told.items() for method in methods} == served
    assert len(served) == len(ROUTES) > 30


def test_every_operation_has_a_name_of_its_own_and_its_parameters() -> None:
    operations = [(path, each) for path, methods in document(ROUTES, "1")["paths"].items() for each in methods.values()]
    assert len({each["operationId"] for _, each in operations}) == len(operations)
    for path, each in operations:
        told = {parameter["name"] for parameter in each["parameters"] if parameter.get("in") == "path"}
        assert told == set(re.findall(r"{(\w+)}", path))


def test_examples_are_taken() -> None:
    schemas = document(ROUTES, "1")["components"]["schemas"]
    resolvable = {"components": {"schemas": schemas}}
    tried = 0
    for name, schema in schemas.items():
        for example in schema.get("examples", ()):
            Draft202012Validator({**resolvable, "$ref": f"#/components/schemas/{name}"}).validate(example)
            route = next(route for route in ROUTES if route.takes is not None and route.takes.__name__ == name)
            assert route.takes is not None
            assert route.takes.model_validate_json(json.dumps(example))
            tried += 1
        for conditions in schema.get("properties", {}).get("filter_conditions", {}).get("examples", ()):
            parsed(conditions)
            tried += 1
    assert tried >= 4


@pytest.fixture(params=["sqlite", slow("postgresql")])
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """The two differ in what they refuse."""
    if request.param == "sqlite":
        yield ""
    else:
        with running_postgres() as server:
            yield server.url()


async def test_schemathesis_finds_nothing(tmp_path: Path, database: str) -> None:
    async with api_stage(tmp_path, database) as stage:
        await prepare(stage)
        (tmp_path / "schemathesis.toml").write_text(SETTINGS)
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("schemathesis"),
            *("--config-file", str(tmp_path / "schemathesis.toml"), "run", str(stage.client.make_url(ADDRESS))),
            *("--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing", "--max-examples", "8"),
            *("--header", f"Authorization: {stage.token()}", "--header", f"X-Api-Key: {API_KEY}"),
            *("--max-time", str(SECONDS), "--max-failures", "10", "--seed", "1", "--no-color", "--warnings", "off"),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-8000:]


async def prepare(stage: Stage) -> None:
    """Something there is of everything."""
    call: dict[str, Any] = {"data": {"created_by_id": "john", "members": [{"user_id": "mary", "role": "host"}]}}
    await stage.ok("POST", "/call/livestream/show", call)
    await stage.ok("POST", "/calltypes", {"name": "concert"})


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_every_route_says_who_may(route: Any) -> None:
    assert route.needs is not None
    assert 401 in route.statuses
