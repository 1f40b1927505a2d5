"""A real fence for a test, started and ended by it, with what it needs around it.

    async with FenceProcess() as fence:
        await fence.client.status()

As root, what it starts runs as user `postgres`; else as ourselves.
"""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from flightmode.errors import FenceUnreachable
from flightmode.fence.client import FenceClient

ROOT = Path(__file__).parents[2]
ENDS_S = 15.0


def binary() -> str:
    """The newest of what was installed beside this Python and what cargo built."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    places = [Path(sys.executable).parent, target / "release", target / "debug"]
    found = [path / "flightmode-fence" for path in places if (path / "flightmode-fence").exists()]
    assert found, "flightmode-fence is not built: ./dev setup"
    return str(max(found, key=lambda path: path.stat().st_mtime))


def postgres_user() -> pwd.struct_passwd:
    """Whom Postgres runs as here."""
    return pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())


def boottime_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def proc(pid: int, name: str) -> str:
    """What the kernel says of a process."""
    return Path(f"/proc/{pid}/{name}").read_text()


async def eventually(what: str, holds: Callable[[], Awaitable[Any]], within_s: float = 10.0) -> Any:
    """Poll `holds` until it is true, and return what it said."""
    try:
        async with asyncio.timeout(within_s):
            while not (found := await holds()):  # noqa: ASYNC110 - processes have no event for us
                await asyncio.sleep(0.005)
            return found
    except TimeoutError:
        raise AssertionError(f"not within {within_s} s: {what}") from None


@dataclass(frozen=True, slots=True)
class Program:
    """Something to start through the fence."""

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    uid: int
    gid: int
    directory: Path
    log: Path


class FenceProcess:
    """The fence, in a home that its user can enter, and a client for it."""

    def __init__(self, *options: str, environment: Mapping[str, str] | None = None) -> None:
        self.user = postgres_user()
        self.home = Path(tempfile.mkdtemp(prefix="fence-test-"))
        self.home.chmod(0o755)
        self.work = self.home / "work"
        self.work.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(self.work, self.user.pw_uid, self.user.pw_gid)
        self.socket = self.home / "fence.sock"
        self.client = FenceClient(self.socket)
        self._options = options
        self._environment = {**os.environ, **(environment or {})}
        self._processes: list[subprocess.Popen[bytes]] = []

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def start(self) -> None:
        """Start it (again) and wait until it answers."""
        argv = [binary(), "--socket", str(self.socket), "--node", "ams", "--log-level", "debug"]
        if os.geteuid() == 0:
            argv += ["--postgres-uid", str(self.user.pw_uid)]
        self._spawn([*argv, *self._options])
        await eventually("the fence answers", self._answers)

    def _spawn(self, argv: list[str]) -> None:
        with (self.home / "fence.log").open("ab") as log:
            started = subprocess.Popen(
                argv, env=self._environment, stderr=log, stdin=subprocess.DEVNULL
            )
        self._processes.append(started)

    async def _answers(self) -> bool:
        assert self._processes[-1].poll() is None, self.words()
        try:
            return (await self.client.status()).reachable
        except FenceUnreachable:
            return False

    @property
    def pid(self) -> int:
        return self._processes[-1].pid

    def words(self) -> str:
        """What it has logged."""
        return (self.home / "fence.log").read_text()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill_child(self, pid: int | None) -> None:
        """SIGKILL for one of its own children."""
        (child,) = [each for each in psutil.Process(self.pid).children() if each.pid == pid]
        child.kill()

    def wait(self) -> int:
        """Until it has ended; its exit status."""
        return self._processes[-1].wait(ENDS_S)

    def program(self, *argv: str) -> Program:
        """A command with the right user and places."""
        environment = (("PATH", os.environ["PATH"]), ("LC_ALL", "C.UTF-8"))
        user, log = self.user, self.work / "postgres.log"
        return Program(argv, environment, user.pw_uid, user.pw_gid, self.work, log)

    def close(self) -> None:
        """End every fence of ours, and everything below them."""
        try:
            for process in self._processes:
                below = _below(process.pid)
                if process.poll() is None:
                    process.send_signal(signal.SIGCONT)
                    process.kill()
                    process.wait(ENDS_S)
                for child in below:
                    _kill(child)
        finally:
            shutil.rmtree(self.home, ignore_errors=True)


def _below(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _kill(process: psutil.Process) -> None:
    # psutil compares start times: it never kills a later process with the same pid.
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
