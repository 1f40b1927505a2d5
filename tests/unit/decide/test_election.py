"""S3: who may claim, when, and in which order."""

from dataclasses import replace

import pytest

from flightmode.decide import decide
from flightmode.model.action import SwapState
from flightmode.model.cluster import Handover, Mode, Pause, RequestKind
from flightmode.model.member import Node, NodeKind
from flightmode.model.server import Run
from flightmode.model.view import Job, JobKind
from tests.unit.decide.worlds import (
    ALL_WELL,
    AMS,
    DETACHED,
    FRA,
    NOW_S,
    POLICY,
    RECEIVER,
    SOLO,
    STANDBY,
    SYNC,
    WALL_S,
    follower,
    member,
    request,
    seen,
    silent_leader,
    store,
    verbs,
)


def test_a_leader_that_renews_is_not_replaced():
    assert verbs(decide(follower())) == []


def test_a_silent_leader_is_replaced_only_after_a_whole_ttl():
    almost = silent_leader(store=store(state_changed_s=NOW_S - 4.99))
    assert "Detach" not in verbs(decide(almost))
    assert decide(almost).wake_s <= 0.02
    assert verbs(decide(silent_leader())) == ["Detach"]


def test_the_leaders_own_ttl_counts_where_it_is_the_longer_one():
    """While another `timing.ttl_s` is rolled out, node by node."""
    patient = replace(SYNC, ttl_s=8.0)
    early = silent_leader(store=store(patient, state_changed_s=NOW_S - 7.9))
    assert "Detach" not in verbs(decide(early))
    late = silent_leader(store=store(patient, state_changed_s=NOW_S - 8.1))
    assert verbs(decide(late)) == ["Detach"]
    hasty = replace(SYNC, ttl_s=2.5)
    early = silent_leader(store=store(hasty, state_changed_s=NOW_S - 4.9))
    assert "Detach" not in verbs(decide(early)), "nor does a shorter one of the leader's"


def test_a_forced_claim_waits_for_the_leaders_own_ttl_too():
    patient = replace(SYNC, ttl_s=8.0)
    forced = request(RequestKind.FAILOVER, "fra")
    early = store(patient, state_changed_s=NOW_S - 7.9, requests=(forced,))
    assert "claim" not in verbs(decide(silent_leader(store=early, server=DETACHED)))
    late = store(patient, state_changed_s=NOW_S - 8.1, requests=(forced,))
    assert "claim" in verbs(decide(silent_leader(store=late, server=DETACHED)))


def test_nothing_is_claimed_before_the_receiver_is_seen_gone():
    lingering = silent_leader(server=replace(DETACHED, receiver=RECEIVER))
    assert verbs(decide(lingering)) == ["Detach"]


def test_a_detached_standby_claims_the_next_term_alone():
    decision = decide(silent_leader(server=DETACHED))
    (swap,) = (a for a in decision.actions if isinstance(a, SwapState))
    assert swap.purpose == "claim"
    assert swap.expected_revision == 90
    assert (swap.state.term, swap.state.leader) == (4, "fra")
    assert (swap.state.mode, swap.state.sync) == (Mode.SOLO, ())
    assert swap.state.previous == "ams"
    assert swap.history is not None
    assert swap.history.lsn == DETACHED.position


def test_an_offered_handover_is_taken_at_once():
    offered = store(replace(SYNC, handover=Handover("fra", "Postgres on ams died")))
    assert verbs(decide(follower(store=offered))) == ["Detach"]
    assert verbs(decide(follower(store=offered, server=DETACHED))) == ["claim"]


def test_a_handover_to_another_node_is_nobody_elses():
    offered = store(replace(SYNC, handover=Handover("ber", "Postgres on ams died")))
    assert verbs(decide(follower(store=offered))) == []


@pytest.mark.parametrize(
    "state",
    [SOLO, replace(SYNC, sync=("ber",)), replace(SYNC, pause=Pause(WALL_S + 30, "ada"))],
    ids=["solo", "another is in the sync set", "paused"],
)
def test_who_may_not_be_promoted_does_not_even_detach(state):
    decision = decide(silent_leader(store=store(state, state_changed_s=NOW_S - 600)))
    assert "Detach" not in verbs(decision)
    assert "claim" not in verbs(decision)


def test_a_pause_is_honoured_for_its_grace_and_not_for_ever():
    over = replace(SYNC, pause=Pause(WALL_S - 59, "ada"))
    assert verbs(decide(silent_leader(store=store(over, state_changed_s=NOW_S - 99)))) == []
    long_over = replace(SYNC, pause=Pause(WALL_S - 61, "ada"))
    decision = decide(silent_leader(store=store(long_over, state_changed_s=NOW_S - 99)))
    assert verbs(decision) == ["Detach"]


def test_a_node_with_a_full_disk_does_not_claim():
    full = replace(DETACHED, disk_free=0.01)
    assert "claim" not in verbs(decide(silent_leader(server=full)))


def test_a_node_with_a_job_does_not_claim():
    busy = silent_leader(server=DETACHED, job=Job(JobKind.REWIND, 3, NOW_S - 1))
    assert "claim" not in verbs(decide(busy))


def test_foreign_data_never_lead():
    assert DETACHED.data is not None
    foreign = replace(DETACHED, data=replace(DETACHED.data, system_identifier="42"))
    assert "claim" not in verbs(decide(silent_leader(server=foreign)))


@pytest.mark.parametrize("run", [Run.STARTING, Run.SILENT, Run.DYING])
def test_only_a_running_standby_claims(run):
    assert "claim" not in verbs(decide(silent_leader(server=replace(DETACHED, run=run))))


def test_a_claim_of_unknown_outcome_is_only_ever_repeated():
    doubt = store(state_changed_s=NOW_S - 5.1, in_doubt=90)
    assert verbs(decide(follower(store=doubt, server=DETACHED))) == ["claim"]


def test_in_doubt_a_detached_standby_does_not_follow_again():
    doubt = store(in_doubt=90)
    decision = decide(follower(store=doubt, server=DETACHED))
    assert verbs(decision) == []
    assert decision.rule == "following: settle"


def test_a_standby_that_lost_the_race_follows_again():
    assert verbs(decide(follower(server=DETACHED))) == ["Follow"]


class TestTheHumanEscapeHatch:
    """`failover --accept-data-loss`."""

    forced = request(RequestKind.FAILOVER, "fra")

    def test_it_waits_until_the_old_permission_is_certainly_over(self):
        early = store(SOLO, state_changed_s=NOW_S - 4.9, requests=(self.forced,))
        assert "Detach" not in verbs(decide(follower(store=early)))

    def test_it_promotes_a_node_outside_the_sync_set(self):
        late = store(SOLO, state_changed_s=NOW_S - 5.1, requests=(self.forced,))
        assert verbs(decide(follower(store=late))) == ["Detach"]
        decision = decide(follower(store=late, server=DETACHED))
        assert verbs(decision) == ["claim", "FinishRequest"]

    def test_it_remembers_whom_it_passed_over(self):
        late = store(SOLO, state_changed_s=NOW_S - 5.1, requests=(self.forced,))
        claim = decide(follower(store=late, server=DETACHED)).actions[0]
        assert isinstance(claim, SwapState)
        assert claim.state.passed_over == ("ams",)

    def test_a_third_node_is_passed_over_too(self):
        """It may hold more of what the leader acknowledged, and must not be rewound (I10)."""
        third = replace(POLICY, nodes=(AMS, FRA, Node("ber", NodeKind.DATABASE, "10.0.0.4")))
        late = store(SOLO, state_changed_s=NOW_S - 5.1, requests=(self.forced,))
        claim = decide(follower(store=late, server=DETACHED, policy=third)).actions[0]
        assert isinstance(claim, SwapState)
        assert claim.state.passed_over == ("ams", "ber")

    @pytest.mark.parametrize("ago_s", [0.3, 1e9])
    def test_a_node_that_is_not_in_flightmode_toml_is_passed_over_too(self, ago_s):
        """It makes room for another machine, or has only just come, and holds data (I10)."""
        assert "ber" not in POLICY.databases
        ber = member(Node("ber", NodeKind.DATABASE, "10.0.0.4"), STANDBY)
        members = (*ALL_WELL, seen(ber, ago_s=ago_s))
        late = store(SOLO, state_changed_s=NOW_S - 5.1, requests=(self.forced,), members=members)
        claim = decide(follower(store=late, server=DETACHED)).actions[0]
        assert isinstance(claim, SwapState)
        assert claim.state.passed_over == ("ams", "ber")

    def test_a_claim_that_nobody_forced_passes_nobody_over(self):
        silent = store(state_changed_s=NOW_S - 5.1)
        claim = decide(follower(store=silent, server=DETACHED)).actions[0]
        assert isinstance(claim, SwapState)
        assert claim.state.passed_over == ()

    def test_it_expires(self):
        expired = replace(self.forced, expires_wall_s=WALL_S - 1)
        late = store(SOLO, state_changed_s=NOW_S - 5.1, requests=(expired,))
        assert "Detach" not in verbs(decide(follower(store=late)))

    def test_it_concerns_the_node_it_names(self):
        other = replace(self.forced, node="ber")
        late = store(SOLO, state_changed_s=NOW_S - 5.1, requests=(other,))
        assert "Detach" not in verbs(decide(follower(store=late)))


def test_a_claim_needs_a_store_that_answers():
    blind = store(state_changed_s=NOW_S - 60, reachable=False)
    decision = decide(follower(store=blind, server=DETACHED))
    assert verbs(decision) == []
    assert decision.rule == "isolation: wait"


def test_a_standby_without_a_leader_stays_what_it_is():
    assert STANDBY.run is Run.STANDBY
    blind = store(reachable=False)
    assert verbs(decide(follower(store=blind))) == []
