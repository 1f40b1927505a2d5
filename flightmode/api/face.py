"""What the API needs of the agent beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from flightmode.decide.words import in_words
from flightmode.model.decision import Decision
from flightmode.model.view import View


@dataclass(frozen=True, slots=True)
class Told:
    """One decision in words."""

    wall_s: float
    rule: str
    why: str
    problem: str | None
    did: tuple[str, ...]
    """What was to be done, in order; what failed ends with its error."""


def told(wall_s: float, decision: Decision, errors: Sequence[str | None] = ()) -> Told:
    """A decision in words.  `errors`: one for each action that was tried."""
    tried = [*errors, *[None] * len(decision.actions)]
    did = tuple(
        in_words(action) if error is None else f"{in_words(action)}: FAILED: {error}"
        for action, error in zip(decision.actions, tried, strict=False)
    )
    return Told(wall_s, decision.rule, decision.why, decision.problem, did)


class AgentFace(Protocol):
    """The running agent, read only.  Every member answers at once, from memory."""

    @property
    def view(self) -> View | None:
        """The last moment it looked at; None: it has not looked yet."""

    @property
    def decision(self) -> Decision | None:
        """What it decided then."""

    def now_s(self) -> float:
        """CLOCK_BOOTTIME, as in `View.now_s`: their difference says whether the loop lives."""

    def wall_s(self) -> float:
        """Unix time."""

    @property
    def dropped(self) -> int:
        """Records of its journal that could not be written."""

    def told(self, count: int) -> Sequence[Told]:
        """The last `count` decisions of weight, oldest first."""
