"""The flight recorder: every decision of weight, as a line of JSON.

A quiet node decides the same thing several times a second; of those only one in
`_QUIET_S` is kept.  Everything that changed something, failed, or followed another
rule than the one before is kept.  Writing happens in a thread of its own: a stalled
disk must not stall decisions, so what can't be written in time is dropped, and counted.
"""

import queue
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flightmode.agent.act import Done
from flightmode.model.action import ExtendFence, Publish, SwapState
from flightmode.model.decision import Decision
from flightmode.model.view import View
from flightmode.store import codec

_QUIET_S = 10.0
_FILE_BYTES = 16 << 20
_FILES = 4
_WAITING = 1000
_RECENT = 200
_CLOSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Record:
    """One decision: what was seen, what was decided, and what became of it."""

    view: View
    decision: Decision
    errors: tuple[str | None, ...]
    """One for each action that was tried, in order."""


class Journal(Protocol):
    """Where decisions are written down."""

    def write(self, view: View, decision: Decision, outcomes: tuple[Done, ...]) -> None:
        """Keep it, or not if it says nothing new.  Never blocks, never raises."""


class Silence:
    """Which decisions say nothing new."""

    def __init__(self) -> None:
        self._rule = ""
        self._kept_s = -1e9

    def hides(self, view: View, decision: Decision, outcomes: tuple[Done, ...]) -> bool:
        """Whether this one may be left out."""
        failed = any(done.error is not None for done in outcomes)
        quiet = all(_routine(done) for done in outcomes) and not failed
        recent = view.now_s - self._kept_s < _QUIET_S
        if quiet and recent and decision.rule == self._rule:
            return True
        self._rule, self._kept_s = decision.rule, view.now_s
        return False


def _routine(done: Done) -> bool:
    action = done.action
    renewal = isinstance(action, SwapState) and action.purpose == "renew"
    return renewal or isinstance(action, (Publish, ExtendFence))


class FileJournal:
    """`journal.jsonl` in the node's state directory, a few generations of it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._silence = Silence()
        self._queue: queue.Queue[Record | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self.dropped = 0
        """Records that could not be written, or not in time."""
        self._begun = False
        """Whether this process has written a line."""
        self.recent: deque[Record] = deque(maxlen=_RECENT)
        """The last ones, for whoever asks this process."""
        self._thread.start()

    @property
    def path(self) -> Path:
        return self._directory / "journal.jsonl"

    def write(self, view: View, decision: Decision, outcomes: tuple[Done, ...]) -> None:
        if self._silence.hides(view, decision, outcomes):
            return
        record = Record(view, decision, tuple(done.error for done in outcomes))
        self.recent.append(record)
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Write what waits, at most for two seconds."""
        with suppress(queue.Full):
            # Behind a disk that stands still nobody takes anything: what waits is lost.
            self._queue.put(None, timeout=_CLOSE_S)
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while (record := self._queue.get()) is not None:
            try:
                self._append(codec.dump(record))
            except OSError:
                self.dropped += 1

    def _append(self, line: bytes) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size > _FILE_BYTES:
            self._rotate()
        with self.path.open("ab") as file:
            # What an earlier life left may be torn: then this line must not share its fate.
            torn = not self._begun and file.tell() > 0
            file.write((b"\n" if torn else b"") + line + b"\n")
            self._begun = True

    def _rotate(self) -> None:
        for number in range(_FILES - 1, 0, -1):
            older = self.path.with_suffix(f".jsonl.{number}")
            if older.exists():
                older.replace(self.path.with_suffix(f".jsonl.{number + 1}"))
        self.path.replace(self.path.with_suffix(".jsonl.1"))
