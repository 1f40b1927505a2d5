"""What the data path is told of the cluster."""

from dataclasses import replace

from flightmode.model.cluster import Handover
from flightmode.model.lsn import Lsn
from flightmode.model.server import Run
from flightmode.model.view import StoreView
from flightmode.proxy.news import Following, News, Outlook, catch_up, news_of
from tests.unit.sights import NOW_S, POLICY, POSITION, STATE, member, seen, store


def outlook(of: StoreView | None = None, now_s: float = NOW_S) -> Outlook:
    return Outlook(now_s, POLICY, store() if of is None else of)


def told(of: StoreView | None = None, caught_up_s: dict[str, float] | None = None) -> News:
    moments = catch_up({}, outlook(of)) if caught_up_s is None else caught_up_s
    news = news_of(outlook(of), 9, moments)
    assert news is not None
    return news


def test_a_healthy_cluster_has_a_primary_and_a_standby_without_lag() -> None:
    follower = Following("fra", 0, 0.0, str(POSITION))
    assert told() == News(4, 9, "ams", (follower,), "bootstrap")


def test_without_a_state_there_is_nothing_to_tell() -> None:
    assert news_of(outlook(store(state=None)), 9, {}) is None


def test_a_primary_that_is_about_to_stop_is_told_so_and_stays_the_primary() -> None:
    """What is under way there may end; a proxy that took it for gone would cut it off."""
    news = told(store(seen(member("ams", parting=True)), seen(member("fra"))))
    assert (news.primary, news.parting, news.serving) == ("ams", True, None)
    assert news.as_json()["parting"] is True
    assert news.reason == "ams is about to be stopped"
    assert told().serving == "ams"


def test_a_primary_whose_agent_died_as_it_was_about_to_stop_serves() -> None:
    """Alone, nothing else would end that: clients would be held beside a healthy PostgreSQL."""
    said_long_ago = seen(member("ams", parting=True), ago_s=10.0)
    assert told(store(said_long_ago, seen(member("fra")))).serving == "ams"


def test_who_is_no_primary_any_more_parts_no_more() -> None:
    """A record that nobody has renewed says nothing of the next leader."""
    state = replace(STATE, term=5, leader="fra", previous="ams", sync=())
    promoted = member("fra", run=Run.PRIMARY, term=5, streaming=False, following=None)
    news = told(store(seen(member("ams", parting=True)), seen(promoted), state=state))
    assert (news.primary, news.parting) == ("fra", False)


def test_during_a_handover_nobody_takes_writes() -> None:
    news = told(store(state=replace(STATE, handover=Handover("fra", "switchover"))))
    assert news.primary is None
    assert news.reason == "ams hands over to fra"


def test_a_new_leader_is_told_once_it_takes_writes_in_its_term() -> None:
    state = replace(STATE, term=5, leader="fra", previous="ams", sync=())
    claimed = store(seen(member("ams", run=Run.STOPPED)), seen(member("fra", term=5)), state=state)
    assert told(claimed).primary is None
    promoted = member("fra", run=Run.PRIMARY, term=5, streaming=False, following=None)
    serving = store(seen(member("ams", run=Run.STOPPED)), seen(promoted), state=state)
    assert told(serving).primary == "fra"
    assert told(serving).term == 5


def test_the_old_term_s_primary_is_not_taken_for_the_new_one() -> None:
    state = replace(STATE, term=5, leader="ams", previous="fra", sync=())
    assert told(store(state=state)).primary is None


def test_the_age_of_a_standby_s_data_counts_from_when_it_last_had_everything() -> None:
    behind = store(seen(member("ams")), seen(member("fra", replayed=Lsn(POSITION - 4096))))
    (follower,) = told(behind, {"fra": NOW_S - 7.5}).standbys
    assert follower.lag_s == 7.5
    assert follower.lag_bytes == 4096


def test_a_standby_that_never_was_seen_to_have_everything_is_not_offered() -> None:
    behind = store(seen(member("ams")), seen(member("fra", replayed=Lsn(1))))
    assert told(behind).standbys == ()


def test_a_standby_that_does_not_stream_ages_although_nobody_may_have_written() -> None:
    alone = store(seen(member("ams")), seen(member("fra", streaming=False)))
    assert catch_up({"fra": NOW_S - 3}, outlook(alone)) == {"fra": NOW_S - 3}
    streaming = catch_up({"fra": NOW_S - 3}, outlook())
    assert streaming == {"fra": NOW_S}


def test_a_standby_that_is_silent_or_shut_is_not_offered() -> None:
    silent = store(seen(member("ams")), seen(member("fra"), ago_s=60))
    shut = store(seen(member("ams")), seen(member("fra", admits_clients=False)))
    assert told(silent, {"fra": NOW_S}).standbys == ()
    assert told(shut, {"fra": NOW_S}).standbys == ()


def test_a_silent_leader_takes_no_writes_after_its_ttl() -> None:
    silent = store(state_changed_s=NOW_S - POLICY.ttl_s - 0.1)
    assert told(silent).primary is None
