"""Hosts as addresses of the loopback network, for those who are not root.

Each host has an address of 127.0.0.0/8, which Linux answers without being told to, and its own
processes, known by a mark in their environment.  Power can be lost; cables cannot be cut, for
there are none.
"""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from flightmode.demo.killing import bearing, kill_until_none
from flightmode.demo.lab import Host
from flightmode.demo.record import Record
from flightmode.demo.spawning import spawn
from flightmode.errors import RehearsalFailed

MARK = "FLIGHTMODE_LAB"


class LoopbackLab:
    """A lab without root and without partitions (see the port, `lab.Lab`)."""

    partitions = False

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)

    @property
    def hosts(self) -> Mapping[str, Host]:
        return MappingProxyType(self._hosts)

    @property
    def scratch(self) -> Path:
        return self._record.scratch

    async def __aenter__(self) -> Self:
        self._record = Record.claim("loopback")
        number = self._record.number
        # 127.0 is left alone: other programs of this machine listen there.
        net = f"127.{18 + number // 256}.{number % 256}"
        self._hosts = {name: Host(name, f"{net}.{1 + at}") for at, name in enumerate(self._names)}
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def prefix(self, host: str) -> list[str]:
        return ["env", f"{MARK}={self._record.run_id}/{host}"]

    async def spawn(
        self, host: str, argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None
    ) -> asyncio.subprocess.Process:
        return await spawn([*self.prefix(host), *argv], log=log, env=env)

    async def cut(self, host: str) -> None:
        raise no_cables()

    async def heal(self, host: str) -> None:
        raise no_cables()

    async def cut_between(self, one: str, other: str) -> None:
        raise no_cables()

    async def heal_between(self, one: str, other: str) -> None:
        raise no_cables()

    async def power_loss(self, host: str) -> None:
        mark = f"{MARK}={self._record.run_id}/{host}\0"
        await asyncio.to_thread(kill_until_none, partial(bearing, mark))

    async def power_on(self, host: str) -> None:
        """Nothing to do: there is no cable to plug in."""

    def keep(self) -> None:
        self._record.kept = True
        self._record.save()

    def close(self) -> None:
        if not self._record.kept:
            tear_down(self._record)


def no_cables() -> RehearsalFailed:
    """The answer to every verb about cables."""
    return RehearsalFailed("a lab on loopback has no cables to cut", hint="sudo ./dev demo")


def tear_down(record: Record) -> None:
    """Kill what a run started and all that descends from it, and remove its files."""
    kill_until_none(partial(bearing, f"{MARK}={record.run_id}/"))
    record.erase()
