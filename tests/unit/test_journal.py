"""The journal's writer: no disk stops decisions, and what is not written is counted."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from flightmode.agent.journal import FileJournal
from flightmode.decide import decide
from tests.unit.sights import view


def until(holds: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline_s, f"waited for {what}"
        time.sleep(0.005)


def write(journal: FileJournal, rule: str) -> None:
    """A record that follows another rule than the one before is always kept."""
    journal.write(view(), replace(decide(view()), rule=rule), ())


def test_a_directory_that_cannot_be_made_is_tried_again_for_each_record(tmp_path: Path) -> None:
    in_the_way = tmp_path / "state"
    in_the_way.write_text("a file")
    journal = FileJournal(in_the_way / "of-ams")
    write(journal, "one")
    until(lambda: journal.dropped == 1, "the first record to be given up")
    in_the_way.unlink()
    write(journal, "two")
    until(lambda: journal.path.exists() and b"two" in journal.path.read_bytes(), "the second")
    assert journal.dropped == 1
    assert [each.decision.rule for each in journal.recent] == ["one", "two"]
    journal.close()


def test_a_disk_that_stands_still_holds_up_neither_decisions_nor_the_end(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path)
    # Whoever opens a pipe that nobody reads waits, as for a dead disk.
    os.mkfifo(journal.path)
    began_s = time.monotonic()
    for number in range(1200):
        write(journal, str(number))
    assert journal.dropped >= 190
    journal.close()
    assert time.monotonic() - began_s < 30
    reading = os.open(journal.path, os.O_RDONLY | os.O_NONBLOCK)
    journal.path.unlink()
    until(lambda: journal.path.is_file() and journal.path.stat().st_size > 0, "it to go on")
    os.close(reading)
