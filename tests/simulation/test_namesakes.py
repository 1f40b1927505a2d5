"""A second machine under a node's name, as after an edit of its address: it harms nobody (R45)."""

import pytest

from flightmode.model.cluster import Mode
from simulator.fault import Fault
from tests.simulation.stories import AT_S, began_s, gap_s, leaders, play, rules, states


@pytest.mark.parametrize("name", ["ams", "fra", "wit"])
def test_a_machine_that_comes_under_a_name_that_is_taken_leaves_everything_as_it_is(
    name: str,
) -> None:
    result = play(Fault(AT_S, "namesake", name, 20.0))
    assert leaders(result) == ["ams"]
    assert states(result)[-1][1].mode is Mode.SYNC
    assert [at_s for at_s, _ in states(result) if at_s > AT_S] == []
    assert gap_s(result, AT_S) < 0.5


def test_the_newcomer_says_so_and_begins_nothing() -> None:
    result = play(Fault(AT_S, "namesake", "fra", 20.0))
    told = [each for each in rules(result, "fra") if each.startswith("namesake: ")]
    assert told
    assert all("->" not in each for each in told)


def test_it_does_not_lead_in_the_place_of_a_primary_that_is_lost() -> None:
    result = play(
        Fault(AT_S, "namesake", "ams", 25.0), Fault(AT_S + 5.0, "power", "ams", 15.0), fast=False
    )
    assert leaders(result) == ["ams", "fra"]
    assert began_s(result, 2) - AT_S < 11.0
