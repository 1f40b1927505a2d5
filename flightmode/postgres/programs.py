"""Which PostgreSQL this machine has, asked of itself."""

import re
from pathlib import Path

from flightmode.errors import ConfigInvalid, PostgresCommandFailed
from flightmode.postgres.subprocesses import run_now

_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")
_NEEDED = ("postgres", "initdb", "pg_basebackup", "pg_controldata", "pg_receivewal", "pg_rewind")


def find_bin_dir(configured: Path | None, major: int) -> Path:
    """Where the programs of this major version are; Debian's place, if none is configured.

    Raises ConfigInvalid: they are not there, or are another version's, which would refuse the
    data directory only after a start was ordered.
    """
    bin_dir = configured or Path(f"/usr/lib/postgresql/{major}/bin")
    problem = _problem(bin_dir, major)
    if problem is not None:
        hint = f"apt-get install postgresql-{major}"
        raise ConfigInvalid("flightmode.toml", (f"postgres.bin_dir: {problem}",), hint=hint)
    return bin_dir


def _problem(bin_dir: Path, major: int) -> str | None:
    missing = [name for name in _NEEDED if not (bin_dir / name).exists()]
    if missing:
        return f"there is no PostgreSQL {major} in {bin_dir}: no {', '.join(missing)}"
    try:
        said = _said(bin_dir)
    except PostgresCommandFailed as failure:
        return failure.message
    if _major(said) != major:
        return f"PostgreSQL {major} is wanted, and in {bin_dir} is {said!r}"
    return None


def major_in(bin_dir: Path) -> int:
    """The major version of the programs there.  Raises PostgresCommandFailed."""
    said = _said(bin_dir)
    major = _major(said)
    if major is None:
        raise PostgresCommandFailed(f"{bin_dir}/postgres says {said!r}")
    return major


def _said(bin_dir: Path) -> str:
    return run_now((str(bin_dir / "postgres"), "--version")).strip()


def _major(said: str) -> int | None:
    found = _VERSION.search(said)
    return int(found[1]) if found else None
