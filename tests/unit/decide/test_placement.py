"""Where etcd's leader belongs."""

from dataclasses import replace

import pytest

from flightmode.decide.placement import better_place
from flightmode.model.cluster import Handover, Pause, RequestKind
from flightmode.model.placement import Placement
from flightmode.model.view import Job, JobKind, View
from tests.unit.decide.worlds import (
    ABSENT,
    NOW_S,
    STANDBY,
    SYNC,
    WALL_S,
    WIT,
    follower,
    leader,
    member,
    request,
    seen,
    store,
)

HERE = Placement("ams", ("ams", "fra", "wit"))


def test_etcd_is_led_by_the_witness_rather_than_by_the_primarys_host() -> None:
    assert better_place(leader(), HERE) == "wit"


def test_without_the_witness_the_standbys_host_is_better() -> None:
    assert better_place(leader(), replace(HERE, well=("ams", "fra"))) == "fra"


def test_without_anybody_it_stays() -> None:
    assert better_place(leader(), replace(HERE, well=("ams",))) is None


@pytest.mark.parametrize("elsewhere", ["fra", "wit", None])
def test_elsewhere_it_stays(elsewhere: str | None) -> None:
    assert better_place(leader(), replace(HERE, leader=elsewhere)) is None


def test_only_the_leader_asks() -> None:
    assert better_place(follower(), replace(HERE, leader="fra")) is None


@pytest.mark.parametrize(
    "busy",
    [
        leader(store=store(members=(seen(member(WIT, ABSENT, suspects=3)),))),
        leader(store=store(replace(SYNC, handover=Handover("fra", "x")))),
        leader(store=store(replace(SYNC, pause=Pause(WALL_S + 9, "ada")))),
        leader(store=store(in_doubt=90)),
        leader(store=store(requests=(request(RequestKind.SWITCHOVER),))),
        leader(store=store(reachable=False)),
        leader(job=Job(JobKind.CHECKPOINT, 3, NOW_S)),
        leader(server=STANDBY),
    ],
    ids=["suspect", "handover", "pause", "doubt", "request", "silent", "job", "no primary"],
)
def test_while_anything_is_going_on_it_stays(busy: View) -> None:
    assert better_place(busy, HERE) is None
