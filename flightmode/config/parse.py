"""Text -> `Config`, or every mistake in it at once."""

import datetime
import json
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path as FilePath
from typing import Any

import tomlkit
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from tomlkit.exceptions import TOMLKitError

from flightmode.config.check import problems_of
from flightmode.config.lines import Path, line_numbers, line_of
from flightmode.config.problem import Problem
from flightmode.config.schema import Config
from flightmode.config.words import allowed, field_at, keys_at
from flightmode.errors import ConfigInvalid


def parse(text: str, *, base: FilePath | None = None, name: str = "flightmode.toml") -> Config:
    """The settings; relative paths count from `base`.  Raises ConfigInvalid with all mistakes."""
    try:
        data = tomlkit.parse(text).unwrap()
    except (TOMLKitError, ValueError, RecursionError) as wrong:
        raise _invalid(name, [Problem("", f"not TOML: {wrong}")]) from None
    numbers = line_numbers(text)
    try:
        config = Config.model_validate_json(
            json.dumps(data, default=_as_text), context={"base": base}
        )
    except ValidationError as wrong:
        details = wrong.errors(include_url=False)
        raise _invalid(name, [_problem(each, numbers) for each in details]) from None
    problems = [
        Problem(each.path, each.text, line_of(numbers, tuple(each.path.split("."))))
        for each in problems_of(config)
    ]
    if problems:
        raise _invalid(name, problems)
    return config


def _as_text(value: object) -> str:
    """Dates and times exist in TOML; no setting of ours is one."""
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    raise TypeError(type(value).__name__)


def _invalid(name: str, problems: Iterable[Problem]) -> ConfigInvalid:
    ordered = sorted(problems, key=lambda each: (each.line or 0, each.path))
    told = tuple(dict.fromkeys(str(each) for each in ordered))
    return ConfigInvalid(name, told, hint=f"sensible-editor {name}")


def _problem(detail: ErrorDetails, numbers: dict[Path, int]) -> Problem:
    path = _named_only(detail["loc"])
    line = line_of(numbers, path)
    dotted = ".".join(map(str, path))
    if detail["type"] == "extra_forbidden":
        return Problem(dotted, f"unknown key{_nearest(path)}", line)
    if detail["type"] == "missing":
        return Problem(dotted, f"missing; it must be {allowed(field_at(path))}", line)
    found = _found(detail["input"])
    return Problem(dotted, f"found {found}, must be {allowed(field_at(path))}", line)


def _named_only(location: Path) -> Path:
    """Without the names of union branches, which pydantic puts at the end for `parameters`."""
    if location[:2] == ("postgres", "parameters"):
        return location[:3]
    return location


def _nearest(path: Path) -> str:
    known = keys_at(path[:-1])
    close = get_close_matches(str(path[-1]), known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {'.'.join(map(str, (*path[:-1], close[0])))}?"
    return f"; known here: {', '.join(known)}"


def _found(value: Any) -> str:
    if isinstance(value, dict):
        return "a table"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]}…"
