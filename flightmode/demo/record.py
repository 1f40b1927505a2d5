"""What a run made, written down before it is made, so that a later run can remove it.

A run that is killed with SIGKILL cannot clean up.  Its record says who it was (pid and start
time: a bare pid is soon somebody else's) and how its things are named; all names follow from the
run's number, so that no record can make a sweep touch what is not ours.
"""

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from flightmode.demo.killing import started_ticks
from flightmode.errors import RehearsalFailed

RUNS = 512
"""How many runs may live at once: each has a subnet of its own."""


def records_dir() -> Path:
    """Where the records of this user's runs are; emptied by a reboot, as namespaces are."""
    if os.geteuid() == 0:
        return Path("/run/flightmode-lab")
    return Path(tempfile.gettempdir()) / f"flightmode-lab-{os.geteuid()}"


@dataclass(slots=True)
class Record:
    """One run of a lab, as its file tells it."""

    number: int
    kind: str
    owner: tuple[int, int]
    kept: bool = False
    hosts: tuple[str, ...] = ()

    @property
    def run_id(self) -> str:
        """The run's short name, the first part of every name it gives."""
        return f"fm{self.number:03x}"

    @property
    def path(self) -> Path:
        """The record's own file."""
        return records_dir() / f"{self.run_id}.json"

    @property
    def scratch(self) -> Path:
        """The run's directory: on a real disk, where a fsync costs what it costs."""
        return Path("/var/tmp") / f"flightmode-{self.run_id}-{os.geteuid()}"

    @property
    def dead(self) -> bool:
        """Whether the process that made the run is gone."""
        pid, ticks = self.owner
        return started_ticks(pid) != ticks

    @classmethod
    def claim(cls, kind: str) -> Self:
        """Take a free number.  O_EXCL: two runs that start together get different ones."""
        records_dir().mkdir(mode=0o700, parents=True, exist_ok=True)
        me = os.getpid()
        for step in range(RUNS):
            record = cls((me + step) % RUNS, kind, (me, started_ticks(me) or 0))
            try:
                os.close(os.open(record.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            except FileExistsError:
                continue
            record.save()
            record.scratch.mkdir(mode=0o755)
            return record
        raise RehearsalFailed(f"all {RUNS} numbers for runs are taken in {records_dir()}")

    def save(self) -> None:
        """Write the file anew, in one step: a sweep never reads half of it."""
        whole = {
            "number": self.number,
            "kind": self.kind,
            "owner": list(self.owner),
            "kept": self.kept,
            "hosts": list(self.hosts),
        }
        draft = self.path.with_suffix(".new")
        draft.write_text(json.dumps(whole))
        draft.replace(self.path)

    def erase(self) -> None:
        """Forget the run, its directory first: a record outlives what it tells of."""
        if self.scratch.exists():
            shutil.rmtree(self.scratch)
        self.path.unlink(missing_ok=True)


def load(path: Path) -> Record | None:
    """Read a record; None when its run had not yet written it, or just erased it."""
    try:
        whole = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    pid, ticks = whole["owner"]
    return Record(
        number=whole["number"],
        kind=whole["kind"],
        owner=(pid, ticks),
        kept=whole["kept"],
        hosts=tuple(whole["hosts"]),
    )


def records() -> list[Record]:
    """Every run that left a record, living and dead."""
    found = (load(path) for path in sorted(records_dir().glob("fm*.json")))
    return [record for record in found if record is not None]
