"""I2, I3, S8: what clients were told or shown is in the history of every later leader."""

from collections.abc import Iterator

from flightmode.model.cluster import ClusterState
from flightmode.model.policy import Policy
from simulator.checkers.judging import FORCED, Violation
from simulator.history import (
    Acknowledged,
    BecamePrimary,
    History,
    PermissionEnded,
    Seen,
    Standing,
    StateChanged,
)


def nothing_acknowledged_is_lost(history: History, policy: Policy) -> Iterator[Violation]:
    """I2, I3, S8: what clients were told or shown is in every later leader's WAL.

    A person who forces a failover accepts what the leader of before tells clients until it hears of
    that, in however many later terms: it may be cut off and alone (docs/guarantees.md).
    """
    kept: dict[int, str] = {}
    claimed: StateChanged | None = None
    forced = False
    overruled: set[str] = set()
    for fact in history.facts:
        match fact:
            case StateChanged(new=ClusterState(reason=reason)) if fact.holds is not None:
                claimed, forced = fact, FORCED in reason
                if forced and fact.old is not None:
                    overruled.add(fact.old.leader)
                if forced:
                    kept = {row: how for row, how in kept.items() if row in fact.holds}
            case Acknowledged() | Seen():
                how = "acknowledged" if isinstance(fact, Acknowledged) else "shown"
                if (forced or fact.node in overruled) and not _of_leader(fact.node, claimed):
                    continue
                yield from _too_late(fact, how, claimed)
                kept[fact.row] = f"{how} by {fact.node} at {fact.at_s:.3f}"
            case PermissionEnded(primary=True):
                overruled.discard(fact.node)
            case BecamePrimary():
                overruled.discard(fact.node)
                yield from _missing(fact.at_s, fact.node, kept, fact.holds)
            case Standing(state=ClusterState(leader=leader)) if leader == fact.node:
                yield from _missing(fact.at_s, fact.node, kept, fact.holds)
            case _:
                pass


def _of_leader(node: str, claimed: StateChanged | None) -> bool:
    return claimed is None or claimed.new is None or claimed.new.leader == node


def _too_late(
    fact: Acknowledged | Seen, how: str, claimed: StateChanged | None
) -> Iterator[Violation]:
    """Of another node than the leader, and not among what that held when it took over."""
    if _of_leader(fact.node, claimed) or claimed is None or claimed.holds is None:
        return
    if fact.row not in claimed.holds:
        what = f"row {fact.row} was {how} by {fact.node} after {claimed.node} took over"
        yield Violation(fact.at_s, "I3", what)


def _missing(
    at_s: float, node: str, kept: dict[int, str], holds: frozenset[int]
) -> Iterator[Violation]:
    lost = sorted(set(kept) - holds)
    if lost:
        what = f"{node} leads without {len(lost)} rows, first {lost[0]} ({kept[lost[0]]})"
        invariant = "I2" if any("acknowledged" in kept[row] for row in lost) else "S8"
        yield Violation(at_s, invariant, what)
