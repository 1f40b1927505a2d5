"""The reference page and the commented sample, made from the schema: one source of truth."""

from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from textwrap import wrap
from typing import Any, get_origin

import tomlkit
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from flightmode.config.schema import Config
from flightmode.config.words import allowed, plain_type, section_of

_WIDTH = 98
_EXAMPLES: Mapping[str, str] = {
    "postgres.parameters": '[postgres.parameters]\nshared_buffers = "1GB"',
    "postgres.hba": '[[postgres.hba]]\ndatabase = "app"\nuser = "app"\naddress = "10.0.0.0/8"',
    "provision.apps": '[provision.apps.web]\nhost = "10.0.0.9"',
    "proxy.databases": "[proxy.databases.app]\npool_size = 40",
    "proxy.users": "[proxy.users.app]\nmax_connections = 100",
    "proxy.auth_query": '[proxy.auth_query]\nuser = "asker"\nsecret_file = "asker.secret"',
    "proxy.hba": '[[proxy.hba]]\ntype = "host"\nuser = "app"\naddress = "127.0.0.0/8"',
}
"""Tables that hold what a user brings along."""


def sample(given: Mapping[str, Any]) -> str:
    """A whole flightmode.toml: `given` settings live, all the others as comments with defaults.

    `given` is nested as the file is: {"cluster": {"name": "main"}, "nodes": {"ams": {…}}}.
    """
    parts = [
        "# flightmode.toml: one file for the whole cluster, the same on every node.\n"
        "# What begins with a # is the default; remove the # to change it.\n"
        "# `flightmode check` says what is wrong with this file."
    ]
    for name, field in Config.model_fields.items():
        section = section_of(field)
        assert section is not None
        if name == "nodes":
            parts += _nodes(field, section, given.get("nodes", {}))
        else:
            parts += _table(name, section, given.get(name, {}))
    return "\n\n".join(parts) + "\n"


def _nodes(
    field: FieldInfo, section: type[BaseModel], nodes: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    yield _comment(field.description or "")
    for index, (name, values) in enumerate(nodes.items()):
        lines = [f"[nodes.{name}]"]
        for key, each in section.model_fields.items():
            if index == 0:
                lines.append(_comment(each.description or ""))
            lines.append(_setting(key, each, values))
        yield "\n".join(lines)


def _table(name: str, section: type[BaseModel], values: Mapping[str, Any]) -> Iterator[str]:
    lines = [_comment(_first_line(section)), f"[{name}]"]
    tables = []
    for key, field in section.model_fields.items():
        example = _EXAMPLES.get(f"{name}.{key}")
        if example is None:
            lines += [_comment(field.description or ""), _setting(key, field, values)]
        else:
            commented = "\n".join(f"#{line}" for line in example.splitlines())
            live = _live_tables(name, key, values[key]) if values.get(key) else commented
            tables.append(f"{_comment(field.description or '')}\n{live}")
    yield "\n".join(lines)
    yield from tables


def _live_tables(name: str, key: str, value: Any) -> str:
    return tomlkit.dumps({name: {key: value}}).replace(f"[{name}]\n", "").strip()


def _setting(key: str, field: FieldInfo, values: Mapping[str, Any]) -> str:
    if key in values:
        return f"{key} = {_literal(values[key])}"
    default = _default(field)
    return f"#{key} = {'…' if default is None else _literal(default)}"


def _comment(text: str) -> str:
    return "\n".join(f"# {line}" for line in wrap(text.replace("`", ""), _WIDTH))


def _first_line(section: type[BaseModel]) -> str:
    return (section.__doc__ or "").strip().splitlines()[0]


def _default(field: FieldInfo) -> Any:
    if field.default is PydanticUndefined:
        return None
    return field.default


def _literal(value: Any) -> str:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, tuple):
        value = list(value)
    return tomlkit.item(str(value) if isinstance(value, Path) else value).as_string()


# ------------------------------------------------------------------------- the page


def reference() -> str:
    """docs/reference/configuration.md."""
    parts = [
        "# flightmode.toml\n\n"
        "<!-- Made by `python -m flightmode.cli.reference`; not edited by hand. -->\n\n"
        "One file for the whole cluster, the same on every node. `flightmode init` writes it with "
        "every setting explained; `flightmode check` says what is wrong with it. A key that does "
        "not exist is an error. Times are in seconds. A relative path counts from the directory "
        "of the file; `{node}` in a path stands for the name of the node that reads it."
    ]
    for name, field in Config.model_fields.items():
        section = section_of(field)
        assert section is not None
        title = f"[{name}.NAME]" if name == "nodes" else f"[{name}]"
        parts.append(f"## `{title}`\n\n{_doc(section)}\n\n{_rows(section)}")
        for key, inner in section.model_fields.items():
            many = section_of(inner)
            if many is not None:
                title = _title(f"{name}.{key}", plain_type(inner.annotation))
                parts.append(f"## `{title}`\n\n{_doc(many)}\n\n{_rows(many)}")
    return "\n\n".join(parts) + "\n"


def _title(path: str, kind: Any) -> str:
    if get_origin(kind) is tuple:
        return f"[[{path}]]"
    return f"[{path}.NAME]" if get_origin(kind) is dict else f"[{path}]"


def _doc(section: type[BaseModel]) -> str:
    return " ".join((section.__doc__ or "").split())


def _rows(section: type[BaseModel]) -> str:
    lines = ["| key | default | allowed | meaning |", "|---|---|---|---|"]
    for key, field in section.model_fields.items():
        default = _default(field)
        if field.is_required():
            shown = "**required**"
        else:
            shown = "" if default in (None, (), {}) else f"`{_literal(default)}`"
        lines.append(f"| `{key}` | {shown} | {allowed(field)} | {field.description} |")
    return "\n".join(lines)
