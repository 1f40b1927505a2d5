"""On which line of a TOML text a setting stands.

TOML parsers give values without positions, so each line that could be a table's
header or a key is parsed by itself.  A line inside a multi-line string may fool
this; the number is a help for the eye and nothing depends on it.
"""

import tomllib
from typing import Any

Path = tuple[str | int, ...]


def line_numbers(text: str) -> dict[Path, int]:
    """The first line of every table and key, counted from 1."""
    numbers: dict[Path, int] = {}
    table: Path = ()
    arrays: dict[Path, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if stripped.startswith("["):
            header = _path_of(stripped)
            if not header:
                continue
            table = header
            if stripped.startswith("[["):
                index = arrays[header] = arrays.get(header, -1) + 1
                table = (*header, index)
            numbers.setdefault(table, number)
        elif "=" in stripped and not stripped.startswith("#"):
            key = _path_of(f"{stripped.partition('=')[0]} = 0")
            if key:
                numbers.setdefault((*table, *key), number)
    return numbers


def line_of(numbers: dict[Path, int], path: Path) -> int | None:
    """The line of that setting, else of the nearest table around it."""
    for length in range(len(path), 0, -1):
        if path[:length] in numbers:
            return numbers[path[:length]]
    return None


def _path_of(fragment: str) -> Path:
    """The keys that a fragment of TOML names, outermost first; empty: it is not TOML."""
    try:
        value: Any = tomllib.loads(fragment)
    except tomllib.TOMLDecodeError:
        return ()
    path: list[str | int] = []
    while isinstance(value, (dict, list)) and value:
        if isinstance(value, list):
            value = value[0]
            continue
        key = next(iter(value))
        path.append(key)
        value = value[key]
    return tuple(path)
