"""The names of the keys."""

import pytest

from flightmode.store import keys


def test_all_keys_lie_below_the_clusters_prefix_and_differ() -> None:
    found = [
        keys.state("main"),
        keys.config("main"),
        keys.member("main", "ams"),
        keys.request("main", "switchover"),
        keys.request("main", "restart", "ams"),
        keys.history("main", 7),
        keys.event("main", "switchover"),
        keys.event("main", "restart", "ams"),
    ]
    assert len(set(found)) == len(found)
    assert all(key.startswith("/flightmode/main/") for key in found)


def test_a_clusters_prefix_does_not_cover_one_with_a_longer_name() -> None:
    assert not keys.state("main2").startswith(keys.prefix("main"))


def test_the_history_is_in_the_order_of_terms() -> None:
    terms = [0, 1, 9, 10, 99, 100, 10**9]
    names = [keys.history("main", term) for term in terms]
    assert names == sorted(names)
    assert [keys.term_of("main", name) for name in names] == terms


def test_names_are_found_again_in_keys_and_only_there() -> None:
    assert keys.node_of("main", keys.member("main", "ams")) == "ams"
    assert keys.node_of("main", keys.state("main")) is None
    assert keys.node_of("main", keys.members("main")) is None
    assert keys.term_of("main", keys.state("main")) is None
    assert keys.term_of("main", keys.histories("main") + "x") is None
    assert keys.term_of("other", keys.history("main", 1)) is None


@pytest.mark.parametrize(
    "name", ["", "a/b", "..", ".", "A", "-a", "a-", "ä", "a b", "a" * 64, "a\n"]
)
def test_a_name_that_could_climb_into_another_key_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        keys.member("main", name)
    with pytest.raises(ValueError, match="name"):
        keys.prefix(name)


@pytest.mark.parametrize("term", [-1, 10**keys.TERM_DIGITS])
def test_a_term_out_of_range_is_refused(term: int) -> None:
    with pytest.raises(ValueError, match="term"):
        keys.history("main", term)
