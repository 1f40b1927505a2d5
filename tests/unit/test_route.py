"""Who takes writes and who takes reads."""

from dataclasses import replace

import pytest

from flightmode.decide.route import Route, holds_primary, route, streams, unwell
from flightmode.model.cluster import Handover, Mode, Pause
from flightmode.model.server import Run, Server
from flightmode.model.view import Renewed
from tests.unit.sights import NOW_S, STATE, WALL_S, member, seen, store, view

SOLO = replace(STATE, mode=Mode.SOLO, sync=())


@pytest.mark.parametrize("me", ["ams", "fra", "wit"])
def test_every_node_of_a_healthy_cluster_gives_the_same_answer(me: str) -> None:
    assert route(view(me)) == Route("ams", ("fra",), "ams leads term 4")


def test_only_the_leader_holds_the_primary() -> None:
    assert [holds_primary(view(me)) for me in ("ams", "fra", "wit")] == [True, False, False]


@pytest.mark.parametrize("me", ["ams", "fra", "wit"])
def test_a_healthy_node_is_well(me: str) -> None:
    assert unwell(view(me)) is None


def test_without_a_state_nobody_takes_anything() -> None:
    blank = view(store=store(state=None))
    assert route(blank) == Route(None, (), "there is no cluster yet")
    assert not holds_primary(blank)
    assert unwell(blank) == "there is no cluster yet"


# ------------------------------------------------------------------------- the leader itself


def test_a_postgres_that_runs_as_primary_without_the_term_takes_no_writes() -> None:
    elsewhere = view(store=store(state=replace(STATE, leader="fra", sync=())))
    assert not holds_primary(elsewhere)


@pytest.mark.parametrize("run", [run for run in Run if run is not Run.PRIMARY])
def test_a_leader_whose_postgres_is_no_primary_takes_no_writes(run: Run) -> None:
    sick = view(server=replace(view().server, run=run))
    assert not holds_primary(sick)
    assert route(sick).writes is None
    assert str(run) in (unwell(sick) or "")


def test_a_leader_that_lets_no_clients_in_takes_no_writes() -> None:
    closed = view(server=replace(view().server, admits_clients=False))
    assert not holds_primary(closed)
    assert route(closed).reason == "ams leads, and lets no clients in yet"


def test_an_ended_permission_ends_the_writes() -> None:
    late = replace(view(), now_s=NOW_S + 4.01)
    assert not holds_primary(late)
    assert route(late).reason == "the permission of ams to lead is over"


@pytest.mark.parametrize(
    "fence",
    [
        {"term": 3},
        {"deadline_s": None},
        {"expired": True},
        {"lifted": True, "expired": True},
        {"lifted": True, "term": 3},
    ],
)
def test_a_fence_that_gives_no_permission_ends_the_writes(fence: dict[str, object]) -> None:
    assert not holds_primary(view(fence=replace(view().fence, **fence)))  # type: ignore[arg-type]


def test_a_lifted_fence_has_no_deadline_also_while_the_store_is_silent() -> None:
    lifted = replace(view().fence, lifted=True, deadline_s=None)
    alone = view(fence=lifted, store=store(state=SOLO, reachable=False, in_doubt=50))
    assert holds_primary(replace(alone, now_s=NOW_S + 3600))


def test_while_the_fence_is_silent_the_own_count_holds() -> None:
    mute = view(fence=replace(view().fence, reachable=False))
    assert holds_primary(mute)
    assert not holds_primary(replace(mute, now_s=NOW_S + 4.3))


def test_while_the_fence_is_silent_a_confirmed_solo_holds() -> None:
    mute = view(
        fence=replace(view().fence, reachable=False),
        store=store(state=SOLO),
        renewed=Renewed(4, NOW_S - 100, True),
    )
    assert holds_primary(mute)


# ------------------------------------------------------------------------- as others see it


def test_a_leader_whose_agent_is_silent_still_takes_writes_while_the_state_is_renewed() -> None:
    quiet = store(seen(member("ams"), 60), seen(member("fra")))
    assert route(view("fra", store=quiet)).writes == "ams"


def test_a_leader_that_did_not_renew_for_its_ttl_takes_no_writes() -> None:
    assert route(view("fra", store=store(state_changed_s=NOW_S - 5.1))).writes is None


@pytest.mark.parametrize(
    "state", [SOLO, replace(STATE, pause=Pause(WALL_S + 60, "me"))], ids=["solo", "paused"]
)
def test_a_silent_leader_that_nobody_may_follow_stays_the_answer(state: object) -> None:
    changes = {"state": state, "state_changed_s": NOW_S - 60}
    assert route(view("fra", store=store(**changes))).writes == "ams"  # type: ignore[arg-type]


def test_while_the_store_is_silent_the_last_known_leader_stays_the_answer() -> None:
    blind = store(reachable=False, state_changed_s=NOW_S - 60)
    assert route(view("wit", store=blind)).writes == "ams"


@pytest.mark.parametrize(
    "about",
    [{"run": Run.STOPPED}, {"run": Run.STANDBY}, {"admits_clients": False}, {"term": 3}],
    ids=str,
)
def test_a_leader_that_says_it_is_not_ready_takes_no_writes(about: dict[str, object]) -> None:
    said = store(seen(member("ams", **about)), seen(member("fra")))
    assert route(view("wit", store=said)).writes is None


def test_a_leader_that_hands_over_takes_no_writes() -> None:
    offered = store(state=replace(STATE, handover=Handover("fra", "it died")))
    assert route(view("wit", store=offered)).reason == "ams hands over to fra"


def test_a_leader_that_never_spoke_takes_no_writes() -> None:
    assert route(view("wit", store=store(seen(member("fra"))))).writes is None


# ------------------------------------------------------------------------- reads


def test_without_a_standby_the_primary_takes_the_reads() -> None:
    lonely = store(seen(member("ams")), seen(member("fra", streaming=False)))
    assert route(view(store=lonely)).reads == ("ams",)


def test_reads_go_on_where_nobody_takes_writes() -> None:
    down = view(server=Server(Run.STOPPED))
    assert route(down) == Route(None, ("fra",), "ams leads, and its Postgres is stopped")


@pytest.mark.parametrize(
    "about",
    [{"run": Run.STARTING}, {"streaming": False}, {"following": "wit"}, {"following": None}],
    ids=str,
)
def test_a_standby_that_does_not_stream_from_the_leader_takes_no_reads(
    about: dict[str, object],
) -> None:
    said = store(seen(member("ams")), seen(member("fra", **about)))
    assert not streams(view("wit", store=said), "fra")


def test_a_standby_that_is_silent_takes_no_reads() -> None:
    said = store(seen(member("ams")), seen(member("fra"), 3.1))
    assert not streams(view("wit", store=said), "fra")


def test_a_standby_knows_best_itself_whether_it_streams() -> None:
    cut = view("fra", server=replace(view("fra").server, receiver=None))
    assert not streams(cut, "fra")
    assert unwell(cut) == "Postgres is standby and does not stream from ams"


def test_the_leader_is_never_counted_as_a_standby() -> None:
    said = store(seen(member("ams", run=Run.STANDBY, streaming=True, following="ams")))
    assert not streams(view("wit", store=said), "ams")


def test_a_witness_is_unwell_without_the_store() -> None:
    assert unwell(view("wit", store=store(reachable=False))) == "etcd does not answer"
