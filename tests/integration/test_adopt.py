"""Taking over a data directory that others made: with the programs of a real PostgreSQL 15."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flightmode.cli.options import place
from flightmode.errors import DataUnreadable, NotAdoptable
from flightmode.postgres.adopt import inspect, rules_in
from tests.unit.commands import flightmode

BIN = Path("/usr/lib/postgresql/15/bin")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not BIN.exists(), reason="PostgreSQL 15 is not installed"),
]


def run(program: str, *words: object) -> None:
    """As the user of Postgres, when we are root."""
    root = os.geteuid() == 0
    user = pwd.getpwnam("postgres").pw_uid if root else None
    argv = [str(BIN / program), *map(str, words)]
    subprocess.run(argv, user=user, cwd="/", check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stopped cluster, never touched by a test."""
    base = tmp_path_factory.mktemp("pg")
    for parent in (base, *base.parents[:2]):
        parent.chmod(0o755)
    if os.geteuid() == 0:
        shutil.chown(base, "postgres")
    run("initdb", "--pgdata", base / "data", "--no-sync", "--auth=trust", "--data-checksums")
    return base / "data"


@pytest.fixture
def data_dir(made: Path) -> Iterator[Path]:
    """A copy of it."""
    copy = made.parent / "copy"
    subprocess.run(["cp", "-a", str(made), str(copy)], check=True)
    yield copy
    shutil.rmtree(copy)


def append(path: Path, text: str) -> None:
    path.write_text((path.read_text() if path.exists() else "") + text)


def refusal(data_dir: Path) -> str:
    with pytest.raises(NotAdoptable) as caught:
        inspect(data_dir)
    return f"{caught.value.message} | {caught.value.hint_text}"


def test_a_cleanly_stopped_cluster_can_be_taken_over(data_dir: Path) -> None:
    found = inspect(data_dir)
    assert found.data.pg_major == 15
    assert len(found.data.system_identifier) > 15
    assert found.parameters == {}, "its postgresql.conf stays where it is"
    assert not any("checksums" in note for note in found.notes)


def test_nothing_is_changed_by_looking(data_dir: Path) -> None:
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in data_dir.rglob("*")}
    inspect(data_dir)
    assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in data_dir.rglob("*")} == before


def test_settings_outside_the_directory_are_brought_along(data_dir: Path, tmp_path: Path) -> None:
    outside = tmp_path / "postgresql.conf"
    (data_dir / "postgresql.conf").unlink()
    outside.write_text(
        f"data_directory = '{data_dir}'\nshared_buffers = 64MB\nmax_connections = 77\n"
        "fsync = off\nssl = on\nwork_mem = '8MB'\njit = off\nport = 6543\n"
        "shared_preload_libraries = 'pg_stat_statements'\n"
        "archive_command = 'sudo cp %p /srv/%f'\nrestore_command = 'sudo cp /srv/%f %p'\n"
    )
    (tmp_path / "pg_hba.conf").write_text("host app app 10.0.0.0/8 scram-sha-256\n")
    found = inspect(data_dir, config_file=outside)
    wanted = {
        "shared_buffers": "8192",
        "max_connections": "77",
        "work_mem": "8192",
        "jit": "off",
        "shared_preload_libraries": "pg_stat_statements",
        "archive_command": "sudo cp %p /srv/%f",
    }
    assert found.parameters == wanted
    assert not {"fsync", "ssl", "port", "data_directory"} & set(found.parameters)
    assert found.hba[0]["address"] == "10.0.0.0/8"
    assert any("what it preloads: pg_stat_statements" in note for note in found.notes)
    assert any("its archive_command uses sudo" in note for note in found.notes)


def test_a_directory_without_settings_anywhere_is_refused(data_dir: Path) -> None:
    (data_dir / "postgresql.conf").unlink()
    assert "/etc/postgresql/15/copy/postgresql.conf" in refusal(data_dir)


def test_a_running_server_is_refused(data_dir: Path) -> None:
    options = f"-c listen_addresses='' -c unix_socket_directories='{data_dir}'"
    run("pg_ctl", "start", "--wait", "-D", data_dir, "-o", options, "-l", data_dir / "log")
    try:
        assert "seems to run" in refusal(data_dir)
    finally:
        run("pg_ctl", "stop", "--wait", "-D", data_dir, "--mode=immediate")
    assert "not stopped cleanly ('in production')" in refusal(data_dir)


def test_a_standby_is_refused(data_dir: Path) -> None:
    (data_dir / "standby.signal").touch()
    assert "it is a standby" in refusal(data_dir)


def test_a_directory_that_others_can_enter_is_refused(data_dir: Path) -> None:
    data_dir.chmod(0o750)
    assert f"chmod 700 {data_dir}" in refusal(data_dir)


def test_a_directory_of_root_is_refused(data_dir: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make one")
    os.chown(data_dir, 0, 0)
    assert "it belongs to root" in refusal(data_dir)


def test_half_a_rewind_is_refused(data_dir: Path) -> None:
    (data_dir / "flightmode.unfinished").write_text("rewind")
    assert "a rewind was begun in it and not finished" in refusal(data_dir)


def test_all_reasons_are_told_at_once(data_dir: Path, tmp_path: Path) -> None:
    (data_dir / "standby.signal").touch()
    data_dir.chmod(0o755)
    (data_dir / "pg_tblspc" / "16384").symlink_to(tmp_path)
    told = refusal(data_dir)
    assert "it is a standby" in told
    assert "entered by others" in told
    assert "it has tablespaces" in told


def test_tablespaces_are_refused(data_dir: Path, tmp_path: Path) -> None:
    (data_dir / "pg_tblspc" / "16384").symlink_to(tmp_path)
    assert "it has tablespaces" in refusal(data_dir)


def test_wal_that_lies_elsewhere_is_refused(data_dir: Path, tmp_path: Path) -> None:
    shutil.move(data_dir / "pg_wal", tmp_path / "wal")
    (data_dir / "pg_wal").symlink_to(tmp_path / "wal")
    assert f"its pg_wal is a link to {tmp_path / 'wal'}" in refusal(data_dir)


@pytest.mark.parametrize("name", ["synchronous_commit", "fsync", "port"])
def test_a_setting_that_would_win_over_ours_is_refused(data_dir: Path, name: str) -> None:
    append(data_dir / "postgresql.auto.conf", f"{name} = 'off'\n")
    assert f"ALTER SYSTEM RESET {name}" in refusal(data_dir)


def test_settings_that_follow_the_cluster_do_not_matter(data_dir: Path) -> None:
    append(data_dir / "postgresql.auto.conf", "primary_conninfo = 'host=x'\nwork_mem = '8MB'\n")
    assert inspect(data_dir)


@pytest.mark.parametrize("version", ["9.6", "13", "19"])
def test_an_unknown_version_is_refused(data_dir: Path, version: str) -> None:
    (data_dir / "PG_VERSION").write_text(f"{version}\n")
    assert "14 to 18 can be run" in refusal(data_dir)


def test_what_is_no_data_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataUnreadable, match="PG_VERSION"):
        inspect(tmp_path)


def test_missing_checksums_are_told(data_dir: Path) -> None:
    run("pg_checksums", "--disable", "-D", data_dir)
    assert any("no data checksums" in note for note in inspect(data_dir).notes)


def test_plain_rules_of_access_are_carried_over_and_the_others_named() -> None:
    rules, left_out = rules_in(
        "# comment\n"
        "local all postgres peer\n"
        "local replication all peer\n"
        "hostssl app app 10.0.0.0/8 scram-sha-256 # the shop\n"
        "host all all 127.0.0.1/32 trust\n"
        "host all all 10.0.0.0 255.0.0.0 md5\n"
        'host "My DB" all 10.0.0.0/8 md5\n'
        "include_dir hba.d\n"
    )
    assert [rule["type"] for rule in rules] == ["local", "hostssl"]
    assert len(left_out) == 4


def test_init_takes_a_data_directory_over(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    append(data_dir / "pg_hba.conf", "hostssl app app 10.0.0.0/8 scram-sha-256\n")
    ran = flightmode(capsys, "init", tmp_path / "c", "--adopt", data_dir, "--json")
    assert ran.status == 0
    config = place(tmp_path / "c" / "flightmode.toml").config
    assert config.postgres.data_dir == data_dir
    assert "10.0.0.0/8" in {rule.address for rule in config.postgres.hba}
    assert any("never start it again" in step for step in ran.json["next"])


def test_init_refuses_what_cannot_be_run_safely_and_leaves_nothing(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data_dir / "standby.signal").touch()
    ran = flightmode(capsys, "init", tmp_path / "c", "--adopt", data_dir, "--json")
    assert (ran.status, ran.error["code"]) == (65, "FM220")
    assert not (tmp_path / "c").exists()


def test_a_server_that_runs_is_looked_at_and_not_disturbed(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sockets = ("-c", f"unix_socket_directories={data_dir}", "-c", "listen_addresses=")
    run("pg_ctl", "-D", data_dir, "-w", "-o", " ".join(sockets), "-l", data_dir / "log", "start")
    try:
        told = flightmode(capsys, "adoptable", data_dir, "--json")
        assert (told.status, told.json["running"]) == (0, True)
        refused = flightmode(capsys, "init", data_dir.parent / "c", "--adopt", data_dir, "--json")
        assert (refused.status, refused.error["code"]) == (65, "FM220")
    finally:
        run("pg_ctl", "-D", data_dir, "-m", "fast", "stop")
    told = flightmode(capsys, "adoptable", data_dir, "--json")
    assert (told.status, told.json["running"]) == (0, False)
