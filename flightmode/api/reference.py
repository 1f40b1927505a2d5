"""docs/reference/api.md, made from the table of endpoints and the models of their answers."""

from typing import Any, get_args, get_origin

from pydantic import BaseModel

from flightmode.api.bodies import ErrorAnswer
from flightmode.api.endpoints import ENDPOINTS, Endpoint


def reference() -> str:
    """The page."""
    parts = [
        "# The API of a node",
        "<!-- Made by `python -m flightmode.cli.reference`; not edited by hand. -->",
        "Each node answers at `https://HOST:8008` (`api_port`) with a certificate of the "
        "cluster's own authority. Looking needs no certificate. What begins with POST needs the "
        "certificate of a node or of the operator (that of an application's host is not enough), "
        "or the token of the secrets directory as `Authorization: Bearer …`. A node writes a wish "
        "down for the node that it concerns, so 202 means asked for; `GET /requests/{id}` tells "
        "how it ended. An answer that is not what was asked for has the body `ErrorAnswer`. For "
        "programs: `GET /openapi.json`.",
        *(_endpoint(each) for each in ENDPOINTS),
        "## Bodies",
        *(_model(each) for each in _models()),
    ]
    return "\n\n".join(parts) + "\n"


def _endpoint(one: Endpoint) -> str:
    lines = [f"## `{one.method} {one.path}`", "", one.summary, ""]
    if one.body is not None:
        lines += [f"Takes `{one.body.__name__}`.", ""]
    lines += [f"- `?{name}=`: {text}" for name, text in one.queries]
    for code, text in one.answers.items():
        whole = one.answer is not None and (code < 300 or one.verdict)
        shape = f" `{one.answer.__name__}`" if one.answer is not None and whole else ""
        lines.append(f"- {code}: {text}{shape}")
    return "\n".join(lines)


def _models() -> list[type[BaseModel]]:
    """Every body, and what is inside of them, each once."""
    found: dict[str, type[BaseModel]] = {}

    def take(model: type[BaseModel] | None) -> None:
        if model is None or model.__name__ in found:
            return
        found[model.__name__] = model
        for field in model.model_fields.values():
            for inner in _inside(field.annotation):
                take(inner)

    for one in ENDPOINTS:
        take(one.answer)
        take(one.body)
    take(ErrorAnswer)
    return [found[name] for name in sorted(found)]


def _inside(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for each in get_args(annotation) for model in _inside(each)]


def _model(model: type[BaseModel]) -> str:
    lines = [f"### `{model.__name__}`", "", " ".join((model.__doc__ or "").split()), ""]
    lines += ["| field | type | meaning |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        lines.append(f"| `{name}` | {_type(field.annotation)} | {field.description or ''} |")
    return "\n".join(lines)


def _type(annotation: Any) -> str:
    if annotation is type(None):
        return "null"
    if get_origin(annotation) is tuple:
        return f"list of {_type(get_args(annotation)[0])}"
    if get_args(annotation):
        return " or ".join(_type(each) for each in get_args(annotation))
    names = {str: "text", int: "integer", float: "number", bool: "true or false"}
    return names.get(annotation, f"`{getattr(annotation, '__name__', annotation)}`")
