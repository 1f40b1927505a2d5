"""The text that Postgres reads."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from flightmode.postgres import floors, settings
from flightmode.postgres.settings import Changing
from tests.unit.postgres.ams import CONFIG

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,30}", fullmatch=True)


def values_in(conf: str) -> dict[str, str]:
    pairs = (line.split(" = ", 1) for line in conf.splitlines() if " = " in line)
    return {name: value.strip("'") for name, value in pairs}


def test_ours_win_over_the_users() -> None:
    config = dataclasses.replace(
        CONFIG, parameters=(("fsync", "off"), ("synchronous_commit", "off"), ("port", "1"))
    )
    found = values_in(settings.conf(config, Changing(None, ()), 512))
    assert (found["fsync"], found["synchronous_commit"], found["port"]) == ("on", "on", "5432")
    assert found["max_slot_wal_keep_size"] == "512MB"


def test_what_the_user_may_raise_is_taken() -> None:
    parameters = (("max_wal_senders", "20"), ("wal_keep_size", "1GB"), ("wal_level", "logical"))
    config = dataclasses.replace(CONFIG, parameters=parameters)
    found = values_in(settings.conf(config, Changing(None, ()), 512))
    assert {name: found[name] for name, _ in parameters} == dict(parameters)


def test_a_lower_wal_level_is_not_taken() -> None:
    config = dataclasses.replace(CONFIG, parameters=(("wal_level", "minimal"),))
    assert values_in(settings.conf(config, Changing(None, ()), 512))["wal_level"] == "replica"


def test_a_floor_is_above_the_users_value() -> None:
    config = dataclasses.replace(CONFIG, parameters=(("max_connections", "20"),))
    text = settings.conf(config, Changing("fra", ()), 512, {"max_connections": 30})
    assert values_in(text)["max_connections"] == "30"


def test_only_values_below_their_floor_are_raised() -> None:
    wanted, told = {"max_connections": 20, "max_wal_senders": 10}, {"max_connections": 30}
    assert floors.too_low(wanted, told | {"max_wal_senders": 10}) == {"max_connections": 30}


@pytest.mark.parametrize("value", ["it's", "a\\b", "", "'; x = 'y", "\\'"])
def test_a_value_cannot_leave_its_quotes(value: str) -> None:
    quoted = settings.quoted(value)
    inner = quoted[1:-1].replace("''", "").replace("\\\\", "")
    assert quoted[0] == quoted[-1] == "'"
    assert "'" not in inner
    assert "\\" not in inner


@given(
    following=st.sampled_from([None, "fra", "lhr"]),
    names=st.sets(NAMES, max_size=3),
)
def test_what_follows_the_cluster_is_read_back_as_it_was_written(
    following: str | None, names: set[str]
) -> None:
    changing = Changing(following, tuple(sorted(names)))
    assert settings.changing_of(settings.conf(CONFIG, changing, 256), CONFIG) == changing


def test_nothing_is_read_back_from_no_file() -> None:
    assert settings.changing_of("", CONFIG) == Changing(None, ())


@pytest.mark.parametrize(
    "text", ["*", "fra", "1 (fra)", 'FIRST 1 ("fra")', 'ANY 2 ("fra")', "x, y"]
)
def test_foreign_sync_names_are_nobody(text: str) -> None:
    assert settings.parse_sync_names(text) == ("?",)


def test_connections_to_a_peer_are_verified_and_carry_no_password() -> None:
    where = conninfo_to_dict(settings.conninfo(CONFIG, "fra"))
    assert (where["sslmode"], where["sslrootcert"]) == ("verify-full", "/tls/ca.crt")
    assert (where["host"], where["port"], where["application_name"]) == ("10.0.0.2", "5433", "ams")
    assert where["passfile"] == "/run/fm/pgpass"
    assert "password" not in where


# ------------------------------------------------------------------------- access


def test_our_rules_come_first_and_the_users_only_when_clients_are_let_in() -> None:
    shut, opened = settings.hba(CONFIG, admit=False), settings.hba(CONFIG, admit=True)
    assert CONFIG.hba[0] not in shut
    assert opened.splitlines()[-1] == CONFIG.hba[0]
    assert (settings.admits(shut), settings.admits(opened)) == (False, True)
    assert shut.splitlines()[1:] == opened.splitlines()[1:-1]


def test_our_roles_enter_from_the_peers_only_and_encrypted() -> None:
    lines = settings.hba(CONFIG, admit=True).splitlines()
    ours = [line for line in lines if "flightmode_replication" in line]
    assert ours == [
        "hostssl replication flightmode_replication 10.0.0.2/32 scram-sha-256",
        "hostssl replication flightmode_replication fd00::3/128 scram-sha-256",
        "host all flightmode_replication,flightmode_rewind all reject",
    ]


def test_no_rule_of_ours_trusts() -> None:
    rules = settings.hba(CONFIG, admit=False).splitlines()[1:]
    assert all("trust" not in rule for rule in rules)


def test_only_root_and_the_user_of_postgres_are_our_local_roles() -> None:
    users = {line.split()[1] for line in settings.ident(CONFIG).splitlines()}
    assert users == {"postgres", "root"}


# ------------------------------------------------------------------------- adopted files


def test_the_include_stands_last_and_once() -> None:
    once = settings.with_include("work_mem = '1MB'\n")
    assert settings.with_include(once) == once
    moved = settings.with_include(once + "fsync = off\n")
    assert moved.splitlines()[-1] == settings.INCLUDE
    assert moved.count(settings.INCLUDE) == 1


def test_alter_system_keeps_what_is_not_ours() -> None:
    ours = "Synchronous_Standby_Names = '*'\nprimary_conninfo='x'\nfsync = off\n"
    text = f"work_mem = '9MB'\n{ours}# a = b\n"
    assert settings.without_ours(text) == "work_mem = '9MB'\n# a = b\n"


@pytest.mark.parametrize(
    ("total_gib", "free_gib", "mb"), [(100, 80, 25600), (100, 10, 5120), (1, 0, 256), (4, 3, 1024)]
)
def test_slots_never_hold_more_than_the_disk_can_bear(
    total_gib: int, free_gib: int, mb: int
) -> None:
    assert settings.slot_keep_mb(total_gib << 30, free_gib << 30) == mb
