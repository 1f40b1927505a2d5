"""What a host gets, held against the texts that were read when it was last changed."""

from pathlib import Path

import pytest

from tests.unit.provision.golden import CASES, HOME, differences, kept, write


@pytest.mark.parametrize("case", CASES)
def test_a_host_gets_what_it_got_before(case: str) -> None:
    assert kept(case), f"nothing is kept of {case}: ./dev golden"
    found = differences(case, CASES[case]())
    assert not found, f"{found}\nIf that is as it should be: ./dev golden, and read `git diff`."


def test_of_every_kept_text_there_is_a_case() -> None:
    assert {path.name for path in HOME.iterdir()} == set(CASES)


def test_a_text_that_differs_is_missing_or_left_over_is_found(tmp_path: Path) -> None:
    write(tmp_path)
    made = dict(CASES["node"]())
    assert differences("node", made, tmp_path) == ""
    (tmp_path / "node" / "old.txt").write_text("old\n")
    leaves = made.pop("leaves.txt")
    made["new.txt"] = leaves
    made["plan.txt"] += "one more line\n"
    found = differences("node", made, tmp_path)
    assert "node/old.txt: is not made\n" in found
    assert "node/leaves.txt: is not made\n" in found
    assert "node/new.txt: is not kept\n" in found
    assert "+one more line\n" in found
    write(tmp_path)
    assert not (tmp_path / "node" / "old.txt").exists()
