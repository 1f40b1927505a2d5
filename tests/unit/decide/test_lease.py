"""S6: who may promise whom what, and what a promise is worth."""

from dataclasses import replace

import pytest

from flightmode.decide import decide
from flightmode.decide.lease import leased_until_s, promises, whom_to_ask
from flightmode.model.action import ExtendFence
from flightmode.model.cluster import ClusterState, Handover, Mode, RequestKind
from flightmode.model.lease import Leased
from flightmode.model.view import Renewed, StoreView
from tests.unit.decide.worlds import (
    DETACHED,
    NOW_S,
    POLICY,
    SOLO,
    SYNC,
    done,
    follower,
    leader,
    request,
    silent_leader,
    store,
    verbs,
)

SILENT = store(reachable=False, saw_change=True)
LEASED = Leased("fra", 3, NOW_S - 1.0, 5.0)


def test_a_promotable_standby_promises_its_leader_while_etcd_is_silent() -> None:
    assert promises(SILENT, "fra", "ams", 3)


@pytest.mark.parametrize(
    "known",
    [
        replace(SILENT, reachable=True),
        replace(SILENT, in_doubt=90),
        replace(SILENT, saw_change=False),
        replace(SILENT, state=SOLO),
        replace(SILENT, state=replace(SYNC, sync=("lhr",))),
        replace(SILENT, state=replace(SYNC, leader="lhr")),
        replace(SILENT, state=replace(SYNC, term=4)),
        replace(SILENT, state=None),
    ],
    ids=["etcd", "doubt", "new agent", "solo", "not me", "not he", "another term", "nothing"],
)
def test_nobody_else_is_promised_anything(known: StoreView) -> None:
    assert not promises(known, "fra", "ams", 3)


@pytest.mark.parametrize(
    ("state", "whom"),
    [(SYNC, ("fra",)), (SOLO, ()), (replace(SYNC, leader="fra"), ()), (None, ())],
    ids=["sync", "solo", "another leads", "nothing"],
)
def test_a_leader_asks_all_who_are_promotable(
    state: ClusterState | None, whom: tuple[str, ...]
) -> None:
    assert whom_to_ask(state, "ams") == whom


def test_a_promise_counts_from_the_question_less_the_margin() -> None:
    assert leased_until_s(SYNC, LEASED, POLICY) == NOW_S - 1.0 + 4.5


@pytest.mark.parametrize(
    "state",
    [SOLO, replace(SYNC, sync=("lhr",)), replace(SYNC, sync=("fra", "lhr")), replace(SYNC, term=4)],
    ids=["solo", "another", "one of two", "another term"],
)
def test_a_promise_of_less_than_everybody_is_worth_nothing(state: ClusterState) -> None:
    assert leased_until_s(state, LEASED, POLICY) is None


def test_the_deadline_is_the_later_of_renewal_and_promise() -> None:
    renewed = Renewed(3, NOW_S - 0.4, solo=False)
    old = replace(LEASED, sent_s=NOW_S - 3.0)
    soon = leader(renewed=renewed, leased=LEASED, fence=replace(leader().fence, deadline_s=NOW_S))
    assert done(decide(soon), ExtendFence) == [ExtendFence(3, NOW_S - 0.4 + 4.5)]
    late = replace(soon, renewed=replace(renewed, sent_s=NOW_S - 2.5))
    assert done(decide(late), ExtendFence) == [ExtendFence(3, NOW_S - 1.0 + 4.5)]
    assert done(decide(replace(late, leased=old)), ExtendFence) == [ExtendFence(3, NOW_S + 2.0)]


def test_who_has_promised_does_not_claim_before_it_is_over() -> None:
    assert verbs(decide(silent_leader(granted_until_s=NOW_S + 0.1))) == []
    assert verbs(decide(silent_leader(granted_until_s=NOW_S))) == ["Detach"]


def test_a_leader_that_hands_over_needs_no_promise_any_more() -> None:
    offered = store(replace(SYNC, handover=Handover("fra", "Postgres on ams died")))
    taking = follower(store=offered, server=DETACHED, granted_until_s=NOW_S + 4)
    assert verbs(decide(taking)) == ["claim"]


def test_also_a_forced_claim_waits_for_the_end_of_a_promise() -> None:
    forced = store(
        replace(SYNC, mode=Mode.SOLO, sync=()),
        state_changed_s=NOW_S - 6,
        requests=(request(RequestKind.FAILOVER, "fra"),),
    )
    waiting = follower(store=forced, granted_until_s=NOW_S + 0.1)
    assert verbs(decide(waiting)) == []
    assert verbs(decide(replace(waiting, granted_until_s=NOW_S))) == ["Detach"]
