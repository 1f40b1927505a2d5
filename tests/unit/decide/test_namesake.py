"""R45: two machines under one name. Who leads goes on, a newcomer touches nothing."""

from dataclasses import replace

import pytest

from flightmode.decide import decide
from flightmode.decide.invariants import check
from flightmode.model.action import FencePostgres, FinishRequest, Promote, Publish, StartPostgres
from flightmode.model.cluster import Handover, RequestKind
from flightmode.model.decision import Decision
from flightmode.model.member import MemberSeen
from flightmode.model.server import Role
from flightmode.model.view import View
from tests.unit.decide.worlds import (
    ABSENT,
    ALL_WELL,
    AMS,
    CRASHED,
    DETACHED,
    FRA,
    IDLE,
    LIFTED,
    NOW_S,
    SOLO,
    STANDBY,
    STOPPED,
    SYNC,
    WIT,
    done,
    follower,
    leader,
    member,
    memory,
    request,
    seen,
    silent_leader,
    solo_leader,
    store,
    verbs,
    view,
)

OTHER = "machine of somebody else"
JUST_NOW_S = NOW_S - 0.5


def by_another(name: str, *, ago_s: float = 0.3) -> tuple[MemberSeen, ...]:
    """The record of that node was written by another machine."""
    return tuple(
        seen(replace(each.member, machine=OTHER), ago_s=ago_s) if each.member.name == name else each
        for each in ALL_WELL
    )


def newcomer(name: str, *, ago_s: float = 1e9, first_read_s: float = JUST_NOW_S) -> View:
    """Another machine's agent has just been started under that name."""
    me = {"ams": AMS, "fra": FRA, "wit": WIT}[name]
    there = store(members=by_another(name, ago_s=ago_s), first_read_s=first_read_s)
    fresh = memory(watched=(), published_s=-1e9)
    return view(me, server=ABSENT, fence=IDLE, renewed=None, store=there, memory=fresh)


def says_so(decision: Decision) -> bool:
    return decision.problem is not None and decision.problem.startswith("FM614: ")


@pytest.mark.parametrize("name", ["ams", "fra"])
@pytest.mark.parametrize("ago_s", [0.3, 1e9])
def test_a_newcomer_begins_nothing_and_writes_nothing_over(name: str, ago_s: float) -> None:
    """Its first look shows a record of another machine, fresh or of unknown age."""
    decision = decide(newcomer(name, ago_s=ago_s))
    assert decision.actions == ()
    assert says_so(decision)


def test_a_witness_that_comes_new_writes_nothing_over_either() -> None:
    decision = decide(newcomer("wit"))
    assert decision.actions == ()
    assert says_so(decision)


def test_a_new_machine_of_a_dead_standby_begins_when_that_has_long_been_silent() -> None:
    """`node replace` without --by."""
    decision = decide(newcomer("fra", first_read_s=NOW_S - 3.1))
    assert decision.problem is None
    assert [told.member.machine for told in done(decision, Publish)] == ["machine of fra"]


def test_the_machine_of_a_leader_waits_longer_so_that_the_promotable_one_claims_first() -> None:
    early = decide(newcomer("ams", first_read_s=NOW_S - 9.9))
    assert early.actions == ()
    late = decide(newcomer("ams", first_read_s=NOW_S - 10.1))
    assert not says_so(late)


def test_while_etcd_is_silent_nobody_s_silence_counts() -> None:
    """The leader of before may go on by a promise (S6), and cannot write either."""
    first = newcomer("ams")
    known = decide(first).memory
    for after_s in (4.0, 8.0, 12.0):
        mute = replace(first.store, reachable=False)
        known = decide(replace(first, now_s=NOW_S + after_s, store=mute, memory=known)).memory
    back = replace(first, now_s=NOW_S + 14.0, memory=known)
    assert decide(back).actions == ()
    assert says_so(decide(back))
    much_later = replace(first, now_s=NOW_S + 23.0, memory=known)
    assert not says_so(decide(much_later))


def test_a_leader_goes_on_beside_an_impostor_and_says_so() -> None:
    """One of an older version, that writes over its record."""
    calm = decide(leader())
    beside = decide(leader(store=store(members=by_another("ams"))))
    assert verbs(beside) == verbs(calm)
    assert says_so(beside)
    assert [told.member.problem for told in done(beside, Publish)] != [None]


def test_a_leader_whose_agent_was_restarted_goes_on_by_what_its_fence_serves() -> None:
    there = store(members=by_another("ams"), first_read_s=JUST_NOW_S)
    decision = decide(leader(store=there, renewed=None))
    assert "renew" in verbs(decision)
    assert says_so(decision)


def test_a_leader_that_crashed_starts_in_place_beside_an_impostor() -> None:
    there = store(SOLO, members=by_another("ams"))
    decision = decide(solo_leader(store=there, server=CRASHED, fence=IDLE))
    assert done(decision, StartPostgres)
    assert says_so(decision)


def test_what_was_seen_once_is_remembered_while_each_writes_over_the_other() -> None:
    first = decide(silent_leader(store=store(members=by_another("fra"))))
    own_again = follower(memory=first.memory)
    assert says_so(decide(own_again))
    later = replace(own_again, now_s=NOW_S + 3.1)
    assert not says_so(decide(later))
    other_term = store(replace(SYNC, term=4))
    assert says_so(decide(follower(memory=first.memory, store=other_term)))


def test_a_standby_with_an_impostor_goes_on_and_does_not_claim() -> None:
    """I2: what was acknowledged in its name may be on the other machine."""
    assert verbs(decide(silent_leader())) == ["Detach"]
    quiet = store(state_changed_s=NOW_S - 5.1, members=by_another("fra"))
    decision = decide(follower(store=quiet))
    assert verbs(decision) == []
    assert says_so(decision)
    offered = replace(SYNC, handover=Handover("fra", "it died"))
    asked = store(offered, members=by_another("fra"))
    assert "claim" not in verbs(decide(follower(store=asked, server=DETACHED)))


def test_a_forced_failover_to_who_has_a_namesake_is_not_carried_out() -> None:
    forced = (request(RequestKind.FAILOVER, "fra"),)
    quiet = store(SOLO, state_changed_s=NOW_S - 9, members=by_another("fra"), requests=forced)
    decision = decide(follower(store=quiet, server=DETACHED))
    assert "claim" not in verbs(decision)
    assert not done(decision, FinishRequest)


def test_a_standby_that_is_down_is_not_started_beside_its_namesake() -> None:
    there = store(members=by_another("fra"))
    assert verbs(decide(follower(store=there, server=STOPPED))) == []


def test_no_cluster_is_made_by_two_machines_of_one_name() -> None:
    there = store(None, members=(*by_another("ams")[:1], seen(member(FRA, ABSENT))))
    decision = decide(view(AMS, store=there, server=ABSENT, fence=IDLE, memory=memory(0)))
    assert verbs(decision) == []
    assert says_so(decision)


def test_a_primary_whose_name_leads_a_later_term_elsewhere_is_ended() -> None:
    """I1."""
    later = store(replace(SOLO, term=5), members=by_another("ams"))
    decision = decide(view(AMS, store=later, fence=LIFTED, renewed=None, memory=memory(5)))
    assert done(decision, FencePostgres)
    assert says_so(decision)


def test_the_net_catches_a_claim_and_a_promotion_beside_a_namesake() -> None:
    claims = decide(silent_leader(server=DETACHED))
    assert verbs(claims) == ["claim"]
    quiet = store(state_changed_s=NOW_S - 5.1, members=by_another("fra"))
    with pytest.raises(AssertionError, match="another machine"):
        check(follower(store=quiet, server=DETACHED), claims)
    there = store(SOLO, members=by_another("ams"), saw_term_begin=True)
    impostor = view(AMS, store=there, server=STANDBY, fence=IDLE, renewed=None)
    for act in (Promote(3), StartPostgres(Role.PRIMARY, 3, None, None)):
        decision = Decision("it", "why", (act,), memory(), 1.0)
        with pytest.raises(AssertionError, match="another machine"):
            check(impostor, decision)


def test_in_a_healthy_cluster_nobody_has_a_namesake() -> None:
    for each in (leader(), solo_leader(), follower(), view(WIT, server=ABSENT, fence=IDLE)):
        assert not says_so(decide(each))
