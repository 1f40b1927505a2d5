"""S10: a look waits for no file that does not answer.  A FIFO without a writer hangs as a disk."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flightmode.errors import DataUnreadable
from flightmode.postgres.disk import WITHIN_S, Disk


@pytest.fixture
def hanging(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


async def test_what_answers_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    assert await Disk().ask("a file", (tmp_path / "file").read_text) == "here"


async def test_what_hangs_is_left_and_not_asked_again_before_it_has_answered(
    hanging: Path,
) -> None:
    disk, asked = Disk(), []

    def read() -> str:
        asked.append(1)
        return hanging.read_text()

    began_s = time.monotonic()
    for _ in range(3):
        with pytest.raises(DataUnreadable):
            await disk.ask("a file", read)
    assert time.monotonic() - began_s < 2 * WITHIN_S
    assert len(asked) == 1
    assert await disk.ask("another", lambda: "there") == "there"

    await asyncio.to_thread(hanging.write_text, "late")
    answered = await _until_answered(disk, lambda: "now")
    assert answered == "now", "the late answer is of a question of before"


async def _until_answered(disk: Disk, call: Callable[[], str]) -> str:
    until_s = time.monotonic() + 5.0
    while True:
        try:
            return await disk.ask("a file", call)
        except DataUnreadable:
            assert time.monotonic() < until_s
            await asyncio.sleep(0.01)


async def test_what_goes_wrong_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await Disk().ask("a file", (tmp_path / "none").read_text)
