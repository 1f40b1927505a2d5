"""What must never happen, judged over the history of a run: one function per invariant.

They know nothing of the simulator and trust no node's word: only what etcd carried out,
what Postgres had on disk, what clients were told.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest

from flightmode.model.cluster import ClusterState, Mode
from flightmode.model.policy import Policy
from simulator.history import (
    UNTOLD,
    Acknowledged,
    BecamePrimary,
    Broke,
    Discarded,
    Extended,
    Healed,
    History,
    Looked,
    PermissionEnded,
    Seen,
    Standing,
    StateChanged,
    StateKnown,
)
from simulator.host import WALL_S

_FORCED = "accepted a loss of data"
_SILENT = "has been silent"
_WRITABLE_WITHIN_S = 30.0
_SYNCED_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise was broken."""

    at_s: float
    invariant: str
    what: str


Checker = Callable[[History, Policy], Iterator[Violation]]


def judge(history: History, policy: Policy) -> list[Violation]:
    """Everything that was broken, in the order of time."""
    found = [violation for check in ALL for violation in check(history, policy)]
    return sorted(found, key=lambda violation: violation.at_s)


def _changes_of_leader(history: History) -> Iterator[tuple[StateChanged, ClusterState]]:
    for fact in history.of(StateChanged):
        old, new = fact.old, fact.new
        if new is not None and (old is None or (old.leader, old.term) != (new.leader, new.term)):
            yield fact, new


def one_holder_per_term(history: History, policy: Policy) -> Iterator[Violation]:
    """I1, and that only the leader's Postgres becomes a primary."""
    holders: dict[int, str] = {}
    for fact, new in _changes_of_leader(history):
        holder = holders.setdefault(new.term, new.leader)
        if holder != new.leader:
            what = f"term {new.term} belongs to {holder} and to {new.leader}"
            yield Violation(fact.at_s, "I1", what)
    forced = _forced_at(history)
    for primary in history.of(BecamePrimary):
        leader = None if primary.state is None else primary.state.leader
        if leader != primary.node and not _before(forced, primary.at_s):
            what = f"{primary.node} became a primary while {leader} leads"
            yield Violation(primary.at_s, "I1", what)


def _forced_at(history: History) -> list[float]:
    return [fact.at_s for fact, new in _changes_of_leader(history) if _FORCED in new.reason]


def _before(times: list[float], at_s: float) -> bool:
    return any(each <= at_s for each in times)


def nothing_acknowledged_is_lost(history: History, policy: Policy) -> Iterator[Violation]:
    """I2, I3, S8: what clients were told or shown is in every later leader's WAL."""
    kept: dict[int, str] = {}
    claimed: StateChanged | None = None
    forced = False
    for fact in history.facts:
        match fact:
            case StateChanged(new=ClusterState(reason=reason)) if fact.holds is not None:
                claimed, forced = fact, _FORCED in reason
                if forced:
                    kept = {row: how for row, how in kept.items() if row in fact.holds}
            case Acknowledged() | Seen():
                how = "acknowledged" if isinstance(fact, Acknowledged) else "shown"
                if forced and not _of_leader(fact.node, claimed):
                    continue
                yield from _too_late(fact, how, claimed)
                kept[fact.row] = f"{how} by {fact.node} at {fact.at_s:.3f}"
            case BecamePrimary():
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


def one_key_one_swap(history: History, policy: Policy) -> Iterator[Violation]:
    """I4: leader, term, mode and sync set change together, by compare-and-swap."""
    for fact in history.of(StateChanged):
        for what in _faults_of_swap(fact):
            yield Violation(fact.at_s, "I4", what)


def _faults_of_swap(fact: StateChanged) -> Iterator[str]:
    old, new = fact.old, fact.new
    if not fact.compared:
        yield f"{fact.node} wrote the state without comparing"
    if new is None:
        yield f"{fact.node} deleted the state"
        return
    if (new.mode is Mode.SYNC) != bool(new.sync) or new.leader in new.sync:
        yield f"mode {new.mode} with sync set {new.sync} of {new.leader}"
    if old is None:
        return
    if (new.term != old.term) != (new.leader != old.leader) or new.term - old.term not in (0, 1):
        yield f"term {old.term} of {old.leader} became {new.term} of {new.leader}"
    if new.system_identifier != old.system_identifier:
        yield "the system identifier changed"
    if new.sync != old.sync and new.leader == old.leader and fact.node != old.leader:
        yield f"{fact.node} changed the sync set of {old.leader}"


def only_the_promotable_lead(history: History, policy: Policy) -> Iterator[Violation]:
    """I5: a new leader was in the sync set, unless a person forced it or it gets the term back."""
    served: set[int] = set()
    for fact in history.facts:
        match fact:
            case BecamePrimary(state=ClusterState(term=term)):
                served.add(term)
            case StateChanged(old=ClusterState() as old, new=ClusterState() as new):
                if old.leader == new.leader or _FORCED in new.reason:
                    continue
                handed_back = new.leader == old.previous and old.term not in served
                if new.leader not in old.sync and not handed_back:
                    what = f"{new.leader} leads term {new.term}; promotable was {old.sync}"
                    yield Violation(fact.at_s, "I5", what)
                if fact.busy is not None:
                    what = f"{new.leader} leads term {new.term}; its data: {fact.busy}"
                    yield Violation(fact.at_s, "I5", what)
            case _:
                pass


def who_is_alone_is_not_fenced(history: History, policy: Policy) -> Iterator[Violation]:
    """I6: no deadline ends a leader that knows that nobody else could be promoted."""
    alone_since_s: dict[str, float] = {}
    for fact in history.facts:
        match fact:
            case StateKnown():
                if fact.state is not None and fact.state.mode is Mode.SOLO:
                    alone_since_s.setdefault(fact.node, fact.at_s)
                else:
                    alone_since_s.pop(fact.node, None)
            case PermissionEnded(why="deadline", primary=True, agent_well=True):
                since_s = alone_since_s.get(fact.node, fact.at_s)
                leads = fact.state is not None and fact.state.leader == fact.node
                if leads and fact.at_s - since_s > 1.0:
                    what = f"{fact.node} was fenced by its deadline, alone since {since_s:.1f}"
                    yield Violation(fact.at_s, "I6", what)
            case _:
                pass


def a_pause_is_kept(history: History, policy: Policy) -> Iterator[Violation]:
    """I7: while paused nobody else becomes the leader, and nothing is fenced by an agent."""
    for fact in history.of(StateChanged):
        old, new = fact.old, fact.new
        if old is None or new is None or old.pause is None or _FORCED in new.reason:
            continue
        if new.leader != old.leader and fact.true_wall_s < old.pause.until_wall_s:
            what = f"{new.leader} took over from {old.leader} in a pause"
            yield Violation(fact.at_s, "I7", what)
    for ended in history.of(PermissionEnded):
        pause = None if ended.state is None else ended.state.pause
        if pause is None or not ended.primary or ended.why != "void":
            continue
        # Wall clocks differ by a little; a jump of them is a fault of its own.
        if WALL_S + ended.at_s < pause.until_wall_s - 35.0:
            yield Violation(ended.at_s, "I7", f"{ended.node} was fenced in a pause")


def permission_ends_in_time(history: History, policy: Policy) -> Iterator[Violation]:
    """I8: no deadline lies beyond what the last committed renewal allows.

    And what it is for: when somebody takes over from a silent leader, that has stopped.
    """
    last: dict[tuple[str, int, int], float] = {}
    paused_until: dict[int, float] = {}
    for fact in history.facts:
        match fact:
            case StateChanged(new=ClusterState() as new):
                if fact.ran and _SILENT in new.reason:
                    what = f"{fact.node} took over by silence and the old primary still runs"
                    yield Violation(fact.at_s, "I8", what)
                if new.leader == fact.node:
                    last[fact.node, fact.life, new.term] = fact.sent_s
                if new.pause is not None:
                    paused_until[new.term] = new.pause.until_wall_s
            case Extended():
                sent_s = last.get((fact.node, fact.life, fact.term))
                allowed_s = -1.0 if sent_s is None else sent_s + policy.ttl_s * (1 - policy.margin)
                if fact.term in paused_until:
                    paused_s = fact.now_s + paused_until[fact.term] - fact.wall_s + 1.0
                    allowed_s = max(allowed_s, paused_s)
                if fact.deadline_s > allowed_s + 1e-6:
                    what = (
                        f"{fact.node} may run until {fact.deadline_s:.3f} of its clock in term "
                        f"{fact.term}; its last renewal allows {allowed_s:.3f}"
                    )
                    yield Violation(fact.at_s, "I8", what)
            case _:
                pass


def it_recovers(history: History, policy: Policy) -> Iterator[Violation]:
    """I9: after the healing one writable primary within 30 s, a synchronous standby within 60 s."""
    healings = list(history.of(Healed))
    for healed, following in zip_longest(healings, healings[1:]):
        until_s = following.at_s if following is not None else math.inf
        if following is None or following.without != UNTOLD:
            yield from _recovers(history, healed, until_s)


def _recovers(history: History, healed: Healed, until_s: float) -> Iterator[Violation]:
    if healed.without == UNTOLD:
        return
    looks = [look for look in history.of(Looked) if healed.at_s < look.at_s <= until_s]
    end_s = looks[-1].at_s if looks else healed.at_s
    wanted = [(_WRITABLE_WITHIN_S, "writable"), (_SYNCED_WITHIN_S, "synced")]
    for within_s, word in wanted[:1] if healed.without else wanted:
        in_time = [look for look in looks if look.at_s <= healed.from_s + within_s]
        well = any(
            len(look.primaries) == 1 and (look.synced if word == "synced" else look.served)
            for look in in_time
        )
        if not well:
            why = in_time[-1].why if in_time else "nobody looked"
            whom = f"healing of all but {healed.without}" if healed.without else "healing"
            what = f"not {word} {within_s:.0f} s after the {whom}: {why}"
            yield Violation(end_s, "I9", what)
    for look in looks:
        if len(look.primaries) > 1 and look.at_s > healed.from_s + _WRITABLE_WITHIN_S:
            yield Violation(look.at_s, "I9", f"more than one primary: {look.primaries}")


def no_copy_is_thrown_away(history: History, policy: Policy) -> Iterator[Violation]:
    """I10: acknowledged rows that a rewind takes away are in what it was rewound to.

    Also after a forced failover: a person accepts that they are missing, not that they are deleted.
    """
    told: set[int] = set()
    for fact in history.facts:
        match fact:
            case Acknowledged():
                told.add(fact.row)
            case Discarded():
                lost = (fact.lost & told) - fact.source
                if lost:
                    what = f"{fact.how} on {fact.node} threw away {len(lost)} acknowledged rows"
                    yield Violation(fact.at_s, "I10", what)
            case _:
                pass


def nothing_of_ours_breaks(history: History, policy: Policy) -> Iterator[Violation]:
    """An assertion, or an error that nobody foresaw."""
    for fact in history.of(Broke):
        yield Violation(fact.at_s, "bug", f"{fact.node}: {fact.what}")


ALL: tuple[Checker, ...] = (
    one_holder_per_term,
    nothing_acknowledged_is_lost,
    one_key_one_swap,
    only_the_promotable_lead,
    who_is_alone_is_not_fenced,
    a_pause_is_kept,
    permission_ends_in_time,
    it_recovers,
    no_copy_is_thrown_away,
    nothing_of_ours_breaks,
)
