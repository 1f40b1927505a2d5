"""A plugin of pytest: where PgBouncer's tests want its words, ours will do (words.toml).

What happens has to be the same: that an error comes, of which class, and when.  A test that was
given words of ours says so in its report, by a property `words`.
"""

import functools
import os
import re
import sys
import time
import tomllib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

TABLE = tomllib.loads(Path(__file__).with_name("words.toml").read_text())["words"]
LATE_S = 5.0
_runs: list[pytest.Item] = []


def widened(expected: str) -> tuple[str, str | None]:
    """An expression that ours fits too, and whose words it was given."""
    for pair in TABLE:
        # Theirs are regular expressions, in which a quote or a blank stands for itself.
        fits = expected == pair["theirs"] if pair.get("whole") else pair["theirs"] in expected
        if fits:
            there = expected.replace(pair["theirs"], f"(?:{pair['theirs']}|{pair['ours']})")
            return there, str(pair["theirs"])
    return expected, None


def _noted(expected: str) -> str:
    wide, theirs = widened(expected)
    if theirs is not None and _runs:
        _runs[-1].user_properties.append(("words", theirs))
    return wide


def _raises(real: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(real)
    def raises(*arguments: Any, **named: Any) -> Any:
        if isinstance(named.get("match"), str):
            named["match"] = _noted(named["match"])
        return real(*arguments, **named)

    return raises


def _log_contains(real: Callable[..., Any]) -> Callable[..., Any]:
    """Our log hears of a refusal after the client: it is waited for."""

    @contextmanager
    def log_contains(self: Any, re_string: str, times: int | None = None) -> Iterator[None]:
        wide = _noted(re_string)
        with self.log_path.open() as log:
            log.seek(0, os.SEEK_END)
            with real(self, wide, times):
                yield
                said, until_s = log.read(), time.monotonic() + LATE_S
                while len(re.findall(wide, said)) < (1 if times is None else times):
                    if time.monotonic() > until_s:
                        break  # They say what is missing.
                    time.sleep(0.02)
                    said += log.read()

    return log_contains


def pytest_configure() -> None:
    pytest.raises = _raises(pytest.raises)  # type: ignore[assignment]


def pytest_collection_finish() -> None:
    utils = sys.modules.get("test.utils")
    if utils is not None:
        utils.Bouncer.log_contains = _log_contains(utils.Bouncer.log_contains)  # type: ignore[attr-defined]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    _runs.append(item)
    try:
        return (yield)
    finally:
        _runs.pop()
