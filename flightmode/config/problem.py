"""One mistake in flightmode.toml, said so that it can be put right."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """Where, what was found, and what is allowed there."""

    path: str
    """Dotted, as in `timing.ttl_s`; empty: the whole file."""
    text: str
    line: int | None = None

    def __str__(self) -> str:
        where = "" if self.line is None else f" (line {self.line})"
        return f"{self.path or 'flightmode.toml'}{where}: {self.text}"
