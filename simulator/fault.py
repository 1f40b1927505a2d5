"""One thing that goes wrong, and how such things begin and end."""

from collections.abc import Callable
from dataclasses import dataclass

from simulator.world import DATABASES, World


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong at `at_s`, and lasts for `lasts_s`."""

    at_s: float
    kind: str
    node: str = ""
    """A node, or "leader" or "standby": whoever it is in that moment."""
    lasts_s: float = 0.0
    other: str = ""
    amount: float = 0.0

    def __str__(self) -> str:
        words = [self.kind, self.node, self.other]
        lasting = f" for {self.lasts_s:.1f} s" if self.lasts_s else ""
        amount = f" ({self.amount:+.2f})" if self.amount else ""
        return " ".join(word for word in words if word) + amount + lasting


class Undoing:
    """Lets faults happen, each by the method of its name, and undoes them after their time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._undo: list[Callable[[], object]] = []

    def plan(self, faults: tuple[Fault, ...]) -> None:
        loop = self._world.loop
        for fault in faults:
            loop.call_later(max(0.0, fault.at_s - loop.time()), self.happen, fault)

    def happen(self, fault: Fault) -> None:
        node = self.who(fault.node)
        self._world.tell("FAULT", str(fault).replace(fault.node, node) if node else str(fault))
        act = getattr(self, f"_{fault.kind.replace(' ', '_')}")
        act(fault, node)

    def who(self, name: str) -> str:
        world = self._world
        leader = DATABASES[0] if world.state is None else world.state.leader
        return {"leader": leader, "standby": self._standby_of(leader)}.get(name, name)

    def _standby_of(self, leader: str) -> str:
        """Of two the one that counts."""
        state = self._world.state
        counted = () if state is None else state.sync
        return next(each for each in (*counted, *self._world.policy.databases) if each != leader)

    def _for(self, fault: Fault, undo: Callable[[], object]) -> None:
        """Undo it after its time, or at the healing."""

        def once() -> None:
            if once in self._undo:
                self._undo.remove(once)
                undo()

        self._undo.append(once)
        if fault.lasts_s:
            self._world.loop.call_later(fault.lasts_s, once)

    def _soon(self, delay_s: float, fault: Fault) -> None:
        """What follows from another fault; not after the healing."""
        self._undo.append(self._world.loop.call_later(delay_s, self.happen, fault).cancel)
