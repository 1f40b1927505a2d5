"""Which machine this is, for agents that find their own name taken."""

from pathlib import Path

import pytest

from flightmode.daemon.node import machine_id


def test_the_machine_s_own_id_is_used_where_it_has_one(tmp_path: Path) -> None:
    (tmp_path / "known").write_text("3d1219c7\n")
    assert machine_id(tmp_path / "state", tmp_path / "known") == "3d1219c7"
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("text", [None, "", "uninitialized\n"])
def test_one_without_is_the_same_machine_after_a_restart_too(
    tmp_path: Path, text: str | None
) -> None:
    known = tmp_path / "known"
    if text is not None:
        known.write_text(text)
    first = machine_id(tmp_path / "state", known)
    assert len(first) == 32
    assert machine_id(tmp_path / "state", known) == first
    assert machine_id(tmp_path / "other", known) != first
