"""The API described for programs (OpenAPI 3.1) and for people (one plain page)."""

from collections.abc import Iterable
from html import escape
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from flightmode.api.bodies import ErrorAnswer
from flightmode.api.endpoints import Endpoint

_REF = "#/components/schemas/{model}"


def description(endpoints: Iterable[Endpoint], version: str) -> dict[str, Any]:
    """The OpenAPI document."""
    table = tuple(endpoints)
    models: dict[str, type[BaseModel]] = {ErrorAnswer.__name__: ErrorAnswer}
    for one in table:
        models.update({each.__name__: each for each in (one.answer, one.body) if each is not None})
    ordered = [models[name] for name in sorted(models)]
    _, schemas = models_json_schema([(each, "validation") for each in ordered], ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for one in table:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Flightmode",
            "version": version or "0",
            "license": {"name": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas.get("$defs", {}),
            "securitySchemes": {
                "certificate": {"type": "mutualTLS"},
                "token": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _operation(one: Endpoint) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": one.name,
        "summary": one.summary,
        "responses": {str(code): _response(one, code) for code in one.answers},
    }
    parameters = [_parameter(name, text, "query") for name, text in one.queries]
    if "{id}" in one.path:
        parameters.append(_parameter("id", "As the request was answered.", "path"))
    if parameters:
        operation["parameters"] = parameters
    if one.body is not None:
        operation["requestBody"] = {"content": _json(one.body)}
    if one.changes:
        operation["security"] = [{"certificate": []}, {"token": []}]
    return operation


def _response(one: Endpoint, code: int) -> dict[str, Any]:
    response: dict[str, Any] = {"description": one.answers[code]}
    if one.answer is not None and (code < 300 or one.verdict):
        response["content"] = _json(one.answer)
    elif code >= 400:
        response["content"] = _json(ErrorAnswer)
    return response


def _json(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}


def _parameter(name: str, text: str, place: str) -> dict[str, Any]:
    kind = "string" if place == "path" else "integer"
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "description": text,
        "schema": {"type": kind},
    }


def page(endpoints: Iterable[Endpoint]) -> str:
    """A page that needs nothing but itself."""
    rows = "".join(
        f"<tr><td><code>{one.method}</code><td><code>{escape(one.path)}</code>"
        f"<td>{escape(one.summary)}<td>{_answers(one)}"
        for one in endpoints
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Flightmode</title>"
        "<style>body{font:15px/1.5 sans-serif;margin:2rem;max-width:70rem}"
        "td{padding:.2rem .8rem .2rem 0;vertical-align:top}</style>"
        "<h1>Flightmode</h1><p>The API of this node. What begins with POST needs a node's "
        "or the operator's certificate, or the token as <code>Authorization: Bearer …</code>. "
        'For programs: <a href="/openapi.json">openapi.json</a>.'
        f"<table>{rows}</table></html>"
    )


def _answers(one: Endpoint) -> str:
    return "<br>".join(f"<b>{code}</b> {escape(text)}" for code, text in one.answers.items())
