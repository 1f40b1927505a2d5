"""Decide again over a journal, with today's code, and compare."""

import json
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
    """Line number and record, of each whole line.

    Left out are a torn last line, and what a power loss has made of lines that were not synced:
    the journal is for people, and nobody waits for the disk on its behalf.  Raises
    RecordUnreadable for a line of something else, and for a file with nothing but such damage.
    """
    damaged, whole = b"", False
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                continue
            if not _is_json(line):
                damaged = damaged or line
                continue
            whole = True
            yield number, codec.load(Record, line)
    if damaged and not whole:
        codec.load(Record, damaged)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def replay(path: Path) -> Iterator[Replayed]:
    """Every record of the journal, decided again."""
    for number, record in records(path):
        yield Replayed(number, record, decide(record.view))
