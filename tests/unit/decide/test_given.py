"""S7: a term that was given is taken up by a swap, or taken back by one; one of the two wins."""

from dataclasses import replace

import pytest

from flightmode.decide import decide
from flightmode.model.action import LiftFence, StartPostgres, SwapState
from flightmode.model.cluster import ClusterState, Mode, Pause, RequestKind
from flightmode.model.lsn import Lsn
from flightmode.model.server import FenceView, Role
from flightmode.model.view import Renewed, View
from flightmode.store import codec
from tests.unit.decide.worlds import (
    ABSENT,
    ALL_WELL,
    AMS,
    CRASHED,
    DETACHED,
    FRA,
    HERE,
    IDLE,
    NOW_S,
    SOLO,
    STANDBY,
    STOPPED,
    STOPPED_STANDBY,
    WALL_S,
    WIT,
    done,
    leader,
    member,
    memory,
    request,
    seen,
    store,
    verbs,
    view,
)

GIVEN = replace(SOLO, leader="fra", previous="ams", given=True)
TAKEN = replace(GIVEN, given=False)
SILENT = {"state_changed_s": NOW_S - 5.1}


def giver(state: ClusterState = GIVEN, **changes: object) -> View:
    """ams has stopped cleanly and given the term to fra, which has been silent for the ttl."""
    quiet = store(state, members=(ALL_WELL[0], ALL_WELL[2]), **SILENT)
    base = {"server": STOPPED, "fence": IDLE, "store": quiet, "renewed": None}
    return view(AMS, **{**base, **changes})


def target(state: ClusterState = GIVEN, **changes: object) -> View:
    """fra was given the term just now."""
    base = {
        "server": DETACHED,
        "fence": IDLE,
        "store": store(state, saw_term_begin=True),
        "renewed": None,
        "memory": memory(watched=()),
    }
    return view(FRA, **{**base, **changes})


def swapped(view_: View) -> SwapState:
    (swap,) = done(decide(view_), SwapState)
    assert isinstance(swap, SwapState)
    return swap


def given_away(*, knows: bool) -> SwapState:
    """ams has stopped for a switchover to fra, which has everything."""
    there = member(FRA, STANDBY, position=Lsn(HERE + 120), takes_up=knows)
    asked = (request(RequestKind.SWITCHOVER, "fra"),)
    told = store(requests=asked, members=(ALL_WELL[0], seen(there), ALL_WELL[2]))
    stopping = memory(task="r1", task_stage="stop", task_since_s=NOW_S - 0.3)
    return swapped(leader(server=STOPPED, fence=IDLE, store=told, memory=stopping))


def test_a_term_is_given_only_to_who_takes_it_up() -> None:
    """An older version promotes at once: from that nobody could take the term back."""
    assert given_away(knows=True).state.given
    assert not given_away(knows=False).state.given


def test_it_is_taken_up_before_anybody_is_promoted() -> None:
    decision = decide(target())
    assert verbs(decision) == ["LiftFence", "take up", "Promote"]
    assert not swapped(target()).state.given
    assert verbs(decide(target(TAKEN))) == ["LiftFence", "Promote", "renew"]


def test_who_cannot_use_it_is_silent() -> None:
    for server in (STOPPED_STANDBY, replace(ABSENT), replace(DETACHED)):
        gone = target(server=server, fence=FenceView(False))
        assert "renew" not in verbs(decide(gone))
    renewed = Renewed(3, NOW_S - 9, solo=True)
    assert "renew" not in verbs(decide(target(server=ABSENT, renewed=renewed)))


def test_a_primary_takes_it_up_before_anything_else() -> None:
    confirmed = {"renewed": Renewed(3, NOW_S - 0.2, solo=True), "fence": IDLE}
    assert verbs(decide(target(server=leader().server, **confirmed))) == ["take up"]
    assert verbs(decide(target(server=CRASHED, **confirmed))) == ["take up"]


def test_who_gave_it_takes_it_back_when_it_is_not_taken_up() -> None:
    swap = swapped(giver())
    assert swap.purpose == "take back"
    assert (swap.state.leader, swap.state.term, swap.state.previous) == ("ams", 4, "fra")
    assert (swap.state.mode, swap.state.sync, swap.state.given) == (Mode.SOLO, (), False)
    assert swap.history is not None
    assert swap.history.lsn == HERE


@pytest.mark.parametrize(
    "view_",
    [
        giver(TAKEN),
        giver(replace(GIVEN, previous="ber")),
        giver(store=store(GIVEN, state_changed_s=NOW_S - 4.9)),
        giver(replace(GIVEN, ttl_s=9.0)),
        giver(server=CRASHED),
        giver(server=STOPPED_STANDBY),
        giver(server=ABSENT),
        giver(server=replace(STOPPED, disk_free=0.01)),
        giver(fence=FenceView(False)),
        giver(store=store(GIVEN, in_doubt=90, **SILENT)),
        giver(replace(GIVEN, pause=Pause(WALL_S + 60, "ada"))),
        giver(replace(GIVEN, pause=Pause(WALL_S - 5, "ada"))),
        giver(replace(GIVEN, system_identifier="other")),
    ],
    ids=[
        "taken up",
        "of another",
        "too soon",
        "longer ttl",
        "crashed",
        "a standby since",
        "no data",
        "no room",
        "no fence",
        "in doubt",
        "paused",
        "grace of a pause",
        "foreign data",
    ],
)
def test_otherwise_it_does_not(view_: View) -> None:
    assert "take back" not in verbs(decide(view_))


def test_a_witness_and_a_third_node_take_nothing_back() -> None:
    quiet = store(GIVEN, **SILENT)
    assert verbs(decide(view(WIT, server=ABSENT, store=quiet))) == []


def test_it_starts_as_a_primary_then() -> None:
    back = swapped(giver()).state
    state = store(back, saw_term_begin=True)
    again = view(
        AMS,
        server=STOPPED,
        fence=IDLE,
        store=state,
        renewed=Renewed(4, NOW_S - 0.1, solo=True),
        memory=memory(4, watched=()),
    )
    (start,) = done(decide(again), StartPostgres)
    assert isinstance(start, StartPostgres)
    assert (start.role, start.deadline_s) == (Role.PRIMARY, None)


def test_an_older_version_clears_it_with_whatever_it_writes() -> None:
    told = codec.to_data(GIVEN)
    del told["given"]
    assert not codec.from_data(ClusterState, told).given
    assert codec.load(ClusterState, codec.dump(GIVEN)) == GIVEN


def test_a_lift_of_its_fence_alone_takes_nothing_up() -> None:
    """When the fence fails, the actions after it are left out: the term can be taken back."""
    first, *_ = decide(target()).actions
    assert isinstance(first, LiftFence)
