"""`./dev demo` as a person sees it who loses patience."""

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from flightmode.demo.killing import bearing
from flightmode.demo.loopback import MARK, tear_down
from flightmode.demo.record import Record, records
from tests.integration.live_cluster import needs_servers

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    needs_servers,
]


@dataclass
class Demo:
    """The program, and what it has said so far."""

    process: asyncio.subprocess.Process
    said: list[str] = field(default_factory=list)

    async def says(self, words: str, within_s: float = 120.0) -> str:
        """The next line with these words."""
        assert self.process.stdout is not None
        async with asyncio.timeout(within_s):
            while line := (await self.process.stdout.readline()).decode():
                self.said.append(line)
                if words in line:
                    return line
        raise AssertionError(f"it ended without {words!r}: {''.join(self.said)}")

    async def ends(self, within_s: float = 60.0) -> int:
        """Its exit status, and all it said."""
        assert self.process.stdout is not None
        async with asyncio.timeout(within_s):
            self.said.append((await self.process.stdout.read()).decode())
            return await self.process.wait()

    @property
    def record(self) -> Record | None:
        """What it wrote down of itself: the pid of whoever owns the run is its own."""
        return next((each for each in records() if each.owner[0] == self.process.pid), None)


@asynccontextmanager
async def demo(*words: str) -> AsyncIterator[Demo]:
    """Whatever happens in the test, nothing of the run is left."""
    argv = [sys.executable, "-m", "flightmode.demo", "--no-namespaces", "--clients=4", *words]
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=-1, stderr=asyncio.subprocess.STDOUT
    )
    running = Demo(process)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        if running.record is not None:
            tear_down(running.record)


async def test_a_demo_that_is_interrupted_leaves_nothing() -> None:
    async with demo() as running:
        told = await running.says("their files are in")
        directory = re.search(r"/var/tmp/\S+", told)
        assert directory is not None
        await running.says("planned switchover: ")
        record = running.record
        assert record is not None
        mark = f"{MARK}={record.run_id}/"
        assert Path(directory[0]).is_relative_to(record.scratch)
        assert bearing(mark), "or this test shows nothing"
        running.process.send_signal(signal.SIGINT)
        assert await running.ends() == 130
        assert running.said[-1].strip().endswith("interrupted; everything was removed")
        assert running.record is None
        assert not record.path.exists()
        assert not record.scratch.exists()
        assert bearing(mark) == set()


async def test_a_demo_that_takes_too_long_fails_and_leaves_nothing() -> None:
    async with demo("--longest=2") as running:
        told = await running.says("their files are in")
        directory = re.search(r"/var/tmp/\S+", told)
        assert directory is not None
        assert await running.ends() == 1
        assert "FM580: the demo did not end within 2 s" in running.said[-1]
        assert running.record is None
        assert not await asyncio.to_thread(Path(directory[0]).exists)


async def test_a_demo_that_is_kept_and_interrupted_says_that_it_is_there() -> None:
    async with demo("--keep") as running:
        await running.says("clients write through the proxy")
        running.process.send_signal(signal.SIGINT)
        assert await running.ends() == 130
        record = running.record
        assert record is not None
        assert record.kept
        told = re.search(r"status --config (\S+)", running.said[-1])
        assert told is not None
        assert Path(told[1]).is_relative_to(record.scratch)
        assert await asyncio.to_thread(Path(told[1]).exists)
        assert "removed" not in running.said[-1].replace("removes", "")
        assert bearing(f"{MARK}={record.run_id}/"), "its processes go on"
