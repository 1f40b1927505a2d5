"""A setting's type and range in words: for error messages and for the reference page."""

import types
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from flightmode.config.schema import Config
from flightmode.config.section import ADDRESS, HOST, NAME

_PATTERNS = {
    NAME: "small letters, digits, - and _ (at most 42)",
    HOST: "an IP address or a host name, without a port",
    ADDRESS: "an IP address, without a port",
}


def allowed(field: FieldInfo | None) -> str:
    """What may stand there."""
    if field is None:
        return "something else"
    kind = plain_type(field.annotation)
    low, high = _limits(field)
    if kind in (int, float):
        noun = "a whole number" if kind is int else "a number"
        return f"{noun} from {_number(low)} to {_number(high)}"
    return _of_kind(kind, field)


def _of_kind(kind: Any, field: FieldInfo) -> str:
    pattern = next((m.pattern for m in field.metadata if hasattr(m, "pattern")), None)
    if pattern is not None:
        return _PATTERNS[pattern]
    if get_origin(kind) is Literal:
        return _one_of([str(each) for each in get_args(kind)])
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _one_of([each.value for each in kind])
    if get_origin(kind) is dict or (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return "a table"
    if get_origin(kind) is tuple:
        return "a list of tables"
    return {bool: "true or false", Path: "a path", str: "a text in quotes"}.get(
        kind, "a text, a number, true or false"
    )


def _one_of(words: Sequence[str]) -> str:
    return "one of " + ", ".join(f'"{word}"' for word in words)


def plain_type(annotation: Any) -> Any:
    """Without `Annotated` and `| None`."""
    if get_origin(annotation) is Annotated:
        return plain_type(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [each for each in get_args(annotation) if each is not type(None)]
        if len(rest) == 1:
            return plain_type(rest[0])
    return annotation


def _limits(field: FieldInfo) -> tuple[Any, Any]:
    low = next((m.ge for m in field.metadata if isinstance(m, annotated_types.Ge)), None)
    high = next((m.le for m in field.metadata if isinstance(m, annotated_types.Le)), None)
    return low, high


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The table that a field holds, or holds many of."""
    kind = plain_type(field.annotation)
    candidates = [kind, *(plain_type(each) for each in get_args(kind))]
    for each in candidates:
        if isinstance(each, type) and issubclass(each, BaseModel):
            return each
    return None


def field_at(path: Sequence[str | int]) -> FieldInfo | None:
    """The field that a path of flightmode.toml leads to; None: there is none."""
    field = FieldInfo(annotation=Config)
    for part in path:
        kind = plain_type(field.annotation)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            known = kind.model_fields.get(str(part))
            if known is None:
                return None
            field = known
        elif get_origin(kind) in (dict, tuple):
            # A name of the user's own, or a place in a list.
            inside = [each for each in get_args(kind) if each is not Ellipsis]
            field = FieldInfo(annotation=inside[-1])
        else:
            return None
    return field


def keys_at(path: Sequence[str | int]) -> list[str]:
    """The keys that are known in that table."""
    field = field_at(path)
    section = None if field is None else section_of(field)
    return [] if section is None else list(section.model_fields)
