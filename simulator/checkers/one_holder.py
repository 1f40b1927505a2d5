"""I1: at most one node ever holds a given term."""

from collections.abc import Iterator

from flightmode.model.policy import Policy
from simulator.checkers.judging import FORCED, Violation, changes_of_leader
from simulator.history import BecamePrimary, History


def one_holder_per_term(history: History, policy: Policy) -> Iterator[Violation]:
    """I1, and that only the leader's Postgres becomes a primary."""
    holders: dict[int, str] = {}
    for fact, new in changes_of_leader(history):
        holder = holders.setdefault(new.term, new.leader)
        if holder != new.leader:
            what = f"term {new.term} belongs to {holder} and to {new.leader}"
            yield Violation(fact.at_s, "I1", what)
    forced = _forced_at(history)
    yield from _one_writer_per_timeline(history, forced)
    for primary in history.of(BecamePrimary):
        leader = None if primary.state is None else primary.state.leader
        if leader != primary.node and not _before(forced, primary.at_s):
            what = f"{primary.node} became a primary while {leader} leads"
            yield Violation(primary.at_s, "I1", what)


def _one_writer_per_timeline(history: History, forced: list[float]) -> Iterator[Violation]:
    """Two histories of one name can't be told apart: nobody would know who has to be rewound."""
    writers: dict[int, str] = {}
    for primary in history.of(BecamePrimary):
        writer = writers.setdefault(primary.timeline, primary.node)
        if writer != primary.node and not _before(forced, primary.at_s):
            what = f"timeline {primary.timeline} was written by {writer}, and now by {primary.node}"
            yield Violation(primary.at_s, "I1", what)


def _forced_at(history: History) -> list[float]:
    return [fact.at_s for fact, new in changes_of_leader(history) if FORCED in new.reason]


def _before(times: list[float], at_s: float) -> bool:
    return any(each <= at_s for each in times)
