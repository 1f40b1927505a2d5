"""A bounded number of seeds: whatever goes wrong, no promise is broken and it recovers."""

import pytest

from simulator.__main__ import known_seeds
from simulator.run import plan_of, run

FRESH = range(1, 61)


@pytest.mark.parametrize("seed", [*known_seeds(), *FRESH])
def test_no_promise_is_broken(seed: int) -> None:
    result = run(plan_of(seed))
    assert result.violations == [], f"python -m simulator --seed {seed} --trace"


def test_the_same_seed_tells_the_same_story() -> None:
    once, again = run(plan_of(64)), run(plan_of(64))
    assert once.history.story == again.history.story
    assert once.history.facts == again.history.facts


def test_other_seeds_tell_other_stories() -> None:
    assert run(plan_of(1)).history.story != run(plan_of(2)).history.story
