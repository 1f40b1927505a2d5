"""The test suites of psycopg and asyncpg, direct and through the proxy: what differs.

    .venv/bin/python tests/parity/drivers.py psycopg CHECKOUT --python VENV/bin/python
    .venv/bin/python tests/parity/drivers.py asyncpg CHECKOUT --python VENV/bin/python

CHECKOUT is a clone of the driver; VENV has that driver, pytest and pytest-timeout (psycopg's
suite also wants anyio, dnspython and pproxy, asyncpg's uvloop).  None of their code is ours to
keep.  Prints each test whose outcome through the proxy is not its outcome direct.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

from proxy_bed import HOST, Server, room
from proxy_peers import Flightmode, Front, Peer, PgBouncer

SETTINGS = "max_prepared_transactions = 10\nlog_connections = on\njit = off\n"
SECRETS = {"postgres": "any", "admin": "any"}
Outcomes = dict[str, str]


@dataclass(frozen=True)
class Suite:
    """How a driver's suite is told where the server is, and what of it we run.

    `apart`: its tests run in a copy, for beside them lies a package that was not built.
    """

    arguments: Callable[[int], Sequence[str]]
    environment: Callable[[int], dict[str, str]]
    apart: bool = False


def _psycopg(port: int) -> Sequence[str]:
    dsn = f"host={HOST} port={port} user=postgres dbname=postgres sslmode=disable"
    return ["tests", "--test-dsn", dsn, "--ignore=tests/test_module.py", "-m", "not slow"]


def _of_libpq(port: int) -> dict[str, str]:
    return {
        "PGHOST": HOST,
        "PGPORT": str(port),
        "PGUSER": "postgres",
        "PGDATABASE": "postgres",
        "PGSSLMODE": "disable",
    }


SUITES = {
    "psycopg": Suite(_psycopg, lambda _: {"PSYCOPG_IMPL": "python"}),
    "asyncpg": Suite(lambda _: ["tests"], _of_libpq, apart=True),
}


def main(
    driver: Annotated[str, typer.Argument(help="psycopg or asyncpg")],
    checkout: Path,
    python: Annotated[Path, typer.Option(help="Of an environment that has the driver.")],
    through: Annotated[str, typer.Option(help="session, transaction, pgbouncer")] = (
        "session,transaction"
    ),
    pgbouncer: Annotated[Path, typer.Option()] = Path("/usr/sbin/pgbouncer"),
    keep: Annotated[Path | None, typer.Option(help="For each run's own output.")] = None,
    select: Annotated[str, typer.Option(help="pytest -k")] = "",
) -> None:
    """Run a driver's suite direct and through, and list what differs."""
    with room("fm-drivers-") as base:
        server = Server(base, "ams", settings=SETTINGS)
        server.create()
        try:
            server.start()
            run = _Run(SUITES[driver], checkout.resolve(), python, select, keep)
            direct = run.outcomes("direct", server.port)
            for way in through.split(","):
                peer = _peer(
                    way, Front(base, {"ams": server.port}, "ams", secrets=SECRETS), pgbouncer
                )
                try:
                    peer.start()
                    _tell(way, direct, run.outcomes(way, peer.port))
                finally:
                    peer.stop()
        finally:
            server.kill()


def _peer(way: str, front: Front, pgbouncer: Path) -> Peer:
    if way.startswith("pgbouncer"):
        mode = way.partition("-")[2] or "transaction"
        return PgBouncer(front, program=pgbouncer, tuned=f"pool_mode = {mode}\n")
    databases = {"*": {"pool_mode": way, "pool_size": 50}}
    return Flightmode(front, databases=databases)


@dataclass(frozen=True)
class _Run:
    suite: Suite
    checkout: Path
    python: Path
    select: str
    keep: Path | None

    def outcomes(self, way: str, port: int) -> Outcomes:
        """Of each test: passed, failed, error or skipped."""
        with tempfile.TemporaryDirectory() as scratch:
            report = Path(scratch) / "report.xml"
            where = self.checkout
            if self.suite.apart:
                where = Path(scratch) / "apart"
                shutil.copytree(self.checkout / "tests", where / "tests")
            argv = [str(self.python), "-m", "pytest", "-q", "--timeout=60", f"--junitxml={report}"]
            argv += ["-p", "no:randomly", *self.suite.arguments(port)]
            argv += ["-k", self.select] if self.select else []
            path = f"{self.python.parent}:{os.environ['PATH']}"
            environment = os.environ | self.suite.environment(port) | {"PATH": path}
            done = subprocess.run(argv, cwd=where, env=environment, capture_output=True, text=True)
            if self.keep is not None:
                self.keep.mkdir(parents=True, exist_ok=True)
                (self.keep / f"{way}.log").write_text(done.stdout + done.stderr)
            if not report.exists():
                raise SystemExit(f"the suite did not run: {done.stdout[-2000:]}{done.stderr}")
            found = _read(report)
        print(f"{way}: {dict(sorted(Counter(found.values()).items()))}", flush=True)
        return found


def _read(report: Path) -> Outcomes:
    outcomes: Outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        kinds = {child.tag for child in case}
        bad = next((kind for kind in ("failure", "error", "skipped") if kind in kinds), "passed")
        outcomes[name] = bad
    return outcomes


def _tell(way: str, direct: Outcomes, found: Outcomes) -> None:
    differing = [name for name in direct if found.get(name) != direct[name]]
    print(f"{way}: {len(differing)} of {len(direct)} differ from direct")
    if len(found) < len(direct) / 2:
        raise SystemExit(f"the suite did not run through {way}: --keep DIR keeps its own words")
    for name in differing:
        print(f"  {name}: {direct[name]} direct, {found.get(name, 'not run')} through {way}")


if __name__ == "__main__":
    typer.run(main)
