"""Our own code does not break."""

from collections.abc import Iterator

from flightmode.model.policy import Policy
from simulator.checkers.judging import Violation
from simulator.history import Broke, History


def nothing_of_ours_breaks(history: History, policy: Policy) -> Iterator[Violation]:
    """An assertion, or an error that nobody foresaw."""
    for fact in history.of(Broke):
        yield Violation(fact.at_s, "bug", f"{fact.node}: {fact.what}")
