"""What PostgreSQL has printed, in the words that a person is told."""

from dataclasses import replace

from flightmode.postgres.judging import in_files, told
from flightmode.postgres.settings import Changing, conf, parameters_of
from tests.unit.postgres.ams import CONFIG

SAID = """postgres ended with 1: 2026-11-27 06:38:35.123 GMT [10914] LOG:  skipping missing \
configuration file "/run/judged.x/postgresql.auto.conf"
2026-11-27 06:38:35.123 GMT [10914] LOG:  unrecognized configuration parameter "work_mems" in \
file "/run/judged.x/postgresql.conf" line 1
2026-11-27 06:38:35.123 GMT [10914] LOG:  invalid value for parameter "work_mem": "7XB"
2026-11-27 06:38:35.123 GMT [10914] HINT:  Valid units for this parameter are "B", "kB".
2026-11-27 06:38:35.123 GMT [10914] FATAL:  configuration file "/run/x" contains errors"""


def test_what_is_wrong_is_told_without_where_it_was_judged() -> None:
    assert told(SAID) == (
        'unrecognized configuration parameter "work_mems"',
        'invalid value for parameter "work_mem": "7XB"',
    )


def test_a_program_that_was_killed_has_judged_nothing() -> None:
    assert told("postgres ended with -9: ") == ()


def test_what_waits_for_a_restart_is_not_wrong() -> None:
    rows = [
        ("flightmode.conf", 2, "max_connections", "setting could not be applied"),
        ("postgresql.auto.conf", 3, "work_mem", "setting could not be applied"),
        ("postgresql.conf", 9, "", "syntax error"),
        (None, None, "", 'parameter "wal_buffers" cannot be changed without restarting the server'),
    ]
    assert in_files(rows, ["max_connections", "wal_buffers"]) == (
        "work_mem: setting could not be applied (postgresql.auto.conf, line 3)",
        "syntax error (postgresql.conf, line 9)",
    )


def test_settings_are_found_again_in_the_file_that_was_written() -> None:
    hard = (("archive_command", "cp '%p' \\\\srv = 'x'"), ("work_mem", "8MB"))
    found = dict(parameters_of(conf(replace(CONFIG, parameters=hard), Changing(None, ()), 9)))
    assert {name: found[name] for name, _ in hard} == dict(hard)
