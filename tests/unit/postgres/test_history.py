"""Timelines, from the files of pg_wal."""

from pathlib import Path

import pytest

from flightmode.model.lsn import NOWHERE, Lsn
from flightmode.model.timeline import History, Switch
from flightmode.postgres import history

TEXT = (
    "1\t0/3000148\tno recovery target specified\n\n# a remark\n2\t1/0\tbefore 2000-01-01 00:00:00\n"
)
MIB = 1 << 20


def test_a_history_file_is_read() -> None:
    expected = (Switch(1, Lsn(0x3000148)), Switch(2, Lsn(1 << 32)))
    assert history.parse(3, TEXT) == History(3, expected)


def test_the_first_timeline_has_no_file(tmp_path: Path) -> None:
    assert history.read(tmp_path, 1) == History(1)


def test_a_file_that_is_not_there_yet_is_no_history(tmp_path: Path) -> None:
    assert history.read(tmp_path, 2) is None


def test_positions_up_to_the_switch_belong_to_it_and_no_other() -> None:
    known = history.parse(3, TEXT)
    assert known.contains(1, Lsn(0x3000148))
    assert not known.contains(1, Lsn(0x3000149))
    assert known.contains(3, Lsn(9 << 32))
    assert not known.contains(4, Lsn(1))


@pytest.mark.parametrize(
    ("position", "timeline"),
    [("0/3000148", 2), ("0/4000000", 2), ("0/4000001", 1), ("0/2800000", 1), ("7/0", 0)],
)
def test_the_timeline_of_received_wal_is_that_of_its_segment(
    tmp_path: Path, position: str, timeline: int
) -> None:
    wal = tmp_path / "pg_wal"
    wal.mkdir()
    for name in (
        "000000010000000000000002",
        "000000010000000000000003",
        "000000020000000000000003",
        "000000010000000000000004",
        "000000030000000000000003.partial",
        "00000009.history",
    ):
        (wal / name).touch()
    assert history.received(tmp_path, Lsn.parse(position), 16 * MIB) == timeline


def test_segments_may_have_another_size(tmp_path: Path) -> None:
    (tmp_path / "pg_wal").mkdir()
    (tmp_path / "pg_wal" / "000000050000000100000003").touch()
    assert history.received(tmp_path, Lsn((1 << 32) + 3 * 64 * MIB + 9), 64 * MIB) == 5
    assert history.received(tmp_path, NOWHERE, 64 * MIB) == 0
