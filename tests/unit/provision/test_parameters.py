"""What PostgreSQL would not take is found out before flightmode.toml is written."""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from flightmode.config import parse
from flightmode.provision.parameters import judging
from flightmode.provision.plan import plan
from flightmode.provision.wanted import TOML
from tests.unit.provision.test_plan import BARE, NOW_S, RELEASE, TEXT, done, titles, want

BIN = Path("/usr/lib/postgresql/15/bin/postgres")
STEP = "PostgreSQL takes the settings of flightmode.toml"


def with_parameters(lines: str) -> str:
    return f"{TEXT}\n[postgres.parameters]\n{lines}\n"


def test_a_first_flightmode_toml_is_judged_once_postgres_is_there_and_before_it_is_written() -> (
    None
):
    config = parse(with_parameters('work_mem = "7MB"'), name="it")
    told = [step.title for step in plan(config, want("ams", config), BARE, RELEASE, NOW_S).steps]
    (installed,) = [
        n for n, title in enumerate(told) if "postgresql-15" in title and "inst" in title
    ]
    assert installed < told.index(STEP) < told.index(f"write {TOML}")
    for name in ("wit", "web"):
        steps = plan(config, want(name, config), BARE, RELEASE, NOW_S).steps
        assert STEP not in [step.title for step in steps]


def test_without_settings_or_a_change_there_is_nothing_to_judge() -> None:
    assert STEP not in titles("ams", BARE)
    config = parse(with_parameters('work_mem = "7MB"'), name="it")
    host = want("ams", config)
    facts = done(host)
    assert plan(config, host, facts, RELEASE, NOW_S).steps == ()
    edited = replace(facts, held={p: h for p, h in facts.held.items() if p != TOML})
    first, *_ = plan(config, host, edited, RELEASE, NOW_S).steps
    assert first.title == STEP


@pytest.mark.skipif(not BIN.exists() or os.geteuid() != 0, reason="PostgreSQL 15 and root")
@pytest.mark.parametrize(
    ("lines", "word"),
    [
        ('work_mem = "7MB"\nautovacuum = true\n"some.name" = "it\'s"', ""),
        ('work_mems = "7MB"', 'unrecognized configuration parameter "work_mems"'),
        ('work_mem = "7XB"', 'invalid value for parameter "work_mem": "7XB"'),
        ("max_connections = 0.5", "max_connections"),
    ],
)
def test_postgres_itself_says_which_setting_is_wrong(lines: str, word: str, tmp_path: Path) -> None:
    text = judging(parse(with_parameters(lines), name="it"))
    assert shutil.which("runuser")
    tmp_path.chmod(0o777)
    for parent in (tmp_path.parent, tmp_path.parent.parent):
        parent.chmod(parent.stat().st_mode | 0o011)
    ran = subprocess.run(
        ["sh", "-c", text],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert (ran.returncode != 0) is bool(word), ran.stderr
    assert word in ran.stderr
    assert all(line.startswith("[postgres.parameters]: ") for line in ran.stderr.splitlines())
    assert list(tmp_path.iterdir()) == []
