"""S4: a node whose fence does not answer is given no term, and gives one back."""

from dataclasses import replace

import pytest

from flightmode.agent.act import Done
from flightmode.agent.loop import remembered
from flightmode.decide import decide
from flightmode.model.action import FinishRequest, LiftFence, Promote, SwapState
from flightmode.model.cluster import Mode, Pause, RequestKind
from flightmode.model.member import NO_FENCE
from flightmode.model.server import FenceView
from flightmode.model.view import View
from tests.unit.decide.worlds import (
    ABSENT,
    ALL_WELL,
    AMS,
    CRASHED,
    DETACHED,
    FRA,
    IDLE,
    NOW_S,
    SOLO,
    STANDBY,
    STOPPED,
    WALL_S,
    WIT,
    done,
    follower,
    leader,
    member,
    memory,
    request,
    seen,
    silent_leader,
    store,
    verbs,
    view,
)

GONE = FenceView(reachable=False)
UNFENCED = (ALL_WELL[0], seen(member(FRA, STANDBY, fence_level=NO_FENCE)), ALL_WELL[2])
MINE = replace(SOLO, leader="fra", previous="ams")


def unguarded(since_s: float | None = NOW_S - 5.0, **changes: object) -> View:
    """fra has term 3 of ams, whose Postgres is down; its own fence does not answer."""
    down = (seen(member(AMS, STOPPED)), seen(member(FRA, STANDBY)), seen(member(WIT, ABSENT)))
    base = {
        "server": DETACHED,
        "fence": GONE,
        "store": store(MINE, members=down, saw_term_begin=True),
        "renewed": None,
        "memory": memory(watched=(), unguarded_since_s=since_s),
    }
    return view(FRA, **{**base, **changes})


def test_who_has_no_fence_does_not_claim() -> None:
    claims = silent_leader(server=DETACHED)
    assert "claim" in verbs(decide(claims))
    assert "claim" not in verbs(decide(replace(claims, fence=GONE)))
    assert "Detach" not in verbs(decide(silent_leader(fence=GONE)))


def test_nothing_is_handed_over_to_who_has_no_fence() -> None:
    dead = leader(server=CRASHED, fence=IDLE, memory=memory(crashed=True))
    assert verbs(decide(dead)) == ["hand over"]
    assert verbs(decide(replace(dead, store=store(members=UNFENCED)))) == ["StartPostgres"]


def test_no_switchover_to_who_has_no_fence() -> None:
    asked = (request(RequestKind.SWITCHOVER, "fra"),)
    (finish,) = done(decide(leader(store=store(members=UNFENCED, requests=asked))), FinishRequest)
    assert isinstance(finish, FinishRequest)
    assert not finish.ok
    assert "fence" in finish.why


def test_nothing_is_promoted_without_a_fence_and_renewals_go_on() -> None:
    decision = decide(unguarded(None))
    assert decision.rule == "leading: unguarded"
    assert verbs(decision) == ["renew"]
    assert decision.memory.unguarded_since_s == NOW_S


def test_who_led_before_gets_the_term_back() -> None:
    decision = decide(unguarded())
    (swap,) = done(decision, SwapState)
    assert isinstance(swap, SwapState)
    assert swap.purpose == "hand back"
    assert (swap.state.leader, swap.state.term, swap.state.mode) == ("ams", 4, Mode.SOLO)


@pytest.mark.parametrize(
    "view",
    [
        unguarded(NOW_S - 4.9),
        unguarded(memory=memory(unguarded_since_s=NOW_S - 9, promote_asked=True)),
        replace(unguarded(), store=replace(unguarded().store, saw_term_begin=False)),
        replace(
            unguarded(),
            store=replace(unguarded().store, state=replace(MINE, pause=Pause(WALL_S + 60, "ada"))),
        ),
        replace(unguarded(), store=replace(unguarded().store, members=())),
    ],
    ids=["too soon", "asked to promote", "perhaps asked before", "paused", "nobody there"],
)
def test_it_is_kept_while_a_promotion_may_yet_come_or_nobody_could_take_it(view: View) -> None:
    assert "hand back" not in verbs(decide(view))
    assert "Promote" not in verbs(decide(view))


def test_it_does_not_go_back_to_who_has_no_fence_either() -> None:
    down = (seen(member(AMS, STOPPED, fence_level=NO_FENCE)),)
    kept = replace(unguarded(), store=replace(unguarded().store, members=down))
    decision = decide(kept)
    assert "hand back" not in verbs(decision)
    assert decision.problem is not None
    assert decision.problem.startswith("FM603")


def test_a_fence_that_answers_again_is_promoted_under() -> None:
    decision = decide(unguarded(fence=IDLE))
    assert verbs(decision)[-2:] == ["Promote", "renew"]
    assert decision.memory.promote_asked
    assert decision.memory.unguarded_since_s is None


@pytest.mark.parametrize("failed", ["Promote", "renew"])
def test_that_postgres_was_asked_to_promote_is_never_forgotten(failed: str) -> None:
    before = unguarded(fence=IDLE)
    decision = decide(before)
    outcomes = []
    for action in decision.actions:
        name = getattr(action, "purpose", type(action).__name__)
        outcomes.append(Done(action, "FM301: no" if name == failed else None))
        if name == failed:
            break
    kept = remembered(before, decision, tuple(outcomes))
    assert kept.promote_asked
    assert kept.promoting_since_s == NOW_S


def test_what_was_not_tried_was_not_asked() -> None:
    before = unguarded(fence=IDLE)
    decision = decide(before)
    assert isinstance(decision.actions[0], LiftFence)
    assert any(isinstance(action, Promote) for action in decision.actions)
    kept = remembered(before, decision, (Done(decision.actions[0], "FM301: no"),))
    assert not kept.promote_asked


def test_a_standby_without_its_fence_follows_on() -> None:
    assert decide(follower(fence=GONE)).rule == "following: stream"
