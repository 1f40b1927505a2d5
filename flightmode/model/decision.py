"""What was decided, and why."""

from dataclasses import dataclass

from flightmode.model.action import Action
from flightmode.model.memory import Memory


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer of `decide`."""

    rule: str
    """The situation's name, stable: "leading: renew", "following: claim", …"""
    why: str
    """One sentence for a person at 3 a.m."""
    actions: tuple[Action, ...]
    """In this order; when one fails, the ones after it are left out."""
    memory: Memory
    wake_s: float
    """Look again after so long even when nothing happens."""
    problem: str | None = None
    """`CODE: text` when a person is needed."""
