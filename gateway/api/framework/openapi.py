"""The OpenAPI 3.1 document: made of the table of routes and the models, once at the start."""

from collections.abc import Iterable
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from gateway.api.framework.errors import KINDS
from gateway.api.framework.route import BASE, PARAMETERS, AnyRoute
from gateway.api.schemas.answers import ErrorResponse
from gateway.model.permissions import Capability
from gateway.model.records import MAX_CURSOR

ADDRESS: Final = "/api/v2/openapi.json"
_REF: Final = "#/components/schemas/{model}"
_ABOUT: Final = (
    "Calls, their people and their encoders. A request has `api_key` in the query (or as header `X-Api-Key`) and a token (HS256 JSON Web "
    'Token, signed with the key\'s secret) as `Authorization`; it names a `user_id`, or says `"server": true`, and expires. '
    "`stream-auth-type: anonymous` needs no token; it reads what is open to anybody now, and lists nothing."
)


def document(table: Iterable[AnyRoute], version: str) -> dict[str, Any]:
    """The document for these routes."""
    routes = tuple(table)
    schemas = _schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(BASE + route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Livestream API", "version": version, "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "api_key": {"type": "apiKey", "in": "query", "name": "api_key"},
                "token": {"type": "apiKey", "in": "header", "name": "Authorization"},
            },
            "parameters": {
                "next": {
                    "name": "next",
                    "in": "query",
                    "description": "As an earlier answer gave it: what comes behind.",
                    "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]+$", "maxLength": MAX_CURSOR},
                },
                "stream_auth_type": {
                    "name": "stream-auth-type",
                    "in": "header",
                    "schema": {"type": "string", "enum": ["jwt", "anonymous"], "default": "jwt"},
                },
            },
        },
        "security": [{"api_key": [], "token": []}, {}],
    }


def _operation(route: AnyRoute) -> dict[str, Any]:
    needs = route.needs.value
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "description": f"Takes the capability {needs}." if isinstance(route.needs, Capability) else f"For {needs}.",
        "parameters": [
            *(_parameter(name) for name in route.parameters),
            *([{"$ref": "#/components/parameters/next"}] if route.pages else []),
            {"$ref": "#/components/parameters/stream_auth_type"},
        ],
        "responses": {str(status): _response(route, status) for status in route.statuses},
    }
    if route.takes is not None:
        required = any(field.is_required() for field in route.takes.model_fields.values())
        operation["requestBody"] = {"required": required, "content": _json(route.takes)}
    return operation


def _parameter(name: str) -> dict[str, Any]:
    pattern, meaning = PARAMETERS[name]
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": meaning,
        "schema": {"type": "string", "pattern": pattern},
    }


def _response(route: AnyRoute, status: int) -> dict[str, Any]:
    if status < 300:
        return {"description": "It was made." if status == 201 else "It is so.", "content": _json(route.gives)}
    return {"description": KINDS[status].code.replace("_", " "), "content": _json(ErrorResponse)}


def _json(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}


def _schemas(routes: Iterable[AnyRoute]) -> dict[str, Any]:
    used: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {(ErrorResponse, "serialization"): None}
    for route in routes:
        used[route.gives, "serialization"] = None
        if route.takes is not None:
            used[route.takes, "validation"] = None
    _, definitions = models_json_schema(list(used), ref_template=_REF)
    return dict(sorted(definitions["$defs"].items()))
