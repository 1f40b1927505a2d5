"""The programs that are run."""

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from flightmode.postgres import commands
from tests.unit.postgres.ams import CONFIG

ALL = (
    commands.postgres(CONFIG),
    commands.initdb(CONFIG, Path("/new"), Path("/run/fm/initdb.password")),
    commands.controldata(CONFIG),
    commands.setting(CONFIG, "port"),
    commands.slot(CONFIG, "fra", "create-slot"),
    commands.slot(CONFIG, "fra", "drop-slot"),
    commands.basebackup(CONFIG, "fra", Path("/new")),
    commands.rewind(CONFIG, "fra"),
)


def test_no_argument_holds_a_password() -> None:
    words = [word for argv in ALL for word in argv]
    assert not [word for word in words if "password=" in word and "--no-password" not in word]


def test_every_program_is_of_the_configured_version() -> None:
    assert {Path(argv[0]).parent for argv in ALL} == {CONFIG.bin_dir}


def test_a_new_cluster_has_checksums_and_asks_everybody_who_he_is() -> None:
    words = commands.initdb(CONFIG, Path("/new"), Path("/pw"))
    assert {"--data-checksums", "--auth-local=peer", "--auth-host=scram-sha-256"} <= set(words)


@pytest.mark.parametrize(
    "words",
    [commands.basebackup(CONFIG, "fra", Path("/new")), commands.slot(CONFIG, "fra", "create-slot")],
)
def test_no_commit_is_acknowledged_by_a_copy(words: tuple[str, ...]) -> None:
    where = next(word.partition("=")[2] for word in words if word.startswith("--dbname="))
    assert conninfo_to_dict(where)["application_name"] != CONFIG.name


def test_a_copy_is_held_by_our_slot_and_comes_with_its_wal() -> None:
    words = commands.basebackup(CONFIG, "fra", Path("/new"))
    assert {"--slot=ams", "--wal-method=stream"} <= set(words)


def test_a_rewind_enters_as_the_role_that_may_only_read() -> None:
    words = " ".join(commands.rewind(CONFIG, "fra"))
    assert "user=flightmode_rewind" in words
    assert "dbname=postgres" in words
