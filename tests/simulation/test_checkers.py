"""What the checkers are there to find, planted by hand into a history: each is found."""

import asyncio
from dataclasses import replace

import pytest

from flightmode.model.cluster import ClusterState, Handover, Mode, Pause
from simulator.checkers import Violation
from simulator.checkers.alone import who_is_alone_is_not_fenced
from simulator.checkers.guards import crashes_do_not_go_round, no_primary_is_killed_in_vain
from simulator.checkers.judging import Checker
from simulator.checkers.kept import no_copy_is_thrown_away
from simulator.checkers.parting import a_stop_is_said_before
from simulator.checkers.paused import a_pause_is_kept
from simulator.checkers.recovers import it_recovers
from simulator.checkers.switched import a_switchover_loses_nothing
from simulator.copying import put_in_place
from simulator.history import (
    Acknowledged,
    Began,
    Discarded,
    Fact,
    Healed,
    History,
    Killed,
    Looked,
    Parted,
    PermissionEnded,
    StateChanged,
    StateKnown,
)
from simulator.host import WALL_S
from simulator.loop import VirtualLoop
from simulator.wal import Data, Wal
from simulator.weather import fair
from simulator.world import POLICY, World

LEADS = ClusterState("7", 1, "ams", Mode.SYNC, ("fra",), 5, "the first", WALL_S)
PAUSED = replace(LEADS, pause=Pause(WALL_S + 100.0, "a person"))
KNOWN = StateKnown(20.0, "ams", PAUSED)
FENCED = PermissionEnded(
    at_s=40.0,
    node="ams",
    why="deadline",
    primary=True,
    state=PAUSED,
    agent_well=True,
    fence_well=True,
    wall_s=WALL_S + 40.0,
)
TAKEN_OVER = StateChanged(
    at_s=40.0,
    node="fra",
    revision=9,
    old=PAUSED,
    new=replace(LEADS, term=2, leader="fra", mode=Mode.SOLO, sync=()),
    sent_s=40.0,
    life=0,
    compared=True,
    true_wall_s=WALL_S + 40.0,
    holds=frozenset(),
    busy=None,
    ran=False,
)


def found(check: Checker, *facts: Fact) -> list[Violation]:
    return list(check(History(list(facts)), POLICY))


@pytest.mark.parametrize("why", ["deadline", "void"])
def test_a_leader_that_is_fenced_in_a_pause_is_found(why: str) -> None:
    (broken,) = found(a_pause_is_kept, KNOWN, replace(FENCED, why=why))
    assert broken.invariant == "I7"
    assert "60.0 s before" in broken.what


def test_a_fencing_is_found_up_to_the_drift_of_the_clocks_before_the_end() -> None:
    assert found(a_pause_is_kept, KNOWN, replace(FENCED, wall_s=WALL_S + 97.0))
    assert not found(a_pause_is_kept, KNOWN, replace(FENCED, wall_s=WALL_S + 98.0))


@pytest.mark.parametrize(
    "excused",
    [
        replace(FENCED, why="clock jump"),
        replace(FENCED, primary=False),
        replace(FENCED, agent_well=False),
        replace(FENCED, fence_well=False),
        replace(FENCED, state=LEADS),
        replace(FENCED, state=TAKEN_OVER.new),
        replace(FENCED, at_s=20.5),
    ],
)
def test_what_no_pause_could_have_held_off_is_excused(excused: PermissionEnded) -> None:
    assert not found(a_pause_is_kept, KNOWN, excused)


@pytest.mark.parametrize("state", [None, LEADS])
def test_a_leader_that_does_not_know_of_the_pause_is_excused(state: ClusterState | None) -> None:
    assert not found(a_pause_is_kept, KNOWN, StateKnown(30.0, "ams", state), FENCED)


def test_who_takes_over_in_a_pause_is_found() -> None:
    (broken,) = found(a_pause_is_kept, TAKEN_OVER)
    assert broken.invariant == "I7"
    assert not found(a_pause_is_kept, replace(TAKEN_OVER, true_wall_s=WALL_S + 101.0))


@pytest.mark.parametrize("why", ["deadline", "void"])
def test_who_is_fenced_alone_is_found(why: str) -> None:
    alone = replace(LEADS, mode=Mode.SOLO, sync=())
    known = StateKnown(20.0, "ams", alone)
    (broken,) = found(who_is_alone_is_not_fenced, known, replace(FENCED, state=alone, why=why))
    assert broken.invariant == "I6"


@pytest.mark.parametrize("how", ["clone", "rewind"])
def test_acknowledged_rows_that_nothing_holds_any_more_are_found(how: str) -> None:
    told = (Acknowledged(10.0, "ams", 1), Acknowledged(11.0, "ams", 2))
    gone = Discarded(30.0, "ams", how, frozenset({2, 3}), frozenset({1}))
    (broken,) = found(no_copy_is_thrown_away, *told, gone)
    assert (broken.invariant, how in broken.what) == ("I10", True)
    assert not found(no_copy_is_thrown_away, *told, replace(gone, lost=frozenset({3})))
    assert not found(no_copy_is_thrown_away, *told, replace(gone, source=frozenset({1, 2})))


def directory(*rows: int) -> Data:
    wal = Wal()
    for row in rows:
        wal.write(1, "row", 200, row)
    wal.flush()
    return Data("7", wal, {})


class Forgetful(list[Data]):
    """Where old directories are kept, of a clone that deletes them."""

    def append(self, each: Data) -> None:
        pass


@pytest.mark.parametrize("kept", [[], Forgetful()])
def test_a_copy_that_deletes_what_was_there_is_found(kept: list[Data]) -> None:
    history = History([Acknowledged(10.0, "ams", 1), Acknowledged(11.0, "ams", 2)])

    async def put() -> None:
        world = World(1, fair(), history)
        server = world.servers["ams"]
        server.data, server.kept = directory(1, 2), kept
        put_in_place(server, directory(1))

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(put())
    broken = list(no_copy_is_thrown_away(history, POLICY))
    assert [each.invariant for each in broken] == ["I10"] * isinstance(kept, Forgetful)


def test_a_switchover_to_who_lacks_rows_is_found() -> None:
    given = replace(TAKEN_OVER, old=LEADS, node="ams", gave=frozenset({1, 2}))
    (broken,) = found(a_switchover_loses_nothing, replace(given, holds=frozenset({1})))
    assert broken.invariant == "S7"
    assert not found(a_switchover_loses_nothing, replace(given, holds=frozenset({1, 2, 3})))


@pytest.mark.parametrize("unanswered_s", [None, 0.01])
def test_a_stop_that_nobody_was_told_of_is_found(unanswered_s: float | None) -> None:
    parted = Parted(20.0, "ams", LEADS, said=False, unanswered_s=unanswered_s)
    (broken,) = found(a_stop_is_said_before, parted)
    assert broken.invariant == "S7"
    assert not found(a_stop_is_said_before, replace(parted, said=True))


def test_a_stop_that_etcd_did_not_hear_of_is_excused_and_one_of_who_does_not_lead() -> None:
    parted = Parted(20.0, "ams", LEADS, said=False, unanswered_s=0.06)
    assert not found(a_stop_is_said_before, parted)
    elsewhere = replace(parted, state=TAKEN_OVER.new, unanswered_s=None)
    assert not found(a_stop_is_said_before, elsewhere)


def offered(at_s: float) -> StateChanged:
    handover = Handover("fra", "Postgres on ams died")
    return replace(TAKEN_OVER, at_s=at_s, old=LEADS, new=replace(LEADS, handover=handover))


def test_a_third_failover_by_a_crash_is_found() -> None:
    times = (20.0, 40.0, 60.0)
    (broken,) = found(crashes_do_not_go_round, *map(offered, times))
    assert (broken.invariant, broken.at_s) == ("S10", 60.0)
    apart = POLICY.crash_window_s
    assert not found(crashes_do_not_go_round, *map(offered, (20.0, 40.0, 60.0 + apart)))
    without_a_fence = replace(offered(60.0), able=False)
    assert not found(crashes_do_not_go_round, *map(offered, times[:2]), without_a_fence)


def test_a_primary_that_is_killed_although_it_is_alone_is_found() -> None:
    alone = replace(LEADS, mode=Mode.SOLO, sync=())
    known = StateKnown(20.0, "ams", alone)
    (broken,) = found(no_primary_is_killed_in_vain, known, Killed(30.0, "ams", alone))
    assert broken.invariant == "S10"
    synced = StateKnown(25.0, "ams", LEADS)
    assert not found(no_primary_is_killed_in_vain, known, synced, Killed(30.0, "ams", LEADS))


def test_an_agent_is_not_held_to_what_the_one_before_it_knew() -> None:
    alone = replace(LEADS, mode=Mode.SOLO, sync=())
    known, killed = StateKnown(20.0, "ams", alone), Killed(30.0, "ams", alone)
    fenced = replace(FENCED, state=alone)
    assert found(no_primary_is_killed_in_vain, known, Began(25.0, "fra"), killed)
    assert not found(no_primary_is_killed_in_vain, known, Began(25.0, "ams"), killed)
    assert found(who_is_alone_is_not_fenced, known, Began(25.0, "fra"), fenced)
    assert not found(who_is_alone_is_not_fenced, known, Began(25.0, "ams"), fenced)


ROUTES = (("ams", "ams"), ("fra", "ams"), ("wit", "ams"))
WELL = Looked(60.0, ("ams",), served=True, synced=True, why="", routes=ROUTES)


@pytest.mark.parametrize(
    ("word", "look"),
    [
        ("writable", replace(WELL, served=False)),
        ("synced", replace(WELL, synced=False)),
        ("routed", replace(WELL, routes=(*ROUTES[:2], ("wit", "fra")))),
        ("routed", replace(WELL, routes=(*ROUTES[:2], ("wit", None)))),
        ("routed", replace(WELL, routes=())),
    ],
)
def test_a_cluster_that_does_not_recover_is_found(word: str, look: Looked) -> None:
    healed = Healed(50.0, 50.0)
    (broken,) = found(it_recovers, healed, look)
    assert (broken.invariant, f"not {word} " in broken.what) == ("I9", True)
    assert not found(it_recovers, healed, look, replace(WELL, at_s=79.0))
    assert found(it_recovers, healed, look, replace(WELL, at_s=111.0))
