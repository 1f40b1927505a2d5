"""A bounded number of seeds: whatever goes wrong, no promise is broken and it recovers."""

from pathlib import Path

import pytest

from simulator import cases, mutants
from simulator.planted import Mutant
from simulator.planted_fast import BY_PLAN, FAST
from simulator.run import plan_of, run

FRESH = range(1, 41)


@pytest.mark.parametrize("seed", FRESH)
def test_no_promise_is_broken(seed: int) -> None:
    result = run(plan_of(seed))
    assert result.violations == [], f"python -m simulator --seed {seed} --trace"


@pytest.mark.parametrize("path", cases.kept(), ids=lambda path: path.stem)
def test_what_has_failed_once_does_not_fail_again(path: Path) -> None:
    result = run(cases.load(path))
    assert result.violations == [], f"python -m simulator --plan {path} --trace"


def test_the_same_seed_tells_the_same_story() -> None:
    once, again = run(plan_of(64)), run(plan_of(64))
    assert once.history.story == again.history.story
    assert once.history.facts == again.history.facts


def test_other_seeds_tell_other_stories() -> None:
    assert run(plan_of(1)).history.story != run(plan_of(2)).history.story


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_planted_bug_that_was_found_once_is_found_again() -> None:
    assert mutants.main(known=True) == 0


def test_the_lists_of_planted_bugs_name_planted_bugs() -> None:
    assert {mutant.name for mutant in FAST} == set(BY_PLAN)
    assert {path.stem for path in cases.kept()} >= set(BY_PLAN.values())
    names = {mutant.name for mutant in mutants.ALL}
    assert set(mutants.BY_SEED) <= names
    assert set(mutants.BY_KEPT) <= names
    assert {path.stem for path in cases.kept()} >= set(mutants.BY_KEPT.values())
    assert not set(mutants.BY_KEPT) & set(mutants.BY_SEED)
    assert len(names) >= 60


@pytest.mark.parametrize("mutant", mutants.ALL, ids=lambda mutant: mutant.name)
def test_a_planted_bug_fits_the_code_as_it_is(mutant: Mutant) -> None:
    """Or it was never planted, and its name says that something is found which nobody looks for."""
    for name, old, new in mutant.edits:
        text = (mutants.ROOT / "flightmode" / name).read_text()
        assert (text.count(old), old != new) == (1, True), old


def test_the_same_plan_gives_the_same_story_whatever_ran_before() -> None:
    """Healing makes the weather fair: of the run, and not of the plan that others are made from."""
    plan = plan_of(5)
    first = run(plan)
    run(plan_of(6))
    assert run(plan).history.story == first.history.story
    assert plan == plan_of(5)
