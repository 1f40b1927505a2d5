"""PgBouncer's own tests, against it and against us.

    .venv/bin/python tests/parity/suite.py CHECKOUT --python VENV/bin/python [-k WORD] [--theirs]

CHECKOUT is a clone of pgbouncer that was configured and built, by make or by meson in `build` (its
tests read what was configured); VENV has psycopg, pytest, pytest-asyncio, pytest-timeout,
pytest-xdist and filelock, and is of a Python that user postgres may run.  The tests run as that
user in a copy.  `--theirs` runs them against its own binary: what fails there does so because of
this machine.  Prints each test that does not pass; `--save` keeps the outcomes of earlier runs of
other tests.

Two things stand in for others, beside `bouncer.py`: certificates are made by `openssl.sh`, and a
test may read words of ours where it wants PgBouncer's (`expected_words.py`).
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WITH_WORDS = "words of ours for: "
"""Of a test that passed: it wanted others."""
SERVE = Path(os.environ.get("FLIGHTMODE_SERVE", ROOT / "target/release/examples/serve"))


def main(
    checkout: Path,
    python: Annotated[Path, typer.Option()],
    select: Annotated[str, typer.Option("-k", help="As pytest's.")] = "",
    theirs: Annotated[bool, typer.Option(help="Against PgBouncer itself.")] = False,
    save: Annotated[Path | None, typer.Option(help="Outcomes as JSON.")] = None,
    keep: Annotated[Path | None, typer.Option(help="The run's own words.")] = None,
    files: Annotated[str, typer.Option(help="Comma-separated; empty for all.")] = "",
) -> None:
    """Run PgBouncer's tests."""
    with tempfile.TemporaryDirectory(prefix="fm-parity-", dir="/tmp") as folder:
        base = Path(folder)
        _copy(checkout, base, python)
        outcomes: dict[str, tuple[str, str]] = {}
        # One by one: a worker that a test takes down with it takes no other file's tests along.
        for name in files.split(",") if files else sorted(_files(base)):
            outcomes |= _run(base, python, select, theirs, keep, name)
            _end_what_is_left(base)
            print(f"{name}: {dict(Counter(what for what, _ in outcomes.values()))}", flush=True)
    print(dict(sorted(Counter(what for what, _ in outcomes.values()).items())))
    for name, (what, why) in outcomes.items():
        if what != "passed":
            print(f"{what:8s} {name}: {why}")
    if save is not None:
        earlier = json.loads(save.read_text()) if save.exists() else {}
        save.write_text(json.dumps(earlier | outcomes, indent=1))


def _files(base: Path) -> set[str]:
    return {path.name for path in (base / "test").glob("test_*.py")}


def _copy(checkout: Path, base: Path, python: Path) -> None:
    """What the tests read, and what we need of ours, where user postgres may read it."""
    for part in ("test", "include"):
        shutil.copytree(checkout / part, base / part)
    shutil.copy2(checkout / "pyproject.toml", base)
    shutil.copy2(_built(checkout, "pgbouncer"), base)
    configured = _built(checkout, "config.mak", "test_config.h")
    there = base / configured.relative_to(checkout)
    there.parent.mkdir(exist_ok=True)
    shutil.copy2(configured, there)
    ours = base / "ours/tests/parity"
    shutil.copytree(HERE, ours, ignore=shutil.ignore_patterns("__pycache__"))
    command = base / "bouncer"
    command.write_text(f'#!/bin/sh\nexec "{python}" "{ours}/bouncer.py" "$@"\n')
    command.chmod(0o755)
    (base / "bin").mkdir()
    certificates = shutil.copy2(HERE / "openssl.sh", base / "bin/openssl")
    certificates.chmod(0o755)
    if SERVE.exists():
        shutil.copy2(SERVE, base / "serve")
    # The Unix sockets of the tests need paths of less than 108 bytes: pytest's are in /tmp.
    subprocess.run(["chown", "-R", "postgres", base], check=True)


def _built(checkout: Path, *names: str) -> Path:
    """The first of them, of either build."""
    places = (folder / name for folder in (checkout, checkout / "build") for name in names)
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        sys.exit(f"{checkout} is not built: none of {', '.join(names)}")
    return found


def _run(
    base: Path, python: Path, select: str, theirs: bool, keep: Path | None, file: str
) -> dict[str, tuple[str, str]]:
    report = base / "report.xml"
    report.unlink(missing_ok=True)
    # They change their directory: a worker would not find a relative path.
    chosen = str(base / "test" / file)
    # Not their --tb=short: Python 3.11.2 may lose the worker when it reads sources meanwhile.
    argv = [str(python), "-m", "pytest", "-q", "--tb=native", f"--junitxml={report}", chosen]
    argv += ["-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function"]
    argv += ["-n", "2", f"--basetemp={base}/t", *(["-k", select] if select else [])]
    # Theirs of 30 s is for a machine that does nothing else.
    argv += ["-o", "timeout=120", *([] if theirs else ["-p", "tests.parity.expected_words"])]
    ours = {} if theirs else {"BOUNCER_EXE": str(base / "bouncer"), "PYTHONPATH": f"{base}/ours"}
    environment = (
        os.environ
        | ours
        | {
            "HOME": str(base),
            "PATH": f"{base}/bin:/usr/lib/postgresql/15/bin:{os.environ['PATH']}",
            "FLIGHTMODE_SERVE": str(base / "serve"),
        }
    )
    done = subprocess.run(
        argv, cwd=base, env=environment, user="postgres", capture_output=True, text=True
    )
    if keep is not None:
        with keep.open("a") as log:
            log.write(done.stdout + done.stderr)
    if done.returncode == 5:  # Nothing selected here.
        return {}
    if not report.exists():
        sys.exit(f"the suite did not run: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return _read(report)


def _end_what_is_left(base: Path) -> None:
    """A test that was cut off leaves its processes: those that have our own directory's name."""
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"{base}/".encode() in place.read_bytes():
                os.kill(int(place.parent.name), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue  # It has gone meanwhile.


def _read(report: Path) -> dict[str, tuple[str, str]]:
    outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{(case.get('classname') or '').removeprefix('test.')}::{case.get('name')}"
        bad = [child for child in case if child.tag in ("failure", "error", "skipped")]
        why = (bad[0].get("message") or "").splitlines()[:1] if bad else []
        words = [each.get("value") for each in case.iter("property")]
        note = why[0][:160] if why else f"{WITH_WORDS}{', '.join(sorted(set(map(str, words))))}"
        outcomes[name] = (bad[0].tag if bad else "passed", note if why or words else "")
    return outcomes


if __name__ == "__main__":
    typer.run(main)
