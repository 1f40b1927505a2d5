"""What a rehearsal needs of its hosts: to be started, cut off, and switched off.

Two implementations: `namespaces.NamespaceLab` (root; a network namespace and a cgroup a host)
and `loopback.LoopbackLab` (anybody; addresses 127.x.y.z, and no way to cut a cable).
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self


@dataclass(frozen=True, slots=True)
class Host:
    """A machine of the lab: its name, and the IPv4 address that the others know it by."""

    name: str
    address: str


class Lab(Protocol):
    """Hosts on one machine.  Opened with `async with`; leaving it removes every trace.

    All verbs may be repeated.  They raise RehearsalFailed when the machine refuses.
    """

    @property
    def hosts(self) -> Mapping[str, Host]:
        """The hosts by name."""
        ...

    @property
    def scratch(self) -> Path:
        """An empty directory of this run, that every user of the machine may enter."""
        ...

    @property
    def partitions(self) -> bool:
        """Whether cables can be cut here; if not, the verbs about them raise."""
        ...

    def prefix(self, host: str) -> list[str]:
        """What to put before a command's argv, so that it runs on `host` and belongs to it."""
        ...

    async def spawn(
        self, host: str, argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None
    ) -> asyncio.subprocess.Process:
        """Start a program on `host`, in a session of its own, its output appended to `log`."""
        ...

    async def cut(self, host: str) -> None:
        """Drop all packets from and to `host`, both ways at one instant, without a word."""
        ...

    async def heal(self, host: str) -> None:
        """Undo `cut`."""
        ...

    async def cut_between(self, one: str, other: str) -> None:
        """Drop all packets between two hosts, both ways at one instant."""
        ...

    async def heal_between(self, one: str, other: str) -> None:
        """Undo `cut_between`."""
        ...

    async def power_loss(self, host: str) -> None:
        """Switch `host` off: its cable falls silent, then everything on it dies at once.

        The disk stays as it was.  Nothing is left of the host's processes when this returns.
        """
        ...

    async def power_on(self, host: str) -> None:
        """Give `host` its cable back.  Its programs have to be started again."""
        ...

    def keep(self) -> None:
        """Leave everything as it is at the end; `./dev clean` removes it later."""
        ...

    def close(self) -> None:
        """Kill and remove whatever this run made.  Never raises for what is already gone."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
