"""The model's words as versioned JSON: in the store, and in the journal.

Every record is one JSON object that carries `v`, the version it was written in.
A reader ignores fields it does not know and fills in defaults for fields that are
missing, so nodes of two neighbouring versions understand each other while a cluster
is upgraded: a new field of a stored word therefore always has a default.
A member of a union carries its class's name in `_type`; a WAL position is written
as Postgres prints it.
"""

import json
import operator
from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, TypeVar, get_args, get_origin

from cattrs import BaseConverter, Converter
from cattrs.strategies import configure_tagged_union

from flightmode.errors import PostgresError, RecordUnreadable
from flightmode.model.action import Action
from flightmode.model.lsn import Lsn

VERSION: Final = 1
"""Raised when the meaning of a field changes; a new field with a default does not need it."""

TAG: Final = "_type"
_VERSION_KEY: Final = "v"
_SHORT_BYTES: Final = 4096
"""Of what the store holds; what a journal holds is longer, and read once."""

_JSON: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)

T = TypeVar("T")


def dump(value: object) -> bytes:
    """One record: compact JSON, in the order of the fields."""
    return _compact({_VERSION_KEY: VERSION, **to_data(value)})


def load(kind: type[T], record: bytes | str) -> T:
    """The record as a `kind`.  Raises RecordUnreadable."""
    short = len(record) <= _SHORT_BYTES
    any_kind: Any = kind
    value: T = (_loaded_before if short else _loaded)(any_kind, record)
    return value


def _loaded(kind: Any, record: bytes | str) -> Any:
    try:
        data = json.loads(record)
    except ValueError as wrong:
        raise RecordUnreadable(f"a {kind.__name__} is not JSON: {wrong}") from None
    return from_data(kind, data)


def load_known(kind: type[T], record: bytes | str) -> T | None:
    """The record as a `kind`; None, when this version cannot read it: others are newer.

    For what a node can do without.  Who leads is not of that kind.
    """
    try:
        return load(kind, record)
    except RecordUnreadable:
        return None


# A key that is read by several readers, or again and again, is put together once: values are
# frozen, so that all may have the same one.
_loaded_before = lru_cache(maxsize=64)(_loaded)


def to_data(value: object) -> dict[str, Any]:
    """A dataclass as plain JSON values (dicts, lists, strings, numbers, None)."""
    data: dict[str, Any] = _CONVERTER.unstructure(value)
    return data


def from_data(kind: type[T], data: object) -> T:
    """The opposite of `to_data`.  Raises RecordUnreadable."""
    if not isinstance(data, dict):
        raise RecordUnreadable(f"a {kind.__name__} is not an object: {_short(data)}")
    try:
        return _CONVERTER.structure(data, kind)
    except (ValueError, TypeError, KeyError, PostgresError) as wrong:
        newer = _written_by_newer(data)
        raise RecordUnreadable(f"not a {kind.__name__}{newer}: {wrong!r}: {_short(data)}") from None


def _written_by_newer(data: dict[str, Any]) -> str:
    version = data.get(_VERSION_KEY, VERSION)
    known = isinstance(version, int) and version <= VERSION
    return "" if known else f" of version {VERSION}, but {version}"


def _compact(data: dict[str, Any]) -> bytes:
    return _JSON.encode(data).encode()


def _short(data: object) -> str:
    text = repr(data)
    return text if len(text) <= 200 else f"{text[:200]}…"


# ------------------------------------------------------------------------- the converter


Hook = Callable[[Any, Any], Any]


def _exactly(kind: type) -> Hook:
    """Take a value of this very type as it is: nothing is guessed from a string.

    Also called for the subclasses of `kind`, which here are enumerations.
    """

    def structure(value: object, target: type) -> object:
        if type(value) is not kind:
            raise TypeError(f"{_short(value)} instead of {kind.__name__}")
        return value if target is kind else target(value)

    return structure


def _number(value: object, _: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{_short(value)} instead of a number")
    return float(value)


def _lsn(value: object, _: object) -> Lsn:
    if not isinstance(value, str):
        raise TypeError(f"{_short(value)} instead of a WAL position")
    return Lsn.parse(value)


def _is_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple


def _tuple(kind: Any, converter: BaseConverter) -> Hook:
    """`tuple[T, ...]` or `tuple[A, B]`, from a list only (a string has elements too)."""
    kinds = get_args(kind)
    hooks = [converter.get_structure_hook(each) for each in kinds if each is not Ellipsis]
    any_length = Ellipsis in kinds

    def structure(value: object, _: object) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"{_short(value)} instead of a list")
        if any_length:
            return tuple(hooks[0](each, kinds[0]) for each in value)
        return tuple(hook(each, kind) for hook, each, kind in zip(hooks, value, kinds, strict=True))

    return structure


def _converter() -> BaseConverter:
    converter = Converter(detailed_validation=False)
    hooks = {str: _exactly(str), int: _exactly(int), bool: _exactly(bool), float: _number}
    for kind, hook in {**hooks, Lsn: _lsn}.items():
        converter.register_structure_hook(kind, hook)
    converter.register_structure_hook_factory(_is_tuple)(_tuple)
    converter.register_unstructure_hook(Lsn, str)
    converter.register_unstructure_hook(StrEnum, operator.attrgetter("value"))
    configure_tagged_union(
        Action, converter, tag_generator=operator.attrgetter("__name__"), tag_name=TAG
    )
    return converter


_CONVERTER: Final = _converter()
