"""What a nemesis is, and what it plays on."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from chaos.lab import ChaosLab
from flightmode.demo.cluster import WITNESS, DemoCluster

PRIMARY, STANDBY, WITNESS_ROLE, ALL = "primary", "standby", "witness", "all"
ANY = (PRIMARY, STANDBY, WITNESS_ROLE)
DATABASE = (PRIMARY, STANDBY)


@dataclass(frozen=True, slots=True)
class Scene:
    """One fault: where it strikes, and its own dice."""

    cluster: DemoCluster
    lab: ChaosLab
    role: str
    primary: str
    standby: str
    dice: random.Random
    memory: dict[str, Any] = field(default_factory=dict)
    """What `begin` leaves for `heal`."""

    @property
    def node(self) -> str:
        """The host that it strikes; for all of them, and for people, the primary's."""
        return {STANDBY: self.standby, WITNESS_ROLE: WITNESS}.get(self.role, self.primary)

    @property
    def others(self) -> tuple[str, ...]:
        """The two nodes that it does not strike."""
        return tuple(n for n in (self.primary, self.standby, WITNESS) if n != self.node)


Begin = Callable[[Scene], Awaitable[str]]
"""Does the harm; returns a remark."""
Heal = Callable[[Scene], Awaitable[None]]
"""Undoes it; may be repeated.  The run starts again what died, as systemd would."""


@dataclass(frozen=True, slots=True)
class Nemesis:
    """A kind of fault."""

    name: str
    roles: tuple[str, ...]
    """Where it may strike."""
    begin: Begin
    heal: Heal
    live: tuple[str, ...]
    """Where it leaves two of three hosts and their links healthy: there commits have to go on
    while it lasts (I9)."""


async def nothing(_scene: Scene) -> None:
    """For faults that end by themselves."""
