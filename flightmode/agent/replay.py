"""Decide again over a journal, with today's code, and compare."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flightmode.agent.journal import Record
from flightmode.decide import decide
from flightmode.model.decision import Decision
from flightmode.store import codec


@dataclass(frozen=True, slots=True)
class Replayed:
    """One record, and what would be decided now."""

    line: int
    record: Record
    now: Decision

    @property
    def same(self) -> bool:
        """Whether today's code would do the same (the words may differ)."""
        then = self.record.decision
        return (then.rule, then.actions) == (self.now.rule, self.now.actions)


def records(path: Path) -> Iterator[tuple[int, Record]]:
    """Line number and record, of each whole line; a torn last line is left out."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n"):
                yield number, codec.load(Record, line)


def replay(path: Path) -> Iterator[Replayed]:
    """Every record of the journal, decided again."""
    for number, record in records(path):
        yield Replayed(number, record, decide(record.view))
