"""S3.1, the fast path: what counts as a loss of the leader's host, and what as a sign of life."""

from dataclasses import replace

import pytest

from flightmode.decide import decide
from flightmode.decide.suspicion import suspects
from flightmode.model.action import Publish, SwapState
from flightmode.model.cluster import Mode, Pause
from flightmode.model.decision import Decision
from flightmode.model.heartbeat import Heard, Listening
from flightmode.model.member import Member
from flightmode.model.view import View
from tests.unit.decide.worlds import (
    ABSENT,
    ALL_WELL,
    AMS,
    DETACHED,
    FRA,
    HERE,
    NOW_S,
    POLICY,
    PRIMARY,
    RECEIVER,
    SOLO,
    STANDBY,
    SYNC,
    WALL_S,
    WIT,
    follower,
    member,
    memory,
    seen,
    store,
    verbs,
    view,
)

LONG_AGO_S = NOW_S - 60
GONE_S = NOW_S - 1.6
SILENT = Heard("ams", GONE_S, GONE_S, GONE_S)
LISTENING = Listening(LONG_AGO_S, LONG_AGO_S, (SILENT,))
WITNESS_SAYS = (*ALL_WELL[:2], seen(member(WIT, ABSENT, suspects=3)))
QUIET = store(state_changed_s=GONE_S, members=WITNESS_SAYS)
QUIET_STANDBY = replace(STANDBY, receiver=replace(RECEIVER, heard_ago_s=1.6))
HEARD_WAL = memory(watched=(), wal_heard_s=GONE_S, wal_seen=HERE)


def lost(**changes: object) -> View:
    """fra and wit have heard nothing of ams for 1.6 s."""
    base = {
        "store": QUIET,
        "server": QUIET_STANDBY,
        "listening": LISTENING,
        "memory": HEARD_WAL,
    }
    return follower(**{**base, **changes})


def heard(**changes: float | None) -> Listening:
    return replace(LISTENING, heard=(replace(SILENT, **changes),))  # type: ignore[arg-type]


def test_a_host_that_two_nodes_miss_is_replaced_before_the_ttl() -> None:
    assert verbs(decide(lost())) == ["Detach"]
    decision = decide(lost(server=DETACHED))
    (claim,) = (each for each in decision.actions if isinstance(each, SwapState))
    assert claim.purpose == "claim"
    assert (claim.state.term, claim.state.mode) == (4, Mode.SOLO)
    assert "fra and wit have heard nothing of it for 1.6 s" in claim.state.reason


@pytest.mark.parametrize("process", ["agent_udp_s", "agent_tcp_s", "fence_s"])
def test_one_heartbeat_of_three_is_a_sign_of_life(process: str) -> None:
    assert verbs(decide(lost(listening=heard(**{process: NOW_S - 1.4})))) == []


@pytest.mark.parametrize("process", ["agent_udp_s", "agent_tcp_s", "fence_s"])
def test_what_was_never_heard_has_not_fallen_silent(process: str) -> None:
    assert verbs(decide(lost(listening=heard(**{process: None})))) == []


def test_a_renewal_is_a_sign_of_life() -> None:
    renewed = replace(QUIET, state_changed_s=NOW_S - 1.4)
    assert verbs(decide(lost(store=renewed))) == []


def test_anything_from_the_leaders_postgres_is_a_sign_of_life() -> None:
    speaking = replace(STANDBY, receiver=replace(RECEIVER, heard_ago_s=1.4))
    assert verbs(decide(lost(server=speaking))) == []


def test_wal_that_came_while_nobody_looked_is_a_sign_of_life() -> None:
    """The receiver ended since the last look, and had received more before it did."""
    before = replace(HEARD_WAL, wal_seen=type(HERE)(HERE - 8))
    assert verbs(decide(lost(server=DETACHED, memory=before))) == ["Follow"]


def test_a_clock_that_was_set_back_does_not_make_old_wal_new_for_ever() -> None:
    odd = replace(STANDBY, receiver=replace(RECEIVER, heard_ago_s=-3600.0))
    assert decide(lost(server=odd)).memory.wal_heard_s == NOW_S


def test_who_slept_can_not_say_that_others_were_silent() -> None:
    sleepy = replace(LISTENING, attentive_since_s=NOW_S - 1.4)
    assert verbs(decide(lost(listening=sleepy))) == []


def test_an_agent_that_is_new_waits_as_long_as_its_earlier_life_may_have_promised() -> None:
    assert verbs(decide(lost(listening=replace(LISTENING, since_s=NOW_S - 4.9)))) == []
    assert verbs(decide(lost(listening=replace(LISTENING, since_s=NOW_S - 5.0)))) == ["Detach"]


@pytest.mark.parametrize(
    "third",
    [
        seen(member(WIT, ABSENT)),
        seen(member(WIT, ABSENT, suspects=2)),
        seen(member(WIT, ABSENT, suspects=3), ago_s=2.1),
        seen(member(AMS, PRIMARY, suspects=3)),
        seen(member(FRA, STANDBY, suspects=3)),
        seen(member(replace(WIT, name="who"), ABSENT, suspects=3)),
    ],
    ids=["hears it", "another term", "long ago", "the leader itself", "myself", "a stranger"],
)
def test_the_second_observer_is_another_node_that_says_so_now(third: Member) -> None:
    assert verbs(decide(lost(store=replace(QUIET, members=(third,))))) == []


def test_nobody_is_replaced_early_in_a_pause_or_in_mode_solo() -> None:
    paused = replace(SYNC, pause=Pause(WALL_S + 60, "ada"))
    assert verbs(decide(lost(store=replace(QUIET, state=paused)))) == []
    assert verbs(decide(lost(store=replace(QUIET, state=SOLO)))) == []


def test_nobody_is_replaced_early_when_that_is_turned_off() -> None:
    assert verbs(decide(lost(policy=replace(POLICY, suspect_after_s=0.0)))) == []


def test_a_claim_that_lost_its_reason_is_taken_back() -> None:
    again = lost(server=DETACHED, listening=heard(fence_s=NOW_S - 0.1))
    assert verbs(decide(again)) == ["Follow"]


def test_a_silent_store_makes_nobody_suspect() -> None:
    gone = lost(store=replace(QUIET, reachable=False))
    assert suspects(gone) is None
    assert decide(gone).actions == ()


# ------------------------------------------------------------------ the witness


def witness(**changes: object) -> View:
    base = {
        "server": ABSENT,
        "store": store(state_changed_s=GONE_S),
        "listening": LISTENING,
        "renewed": None,
        "memory": memory(watched=()),
    }
    return view(WIT, **{**base, **changes})


def published(decision: Decision) -> Member:
    (told,) = (each.member for each in decision.actions if isinstance(each, Publish))
    return told


def test_a_witness_says_at_once_whose_host_it_misses_and_in_which_term() -> None:
    before = published(decide(witness(memory=memory(published_s=-1e9), listening=Listening())))
    assert before.suspects is None
    just_said = memory(published=before, published_s=NOW_S - 0.1)
    assert published(decide(witness(memory=just_said))).suspects == 3


def test_a_witness_takes_back_at_once_what_is_no_longer_so() -> None:
    suspecting = published(decide(witness(memory=memory(published_s=-1e9))))
    just_said = memory(published=suspecting, published_s=NOW_S - 0.1)
    back = witness(memory=just_said, listening=heard(agent_udp_s=NOW_S))
    assert published(decide(back)).suspects is None


def test_a_witness_that_is_new_has_promised_nothing_and_may_speak() -> None:
    new = Listening(NOW_S - 2.0, NOW_S - 2.0, (SILENT,))
    assert suspects(witness(listening=new)) == 3


def test_a_witness_looks_again_just_when_the_silence_is_long_enough() -> None:
    soon = witness(listening=heard(fence_s=NOW_S - 1.3))
    assert decide(soon).wake_s == pytest.approx(0.2)


def test_who_hears_no_heartbeats_at_all_says_so() -> None:
    deaf = witness(listening=Listening(deaf="there is no key"), memory=memory(published_s=-1e9))
    assert any("there is no key" in each for each in published(decide(deaf)).warnings)


def test_who_hears_one_process_only_says_which_it_does_not() -> None:
    half = witness(listening=heard(fence_s=None, agent_tcp_s=None), memory=memory(published_s=-1e9))
    (warning,) = published(decide(half)).warnings
    assert "ams: never heard its agent over TCP, its fence" in warning


def test_the_leader_itself_warns_of_nothing() -> None:
    leads = view(AMS, memory=memory(published_s=-1e9), listening=Listening(deaf="no key"))
    assert published(decide(leads)).warnings == ()
