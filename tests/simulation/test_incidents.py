"""What has gone wrong elsewhere, played here: one row of docs/incidents.md after the other."""

import pytest

from flightmode.model.cluster import Mode
from simulator.fault import Fault
from simulator.history import BecamePrimary, StateChanged
from simulator.weather import Weather
from tests.simulation.stories import AT_S, began_s, fenced, gap_s, leaders, play, rules, states


@pytest.mark.parametrize("member", ["wit", "fra"])
def test_row_01_a_leader_of_etcd_whose_disk_stalls_holds_up_no_primary(member: str) -> None:
    """etcd's leader does not lead on by answering: another one renews the primary's term."""
    result = play(Fault(AT_S, "stall disk", member, 12.0), lasts_s=60.0)
    assert leaders(result) == ["ams"]
    assert fenced(result) == []
    times = [fact.at_s for fact in result.history.of(StateChanged) if fact.node == "ams"]
    assert [at_s for at_s in times if AT_S + 4.0 < at_s < AT_S + 12.0], "it renews meanwhile"


def test_row_02_an_election_of_etcd_gives_a_lost_leader_no_more_time() -> None:
    """A silence is timed by who waits, and not by a lease that each election begins anew."""
    result = play(
        Fault(AT_S - 0.5, "etcd member", "wit", 0.4), Fault(AT_S, "power", "ams", 20.0), fast=False
    )
    assert leaders(result) == ["ams", "fra"]
    assert 3.0 < began_s(result, 2) - AT_S < 6.0


def test_row_03_news_of_etcd_that_are_forgotten_delay_no_failover() -> None:
    """A watch only wakes: what is decided rests on reads and on heartbeats."""
    result = play(
        Fault(AT_S - 0.1, "forget changes"),
        Fault(AT_S, "power", "ams", 15.0),
        Fault(AT_S + 0.5, "forget changes"),
    )
    assert leaders(result) == ["ams", "fra"]
    assert began_s(result, 2) - AT_S < 2.0


def test_row_04_a_slow_etcd_demotes_no_healthy_primary() -> None:
    result = play(Fault(AT_S, "store slow", "", 20.0, amount=0.4), lasts_s=60.0)
    assert leaders(result) == ["ams"]
    assert fenced(result) == []
    assert gap_s(result, AT_S) < 1.5


def test_row_08_a_pause_outlasts_an_outage_of_etcd() -> None:
    """Without its standby no promise extends its permission: only the pause does."""
    result = play(
        Fault(AT_S, "ask", other="pause", amount=40.0),
        Fault(AT_S + 3.0, "etcd all", lasts_s=20.0),
        Fault(AT_S + 3.0, "cut", "ams", 20.0, other="fra"),
        lasts_s=70.0,
    )
    assert leaders(result) == ["ams"]
    assert fenced(result) == []
    assert len(list(result.history.of(BecamePrimary))) == 1


def test_row_17_who_lacks_the_last_of_the_wal_is_not_given_the_term() -> None:
    """Postgres stops cleanly and could not send everything: it starts again where it was."""
    result = play(
        Fault(AT_S - 0.5, "slow link", "fra", 3.0, amount=0.3),
        Fault(AT_S, "ask", other="switchover"),
        Fault(AT_S + 0.18, "cut", "ams", 9.0, other="fra"),
        lasts_s=60.0,
    )
    assert leaders(result) == ["ams"]
    assert "switchover: undo" in {each.partition(": fra")[0] for each in rules(result, "ams")}


def test_row_20_writes_do_not_wait_for_the_primary_that_was_lost() -> None:
    result = play(Fault(AT_S, "power", "ams", 25.0), lasts_s=60.0)
    assert leaders(result) == ["ams", "fra"]
    since_s = began_s(result, 2)
    alone = [state for at_s, state in states(result) if since_s <= at_s < AT_S + 25.0]
    assert [state.mode for state in alone] == [Mode.SOLO]
    assert gap_s(result, AT_S) < 4.0


def test_row_25_a_primary_whose_disk_is_full_hands_over() -> None:
    """And does not crash and start for as long as it is full."""
    result = play(Fault(AT_S, "fill disk", "ams", 30.0), lasts_s=80.0)
    assert leaders(result) == ["ams", "fra"]
    assert gap_s(result, AT_S) < 4.0
    died = [each for each in rules(result, "ams") if each.startswith("leading: start:")]
    assert len(died) == 1, "only the start of the cluster"


def test_row_28_a_long_recovery_is_waited_for() -> None:
    """Nobody else could lead, so nothing is gained by starting it over."""
    result = play(
        Fault(AT_S + 10, "power", "fra", 40.0),
        Fault(AT_S + 20, "kill postgres", "ams"),
        lasts_s=90.0,
        weather=Weather(recovery_slow=1.0),
    )
    assert leaders(result) == ["ams"]
    assert len(list(result.history.of(BecamePrimary))) == 2
    began = [each for each in rules(result, "ams") if each.startswith("leading: start:")]
    assert len(began) == 2


@pytest.mark.parametrize("how", ["freeze", "suspend"])
@pytest.mark.parametrize(("node", "within_s"), [("fra", 4.0), ("wit", 1.5)])
def test_row_59_a_machine_beside_the_primary_that_stands_still_costs_a_moment(
    node: str, within_s: float, how: str
) -> None:
    result = play(Fault(AT_S, how, node, 8.0), lasts_s=50.0)
    assert leaders(result) == ["ams"]
    assert fenced(result) == []
    assert gap_s(result, AT_S) < within_s


@pytest.mark.parametrize("node", ["ams", "fra", "wit"])
def test_row_60_a_network_that_fails_by_and_by_promotes_nobody_falsely(node: str) -> None:
    result = play(Fault(AT_S, "slower link", node, 20.0, amount=1.0), lasts_s=60.0)
    assert leaders(result) == ["ams"]
    assert fenced(result) == []
