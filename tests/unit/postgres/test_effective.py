"""What safety rests on, held against what pg_settings says."""

import pytest

from flightmode.postgres.effective import NAMES, strays
from tests.unit.postgres.ams import CONFIG

RIGHT = {
    "fsync": "on",
    "full_page_writes": "on",
    "wal_log_hints": "on",
    "wal_level": "replica",
    "hot_standby": "on",
    "restart_after_crash": "off",
    "data_sync_retry": "off",
    "zero_damaged_pages": "off",
    "ignore_checksum_failure": "off",
    "recovery_min_apply_delay": "0",
    "recovery_target_timeline": "latest",
    "max_slot_wal_keep_size": "256",
    "hba_file": "/data/flightmode_hba.conf",
    "ident_file": "/data/flightmode_ident.conf",
}


def test_what_is_as_it_must_be_is_not_told() -> None:
    assert set(RIGHT) == set(NAMES)
    assert strays(CONFIG, RIGHT) == ()
    assert strays(CONFIG, {**RIGHT, "wal_level": "logical"}) == ()


@pytest.mark.parametrize("name", NAMES)
def test_each_setting_is_looked_at(name: str) -> None:
    wrong = "-1" if name == "max_slot_wal_keep_size" else "something else"
    assert strays(CONFIG, {**RIGHT, name: wrong}) == (f"{name} = {wrong}",)


def test_a_setting_that_this_version_does_not_have_is_not_told() -> None:
    assert strays(CONFIG, {}) == ()
