"""Whom to ask next, and what an answer may not fall behind."""

import itertools

import pytest

from flightmode.store.endpoints import Endpoints, Floor
from flightmode.store.wire import Header, Malformed


def three() -> Endpoints:
    return Endpoints(("a", "b", "c"), probe_every_s=10.0)


def turns(endpoints: Endpoints, now_s: float, count: int = 4) -> list[tuple[str, float]]:
    return list(itertools.islice(endpoints.turns(now_s, alone_s=0.2), count))


def test_the_order_is_the_configured_one_at_first() -> None:
    assert three().order() == ("a", "b", "c")


def test_the_one_that_answered_last_is_asked_first() -> None:
    endpoints = three()
    endpoints.prefer("c", now_s=0.0)
    assert endpoints.order() == ("c", "a", "b")


def test_one_that_failed_is_asked_last_until_it_answers() -> None:
    endpoints = three()
    endpoints.failed("a", now_s=0.0)
    assert endpoints.order() == ("b", "c", "a")
    endpoints.failed("b", now_s=0.0)
    assert endpoints.order() == ("c", "a", "b")
    endpoints.prefer("a", now_s=0.0)
    assert endpoints.order() == ("a", "c", "b")


def test_when_all_failed_the_one_that_failed_first_is_asked_first() -> None:
    endpoints = three()
    for url in ("a", "b", "c"):
        endpoints.failed(url, now_s=0.0)
    assert endpoints.order() == ("a", "b", "c")
    endpoints.failed("a", now_s=0.0)
    assert endpoints.order() == ("b", "c", "a")


def test_the_failure_of_one_that_is_not_the_best_leaves_the_best() -> None:
    endpoints = three()
    endpoints.failed("b", now_s=0.0)
    assert endpoints.order() == ("a", "c", "b")


def test_a_read_probes_the_preferred_one_now_and_then() -> None:
    endpoints = three()
    endpoints.failed("a", now_s=100.0)
    assert turns(endpoints, 109.9) == [("b", 0.2), ("c", 0.2), ("a", 0.2), ("b", 0.2)]
    assert turns(endpoints, 110.0)[:2] == [("a", 0.1), ("b", 0.2)]
    assert turns(endpoints, 110.1)[0] == ("b", 0.2)
    assert turns(endpoints, 120.0)[0] == ("a", 0.1)


def test_writes_never_begin_with_the_probed_one() -> None:
    endpoints = three()
    endpoints.failed("a", now_s=100.0)
    turns(endpoints, 110.0)
    assert endpoints.order()[0] == "b"


def test_a_read_goes_round_without_end() -> None:
    assert [url for url, _ in turns(three(), 0.0, 7)] == ["a", "b", "c", "a", "b", "c", "a"]


@pytest.mark.parametrize("urls", [(), ("a", "a")])
def test_no_endpoint_or_one_given_twice_is_refused(urls: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="endpoint"):
        Endpoints(urls, probe_every_s=10.0)


HEADER = Header(cluster_id=7, member_id=1, raft_term=3, revision=42)


def test_the_floor_rises_with_what_is_known() -> None:
    floor = Floor().raised(HEADER)
    assert floor == Floor(7, 3, 42)
    assert floor.raised(Header(7, 2, 2, 41)) == floor
    assert floor.raised(Header(7, 2, 4, 50)) == Floor(7, 4, 50)
    floor.check(HEADER)


@pytest.mark.parametrize(
    "header", [Header(8, 1, 3, 42), Header(7, 1, 2, 42), Header(7, 1, 3, 41), Header(8, 1, 9, 99)]
)
def test_an_answer_from_another_cluster_or_from_the_past_is_refused(header: Header) -> None:
    with pytest.raises(Malformed):
        Floor().raised(HEADER).check(header)


def test_an_answer_that_carries_no_revision_is_judged_by_the_rest() -> None:
    Floor().raised(HEADER).check(Header(7, 1, 3, 0))
