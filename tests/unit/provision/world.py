"""A cluster and its machines as commands that change machines see them: a second `Ways`."""

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from flightmode.cli.asking import Asking
from flightmode.cli.options import Place
from flightmode.errors import HostUnreachable, RequestRefused, RequestWrong
from flightmode.model.member import NodeKind
from flightmode.provision.rejoin import HELD, moved
from flightmode.provision.wanted import File, Wanted
from flightmode.remote.port import Ran, Remote
from flightmode.store.etcd_members import EtcdMembers
from tests.unit.provision.test_rejoin import Members, three


class Cut(Exception):
    """Whoever typed the command pressed Ctrl-C here."""


@dataclass
class World:
    """What happened is in `told`; `when` hears each of it, and may change or end things."""

    writes: str | None = "ams"
    alive: set[str] = field(default_factory=lambda: {"ams", "fra", "wit"})
    members: Members = field(default_factory=three)
    debian: dict[str, str] = field(default_factory=dict)
    """Address -> version, where it is not 12."""
    held: dict[str, str] = field(default_factory=dict)
    """What a machine says of etcd's data there."""
    away: set[str] = field(default_factory=set)
    told: list[str] = field(default_factory=list)
    when: Callable[[str], None] = lambda _: None

    def note(self, event: str) -> None:
        self.told.append(event)
        self.when(event)

    def cut_at(self, event: str) -> None:
        def cut(noted: str) -> None:
            if noted == event:
                self.when = lambda _: None
                raise Cut

        self.when = cut

    def started(self, name: str, number: int) -> None:
        """The member that was announced under that number."""
        self.members.known = tuple(
            replace(each, name=name) if each.id == number else each for each in self.members.known
        )

    def _standbys(self, here: Place) -> list[str]:
        nodes = here.config.nodes.items()
        databases = [name for name, each in nodes if each.kind is NodeKind.DATABASE]
        return [name for name in databases if name in self.alive and name != self.writes]

    async def status(self, here: Place) -> dict[str, Any]:
        standbys = self._standbys(here)
        nodes = [
            {"name": name, "heard": name in self.alive, "streaming": name in standbys}
            for name in here.config.nodes
        ]
        route = f"{self.writes} takes writes"
        state = {"sync": standbys[:1]}
        return {"writes": self.writes, "route": route, "nodes": nodes, "state": state}

    async def ask(self, here: Place, wish: Asking) -> None:
        if wish.path == "/switchover":
            standbys = self._standbys(here)
            if not standbys:
                raise RequestRefused("no standby holds every acknowledged commit now")
            self.writes = standbys[0]
            self.note(f"{self.writes} leads")

    async def nobody_has_moved(self, here: Place) -> None:
        found = moved(self.members.known, here.config)
        if found:
            raise RequestWrong("; ".join(found.values()))

    @asynccontextmanager
    async def etcd(self, here: Place, through: Sequence[str]) -> AsyncIterator[EtcdMembers]:
        self.when("etcd is asked")
        before = self.members.known
        yield self.members.calls
        if self.members.known != before:
            self.note("etcd's members change")

    @asynccontextmanager
    async def remotes(
        self, here: Place, hosts: Sequence[Wanted]
    ) -> AsyncIterator[Mapping[str, Remote]]:
        for host in hosts:
            if host.name in self.away:
                raise HostUnreachable(f"{host.name} ({host.host}) does not answer")
        yield {host.name: Machine(self, host) for host in hosts}

    async def bring(
        self,
        here: Place,
        names: list[str],
        *,
        extra: Mapping[str, tuple[File, ...]],
        wait_s: float,
        json: bool,
    ) -> None:
        self.note(f"bring {' '.join(names)}")
        for name, files in extra.items():
            self.held[name] = files[0].content.decode()
        self.alive |= set(here.config.nodes)


@dataclass
class Machine:
    """Bare, and everything succeeds there."""

    world: World
    host: Wanted

    async def run(
        self, command: str, *, stdin: bytes | None = None, within_s: float = 600.0
    ) -> Ran:
        name = self.host.name
        if command == HELD:
            return Ran(0, self.world.held.get(name, ""), "")
        if "fsync" in command:
            version = self.world.debian.get(self.host.host, "12")
            looked = f"os debian {version}\nmachine x86_64\nfree 9000\nfsync 1000\n"
            return Ran(0, f"{looked}clock {time.time()}\nend\n", "")
        if "does not stop" in command:
            self.world.note(f"{name} is taken off")
            self.world.alive.discard(name)
        return Ran(0, "", "")

    async def put(self, path: str, content: bytes, *, mode: int, owner: str) -> None:
        if path.endswith("/flightmode.toml"):
            self.world.note(f"{self.host.name} hears of it")

    async def close(self) -> None:
        """Nothing to let go of."""
