"""What pg_controldata prints."""

import pytest

from flightmode.errors import DataUnreadable
from flightmode.model.lsn import Lsn
from flightmode.model.server import DataDirectory
from flightmode.postgres import controldata, floors

TEXT = """\
pg_control version number:            1300
Database system identifier:           7711301732193116262
Database cluster state:               {state}
pg_control last modified:             Mon 23 Nov 2026 09:49:51 AM UTC
Latest checkpoint location:           {checkpoint}
Latest checkpoint's REDO location:    0/2000028
Latest checkpoint's TimeLineID:       1
Minimum recovery ending location:     {recovered}
Min recovery ending loc's timeline:   {timeline}
max_connections setting:              30
max_worker_processes setting:         8
max_wal_senders setting:              10
max_prepared_xacts setting:           0
max_locks_per_xact setting:           64
Data page checksum version:           1
"""


def parsed(
    state: str = "in production",
    checkpoint: str = "0/2000060",
    recovered: str = "0/0",
    timeline: int = 0,
    standby_signal: bool = False,
) -> DataDirectory:
    text = TEXT.format(state=state, checkpoint=checkpoint, recovered=recovered, timeline=timeline)
    return controldata.parse(text, pg_major=15, standby_signal=standby_signal, unfinished=None)


def test_a_primary_is_at_its_checkpoint() -> None:
    data = parsed()
    assert (data.position, data.timeline) == (Lsn(0x2000060), 1)
    assert data.system_identifier == "7711301732193116262"
    assert data.was_primary
    assert not data.shut_down_cleanly


def test_a_standby_is_where_its_recovery_has_to_end_on_that_timeline() -> None:
    data = parsed("in archive recovery", recovered="1/0", timeline=2, standby_signal=True)
    assert (data.position, data.timeline) == (Lsn(1 << 32), 2)
    assert not data.was_primary


def test_an_older_end_of_recovery_does_not_count() -> None:
    assert parsed(recovered="0/1000000", timeline=7).timeline == 1


@pytest.mark.parametrize("state", ["shut down", "shut down in recovery"])
def test_a_clean_stop_is_known(state: str) -> None:
    assert parsed(state).shut_down_cleanly


@pytest.mark.parametrize("missing", ["Latest checkpoint location", "Database system identifier"])
def test_what_is_not_told_is_an_error_that_names_it(missing: str) -> None:
    whole = TEXT.format(state="shut down", checkpoint="0/1", recovered="0/0", timeline=0)
    text = "\n".join(line for line in whole.splitlines() if not line.startswith(missing))
    with pytest.raises(DataUnreadable, match=missing):
        controldata.parse(text, pg_major=15, standby_signal=False, unfinished=None)


def test_the_floors_of_a_standby_are_told() -> None:
    assert floors.told(TEXT) == {
        "max_connections": 30,
        "max_worker_processes": 8,
        "max_wal_senders": 10,
        "max_prepared_transactions": 0,
        "max_locks_per_transaction": 64,
    }
