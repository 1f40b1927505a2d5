"""Stories with a name: one thing goes wrong (or two), and this is what has to come of it."""

from itertools import pairwise

from flightmode.model.cluster import Mode
from simulator.fault import Fault
from simulator.history import Acknowledged, BecamePrimary, PermissionEnded, StateChanged
from simulator.run import Plan, run
from simulator.weather import Weather, fair
from tests.simulation.stories import AT_S, began_s, gap_s, leaders, play, rules, states, story


def test_a_cluster_comes_up_in_mode_sync_and_stays_there() -> None:
    result = play(lasts_s=30.0)
    assert [state.mode for _, state in states(result)] == [Mode.SOLO, Mode.SYNC]
    begun = [each for each in rules(result, "ams") if each.startswith("leading: start:")]
    assert len(begun) == 1, "a job that ended during a look was begun twice"


def test_a_switchover_takes_less_than_a_second() -> None:
    result = play(Fault(AT_S, "ask", other="switchover"))
    assert leaders(result) == ["ams", "fra"]
    assert gap_s(result, AT_S) < 1.5
    assert states(result)[-1][1].sync == ("ams",)
    waited = [each for each in rules(result, "ams") if each.endswith("waiting for the job: stop")]
    assert waited == [], "a look before the stop was over made the one that matters late"


def test_a_killed_postmaster_is_handed_over_at_once() -> None:
    result = play(Fault(AT_S, "kill postgres", "ams"))
    assert leaders(result) == ["ams", "fra"]
    assert began_s(result, 2) < AT_S + 0.5


def test_a_lost_primary_is_replaced_when_its_time_is_over() -> None:
    result = play(Fault(AT_S, "power", "ams", 15.0), fast=False)
    assert leaders(result) == ["ams", "fra"]
    assert 4.0 < began_s(result, 2) - AT_S < 5.5
    assert states(result)[-1][1].sync == ("ams",)


def test_a_primary_that_is_cut_off_stops_before_it_is_replaced() -> None:
    result = play(Fault(AT_S, "cut", "ams", 15.0), fast=False)
    assert leaders(result) == ["ams", "fra"]
    (ended,) = (each for each in result.history.of(PermissionEnded) if each.primary)
    assert (ended.node, ended.why) == ("ams", "deadline")
    assert ended.at_s < began_s(result, 2)


def test_a_lost_standby_costs_a_moment_and_no_change_of_leader() -> None:
    result = play(Fault(AT_S, "power", "fra", 15.0))
    assert leaders(result) == ["ams"]
    assert gap_s(result, AT_S) < 3.5


def test_a_cut_between_the_database_nodes_is_a_degrade_and_no_failover() -> None:
    result = play(Fault(AT_S, "cut", "ams", 15.0, other="fra"))
    assert leaders(result) == ["ams"]
    assert Mode.SOLO in [state.mode for at_s, state in states(result) if at_s > AT_S]


def test_a_lost_witness_costs_nothing() -> None:
    result = play(Fault(AT_S, "cut", "wit", 15.0))
    assert [state.mode for _, state in states(result)] == [Mode.SOLO, Mode.SYNC]
    assert gap_s(result, AT_S) < 1.5


def test_a_leader_alone_outlives_an_outage_of_the_store() -> None:
    result = play(Fault(AT_S, "power", "fra", 30.0), Fault(AT_S + 8, "etcd all", lasts_s=15.0))
    assert leaders(result) == ["ams"]
    assert not [each for each in result.history.of(PermissionEnded) if each.primary]


def test_an_added_standby_is_waited_for_while_the_swap_is_in_doubt() -> None:
    """The swap that adds it is sent, the leader is cut off, and etcd carries it out later."""
    result = play(Fault(0.5, "hold swap", "ams", 14.0, other="sync", amount=4.0))
    assert leaders(result) == ["ams", "fra"]
    (ended,) = (each for each in result.history.of(PermissionEnded) if each.primary)
    assert ended.at_s < began_s(result, 2)


def test_a_degrade_that_arrives_after_a_claim_is_lost() -> None:
    result = play(
        Fault(AT_S, "cut", "ams", 20.0, other="fra"),
        Fault(AT_S, "hold swap", "ams", 14.0, other="solo", amount=9.0),
    )
    assert leaders(result) == ["ams", "fra"]


def test_a_degrade_that_arrives_before_a_claim_prevents_it() -> None:
    result = play(
        Fault(AT_S, "cut", "ams", 20.0, other="fra"),
        Fault(AT_S, "hold swap", "ams", 14.0, other="solo", amount=1.0),
    )
    assert leaders(result) == ["ams"]


def test_all_three_lose_power_and_come_back() -> None:
    off = [
        Fault(AT_S, "power", name, lasts_s)
        for name, lasts_s in (("ams", 9.0), ("fra", 3.0), ("wit", 5.0))
    ]
    result = play(*off)
    assert set(leaders(result)) <= {"ams", "fra"}


def test_nobody_takes_over_in_a_pause() -> None:
    result = play(
        Fault(AT_S, "ask", other="pause", amount=15.0),
        Fault(AT_S + 3, "kill postgres", "ams"),
        lasts_s=60.0,
    )
    assert all(at_s > AT_S + 15 for at_s, state in states(result) if state.term > 1)


def test_a_primary_whose_successor_is_gone_starts_again_in_place() -> None:
    result = play(Fault(AT_S, "hang agent", "fra", 12.0), Fault(AT_S + 0.5, "kill postgres", "ams"))
    assert leaders(result) == ["ams"]
    assert gap_s(result, AT_S) < 8.0


def test_a_promotion_that_hangs_gives_the_term_back() -> None:
    result = play(
        Fault(AT_S - 1, "stick promotion", "fra"),
        Fault(AT_S, "kill postgres", "ams"),
    )
    assert leaders(result) == ["ams", "fra", "ams"]


def test_a_standby_that_flaps_waits_before_it_is_promotable_again() -> None:
    cuts = [Fault(AT_S + 4 * i, "cut", "ams", 2.6, other="fra") for i in range(3)]
    result = play(*cuts, lasts_s=60.0)
    assert leaders(result) == ["ams"]
    added = [at_s for at_s, state in states(result) if state.mode is Mode.SYNC]
    assert all(late - early > 10.0 for early, late in pairwise(added))


def test_the_death_of_an_agent_disturbs_nobody() -> None:
    result = play(Fault(AT_S, "kill agent", "ams", 2.0))
    assert leaders(result) == ["ams"]
    assert gap_s(result, AT_S) < 1.5


def test_the_death_of_a_fence_is_the_death_of_postgres_and_is_handed_over() -> None:
    result = play(Fault(AT_S, "kill fence", "ams"))
    assert gap_s(result, AT_S) < 8.0


def test_a_leader_whose_fence_stays_away_lets_the_standby_lead() -> None:
    result = play(Fault(AT_S, "kill fence", "ams", 20.0))
    assert leaders(result) == ["ams", "fra"]
    assert gap_s(result, AT_S) < 8.0


def test_what_a_leader_acknowledged_alone_survives_a_forced_failover_beside_the_copy() -> None:
    """It was rewound: what it had acknowledged while it was cut off was nowhere any more."""
    result = play(
        Fault(AT_S, "cut", "fra", 4.0, other="ams"),
        Fault(AT_S + 3.0, "cut", "ams", 20.0),
        Fault(AT_S + 6.0, "ask", "fra", other="failover"),
    )
    assert leaders(result) == ["ams", "fra"]
    assert any(each.startswith("rejoin: clone") for each in rules(result, "ams"))
    assert states(result)[-1][1].passed_over == ()


def test_a_person_can_bring_back_a_primary_whose_successor_is_lost() -> None:
    """It was a primary, so it waits for the new one to compare histories: in vain."""
    result = play(
        Fault(AT_S, "power", "ams", 5.0),
        Fault(AT_S + 4.0, "power", "fra", 45.0),
        Fault(AT_S + 12.0, "ask", "ams", other="failover"),
    )
    assert leaders(result) == ["ams", "fra", "ams"]
    assert began_s(result, 3) < AT_S + 14.0


def test_a_machine_that_stood_still_does_not_lead_on() -> None:
    result = play(Fault(AT_S, "suspend", "ams", 12.0))
    assert leaders(result) == ["ams", "fra"]


def test_a_starved_leader_acknowledges_nothing_after_the_claim() -> None:
    """Neither its agent nor its fence runs, its Postgres does: only the detach holds it."""
    result = play(Fault(AT_S, "starve", "ams", 12.0), weather=Weather(linger_s=0.6))
    assert leaders(result) == ["ams", "fra"]


def test_a_lost_slot_is_made_again_also_in_the_term_of_the_first_copy() -> None:
    """A node that had been cloned in a term restarted without end when it lost its slot in it."""
    result = play(Fault(AT_S, "lose slot", "fra"))
    assert leaders(result) == ["ams"]
    assert states(result)[-1][1].sync == ("fra",)


def test_a_failed_rewind_is_followed_by_one_copy() -> None:
    """A node whose rewind had failed cloned again and again, although the first clone was good."""
    result = play(
        Fault(AT_S, "kill postgres", "ams"),
        Fault(AT_S + 0.6, "cut", "ams", 3.0, other="fra"),
        weather=Weather(copy_slow_s=2.0),
    )
    copies = [each for each in rules(result, "ams") if each.startswith("rejoin: clone")]
    assert len(copies) <= 2
    assert len(list(result.history.of(BecamePrimary))) == 2


# ------------------------------------------------------------------ the fast path (S3.1)


def test_a_lost_host_is_replaced_as_soon_as_two_nodes_miss_it() -> None:
    result = play(Fault(AT_S, "power", "ams", 15.0))
    assert leaders(result) == ["ams", "fra"]
    assert 1.2 < began_s(result, 2) - AT_S < 2.0
    assert " is lost: " in states(result)[-1][1].reason
    assert states(result)[-1][1].sync == ("ams",)


def test_a_primary_that_is_cut_off_acknowledges_nothing_while_it_is_replaced() -> None:
    """Its Postgres runs on for seconds after the claim, with a client beside it."""
    result = play(Fault(AT_S, "cut", "ams", 15.0))
    claimed_s = began_s(result, 2)
    (ended,) = (each for each in result.history.of(PermissionEnded) if each.primary)
    assert claimed_s - AT_S < 2.0 < ended.at_s - claimed_s
    acknowledged = [fact for fact in result.history.of(Acknowledged) if fact.node == "ams"]
    assert not [fact for fact in acknowledged if AT_S + 0.1 < fact.at_s < AT_S + 15]


def test_one_observer_is_not_enough() -> None:
    """Nothing of ams gets to fra, all of it to wit: commits go on alone, nobody takes over."""
    result = play(Fault(AT_S, "one way", "ams", 12.0, other="fra"))
    assert leaders(result) == ["ams"]
    assert Mode.SOLO in [state.mode for at_s, state in states(result) if at_s > AT_S]


def test_the_death_of_agent_and_witness_link_is_no_loss_of_the_host() -> None:
    """wit misses every sign of life; fra hears the fence: only the ttl counts."""
    result = play(
        Fault(AT_S, "hang agent", "ams", 20.0), Fault(AT_S, "cut", "ams", 20.0, other="wit")
    )
    assert 4.0 < began_s(result, 2) - AT_S < 6.5
    assert "silent" in states(result)[-1][1].reason


def test_streaming_wal_is_a_sign_of_life() -> None:
    """Heartbeats and etcd are gone for everybody, WAL flows on."""
    result = play(
        Fault(AT_S, "mute", "ams", 4.0), Fault(AT_S, "etcd all", lasts_s=3.0), lasts_s=40.0
    )
    assert leaders(result) == ["ams"]


def test_renewals_are_a_sign_of_life() -> None:
    """No heartbeat gets through, and no WAL is written: the leader still renews."""
    result = play(Fault(AT_S, "mute", "ams", 10.0), lasts_s=40.0)
    assert leaders(result) == ["ams"]


def test_a_host_that_comes_back_in_time_is_not_replaced() -> None:
    result = play(Fault(AT_S, "cut", "ams", 1.0))
    assert leaders(result) == ["ams"]
    assert gap_s(result, AT_S) < 3.0


# ------------------------------------------------------------------ the peer lease (S6)


def test_an_outage_of_all_of_etcd_costs_no_commit_while_the_database_nodes_talk() -> None:
    result = play(Fault(AT_S, "etcd all", lasts_s=60.0), lasts_s=90.0)
    assert leaders(result) == ["ams"]
    assert gap_s(result, AT_S) < 1.0
    assert not [each for each in result.history.of(PermissionEnded) if each.primary]


def test_without_etcd_and_without_its_standby_a_primary_stops() -> None:
    """It can't record that it is alone, and the standby may have been seen by others."""
    result = play(
        Fault(AT_S, "etcd all", lasts_s=20.0), Fault(AT_S + 5.0, "cut", "fra", 15.0), lasts_s=60.0
    )
    (ended,) = (each for each in result.history.of(PermissionEnded) if each.primary)
    assert 4.0 < ended.at_s - (AT_S + 5.0) < 5.0


def test_who_has_promised_waits_until_the_promise_is_over() -> None:
    """etcd comes back for fra in the moment in which ams is lost."""
    result = play(Fault(AT_S, "etcd all", lasts_s=10.0), Fault(AT_S + 9.9, "power", "ams", 20.0))
    assert leaders(result) == ["ams", "fra"]
    assert 4.5 < began_s(result, 2) - (AT_S + 9.9) < 7.5


# ------------------------------------------------------------------ the deep probe (S10)


def test_a_hung_postmaster_is_replaced_within_eight_seconds() -> None:
    result = play(Fault(AT_S, "hang postmaster", "ams", 25.0), lasts_s=60.0)
    assert leaders(result) == ["ams", "fra"]
    assert 3.0 < began_s(result, 2) - AT_S < 8.0
    assert "leading: hung" in {each.partition(": Postgres")[0] for each in rules(result, "ams")}


def test_a_stalled_disk_is_replaced_within_eight_seconds() -> None:
    result = play(Fault(AT_S, "stall disk", "ams", 25.0), lasts_s=60.0)
    assert leaders(result) == ["ams", "fra"]
    assert began_s(result, 2) - AT_S < 8.0


def test_a_disk_that_stalls_for_a_moment_is_waited_for() -> None:
    result = play(Fault(AT_S, "stall disk", "ams", 3.0))
    assert leaders(result) == ["ams"]


def test_a_hung_postmaster_without_a_standby_is_left_alone() -> None:
    result = play(
        Fault(AT_S - 6, "power", "fra", 40.0), Fault(AT_S, "hang postmaster", "ams", 10.0)
    )
    assert leaders(result) == ["ams"]
    assert len(list(result.history.of(BecamePrimary))) == 1


# ------------------------------------------------------------------ nodes come and go


def test_a_standby_that_is_to_go_is_relieved_by_another_one() -> None:
    """flightmode.toml does not have it any more; it streams on until its machine is taken off."""
    exchange = Fault(AT_S, "exchange", "standby", 25.0)
    result = run(Plan(7, fair(), (exchange,), 50.0, three=True))
    assert result.violations == [], story(result)
    changes = [f for f in result.history.of(StateChanged) if f.new is not None]
    (gone,) = [f.new.sync for f in changes if f.new and f.at_s < AT_S][-1]
    after = [f for f in changes if f.new and f.at_s > AT_S and f.new.sync not in ((), (gone,))]
    assert after[0].at_s < AT_S + 6.0
    assert gap_s(result, AT_S) < 0.5, "and no commit waits for that"


def test_the_only_standby_is_not_let_go_before_another_one_is_there() -> None:
    exchange = Fault(AT_S, "exchange", "fra", 25.0)
    result = play(exchange)
    assert leaders(result) == ["ams"]
    assert states(result)[-1][1].sync == ("fra",)
    assert all(state.mode is Mode.SYNC for at_s, state in states(result) if at_s > AT_S)
