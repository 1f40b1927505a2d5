"""Whether a data directory that was made by others can be taken over, and what it brings along.

Nothing is changed here.  A server that runs may be looked at beforehand, so that it need not be
down meanwhile; when it is taken over it has to be stopped, and cleanly.  Each reason to refuse is
a function.  Settings are not parsed but asked for (`postgres -C`, manual, chapter 20.1 and
`postgres`' own page), since Debian keeps them outside the data directory, where a copy of it
would not find them.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flightmode.config.check import RESERVED_PARAMETERS
from flightmode.errors import DataUnreadable, NotAdoptable
from flightmode.model.server import DataDirectory
from flightmode.postgres import controldata
from flightmode.postgres.data import major_of
from flightmode.postgres.files import UNFINISHED
from flightmode.postgres.settings import SIGNAL
from flightmode.postgres.subprocesses import run_now

_MAJORS: Final = range(14, 19)
_PLACES: Final = frozenset({"data_directory", "config_file", "hba_file", "ident_file"})
_GAINS_RIGHTS: Final = re.compile(r"\b(?:sudo|doas|pkexec)\b")
_METHODS: Final = frozenset({"scram-sha-256", "md5", "peer", "cert", "reject", "ident"})
_HOST_TYPES: Final = frozenset({"host", "hostssl", "hostnossl"})


@dataclass(frozen=True, slots=True)
class Adoptable:
    """A server that can be taken over as it is."""

    data_dir: Path
    data: DataDirectory
    running: bool
    """Whether its server runs: then nothing is known of how it will be stopped."""
    parameters: dict[str, str]
    """Settings that stand outside the data directory and differ from the defaults."""
    hba: tuple[dict[str, str], ...]
    """Its rules of access, as [[postgres.hba]] has them."""
    notes: tuple[str, ...]
    """What a person should know or do."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What the reasons to refuse look at."""

    data_dir: Path
    data: DataDirectory


def inspect(
    data_dir: Path,
    *,
    bin_dir: Path | None = None,
    config_file: Path | None = None,
    may_run: bool = False,
) -> Adoptable:
    """Look at it.  Raises NotAdoptable, DataUnreadable, PostgresCommandFailed."""
    pid = _server_of(data_dir)
    if pid is not None and not may_run:
        text = f"{data_dir}: its server seems to run (process {pid}); stop it first"
        raise NotAdoptable(text, hint="systemctl stop postgresql")
    major = major_of(data_dir)
    if major not in _MAJORS:
        text = f"{data_dir} is of PostgreSQL {major}; {_MAJORS[0]} to {_MAJORS[-1]} can be run"
        raise NotAdoptable(text, hint="pg_upgrade --help")
    programs = bin_dir or Path(f"/usr/lib/postgresql/{major}/bin")
    text = run_now([str(programs / "pg_controldata"), str(data_dir)])
    signal = (data_dir / SIGNAL).exists() or (data_dir / "recovery.signal").exists()
    data = controldata.parse(text, pg_major=major, standby_signal=signal, unfinished=None)
    reasons = _REASONS if pid is None else _REASONS_OF_RUNNING
    refusals = [each for reason in reasons for each in reason(_Found(data_dir, data))]
    if refusals:
        # All at once; the hint is for the first.
        text = "; ".join(refusal for refusal, _ in refusals)
        raise NotAdoptable(f"{data_dir}: {text}", hint=refusals[0][1])
    outside = config_file or _outside(data_dir, major)
    parameters = {} if outside is None else _parameters(programs, data_dir, outside)
    hba_file = (data_dir if outside is None else outside.parent) / "pg_hba.conf"
    rules, left_out = rules_in(hba_file.read_text() if hba_file.exists() else "")
    notes = tuple(_notes(data_dir, text, parameters, left_out))
    return Adoptable(data_dir, data, pid is not None, parameters, rules, notes)


# ------------------------------------------------------------------------- reasons to refuse


def _server_of(data_dir: Path) -> int | None:
    """The pid of its server, if it seems to run."""
    try:
        pid = int((data_dir / "postmaster.pid").read_text().split()[0])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, IndexError):
        raise DataUnreadable(f"{data_dir}/postmaster.pid can't be read") from None
    return pid if Path(f"/proc/{pid}").exists() else None


Reason = Callable[[_Found], Iterator[tuple[str, str]]]


def _a_standby(found: _Found) -> Iterator[tuple[str, str]]:
    if found.data.standby_signal:
        text = "it is a standby, or a restore that is not finished; adopt its primary"
        yield text, "flightmode init --help"


def _not_stopped_cleanly(found: _Found) -> Iterator[tuple[str, str]]:
    if found.data.control_state != "shut down":
        text = f"it was not stopped cleanly ({found.data.control_state!r}): start and stop it once"
        yield text, "systemctl restart postgresql"


def _half_made(found: _Found) -> Iterator[tuple[str, str]]:
    marker = found.data_dir / UNFINISHED
    if marker.exists():
        yield f"a {marker.read_text().strip()} was begun in it and not finished", f"cat {marker}"


def _of_root(found: _Found) -> Iterator[tuple[str, str]]:
    if found.data_dir.stat().st_uid == 0:
        text = "it belongs to root, whom Postgres never runs as"
        yield text, f"chown -R postgres: {found.data_dir}"


def _open_to_others(found: _Found) -> Iterator[tuple[str, str]]:
    if found.data_dir.stat().st_mode & 0o077:
        yield "it can be entered by others than its owner", f"chmod 700 {found.data_dir}"


def _parts_elsewhere(found: _Found) -> Iterator[tuple[str, str]]:
    """A copy beside the directory would share them with it (I10)."""
    spaces = found.data_dir / "pg_tblspc"
    if spaces.is_dir() and any(spaces.iterdir()):
        yield "it has tablespaces, which a copy beside it would share", f"ls -l {spaces}"
    wal = found.data_dir / "pg_wal"
    if wal.is_symlink():
        text = f"its pg_wal is a link to {wal.readlink()}, which a copy beside it would share"
        yield text, f"mv {wal.readlink()} {found.data_dir}"


def _settings_above_ours(found: _Found) -> Iterator[tuple[str, str]]:
    """ALTER SYSTEM wins over every file; what our promises rest on must not be set there."""
    path = found.data_dir / "postgresql.auto.conf"
    lines = path.read_text().splitlines() if path.exists() else []
    names = {line.partition("=")[0].strip().lower() for line in lines if "=" in line}
    # Those that follow the cluster are cleared by us at each start.
    names -= {"primary_conninfo", "primary_slot_name", "synchronous_standby_names"}
    for name in sorted(names & RESERVED_PARAMETERS):
        yield f"ALTER SYSTEM has set {name}", f'psql --command="ALTER SYSTEM RESET {name}"'


_REASONS_OF_RUNNING: Final[tuple[Reason, ...]] = (
    _a_standby,
    _half_made,
    _of_root,
    _open_to_others,
    _parts_elsewhere,
    _settings_above_ours,
)
_REASONS: Final[tuple[Reason, ...]] = (_not_stopped_cleanly, *_REASONS_OF_RUNNING)


# ------------------------------------------------------------------------- what it brings along


def _outside(data_dir: Path, major: int) -> Path | None:
    """postgresql.conf where Debian keeps it; None: it is in the data directory.

    Raises NotAdoptable when it is in neither place.
    """
    if (data_dir / "postgresql.conf").exists():
        return None
    debian = Path(f"/etc/postgresql/{major}/{data_dir.name}/postgresql.conf")
    if not debian.exists():
        text = f"{data_dir}: its postgresql.conf is neither there nor at {debian}"
        raise NotAdoptable(text, hint=f"ls {data_dir}")
    return debian


def _parameters(programs: Path, data_dir: Path, config_file: Path) -> dict[str, str]:
    """Every setting that differs from its default and is not ours to make.

    Only names that occur in a file beside `config_file` are asked for: each is a run of Postgres.
    Its --describe-config does not tell the defaults, whatever it prints (guc.c, PG 15).
    """
    postgres = str(programs / "postgres")
    described = (line.split("\t") for line in run_now([postgres, "--describe-config"]).splitlines())
    known = {fields[0] for fields in described if fields[1] != "internal"}
    wanted = (known & _words_of(config_file.parent)) - RESERVED_PARAMETERS - _PLACES

    def asked(name: str, file: Path) -> str:
        where = ["-D", str(data_dir), "-c", f"config_file={file}"]
        return run_now([postgres, "-C", name, *where]).strip()

    found = {name: asked(name, config_file) for name in sorted(wanted)}
    default = Path(os.devnull)
    return {name: value for name, value in found.items() if value != asked(name, default)}


def _words_of(directory: Path) -> set[str]:
    """What could be the name of a setting in the files of Debian's directory, conf.d too."""
    lines = (line for path in directory.rglob("*.conf") for line in path.read_text().splitlines())
    live = (line.lower() for line in lines if not line.lstrip().startswith("#"))
    return {word for line in live for word in re.findall(r"[a-z_]+", line)}


def rules_in(hba_text: str) -> tuple[tuple[dict[str, str], ...], tuple[str, ...]]:
    """The plain rules of a pg_hba.conf, and the lines that a person has to carry over.

    Rules for replication are left away: ours replace them.
    """
    rules, left_out = [], []
    for line in (each.partition("#")[0].strip() for each in hba_text.splitlines()):
        fields = line.split()
        if len(fields) < 2 or fields[1] == "replication":
            continue
        rule = _rule(fields)
        if rule is None:
            left_out.append(line)
        else:
            rules.append(rule)
    return tuple(rules), tuple(left_out)


def _rule(fields: list[str]) -> dict[str, str] | None:
    if any(mark in field for field in fields for mark in ('"', "@", "/^")):
        return None
    match fields:
        case ["local", database, user, method] if method in _METHODS:
            return {"type": "local", "database": database, "user": user, "method": method}
        case [kind, database, user, address, method] if kind in _HOST_TYPES:
            if method not in _METHODS:
                return None
            return {
                "type": kind,
                "database": database,
                "user": user,
                "address": address,
                "method": method,
            }
        case _:
            return None


def _notes(
    data_dir: Path, control: str, parameters: dict[str, str], left_out: tuple[str, ...]
) -> Iterator[str]:
    yield (
        "the service that started it until now must never start it again: `flightmode provision` "
        "sees to that; by hand: systemctl disable --now postgresql && systemctl mask postgresql"
    )
    yield f"a copy of the old directory needs room beside it, in {data_dir.absolute().parent}"
    yield "it must have a superuser named postgres"
    if not _has_checksums(control):
        yield "it has no data checksums: damage on a disk can stay unseen (pg_checksums --enable)"
    libraries = parameters.get("shared_preload_libraries")
    if libraries:
        yield f"install on every database node what it preloads: {libraries}"
    yield from notes_on_rights([parameters.get("archive_command", ""), *_kept_inside(data_dir)])
    for line in left_out:
        yield f"this line of its pg_hba.conf has to be carried over by hand: {line}"


def _kept_inside(data_dir: Path) -> Iterator[str]:
    """Where its settings stand in the directory itself, or ALTER SYSTEM made it, it stays too."""
    for name in ("postgresql.conf", "postgresql.auto.conf"):
        path = data_dir / name
        for line in path.read_text().splitlines() if path.exists() else ():
            if re.match(r"\s*archive_command\b", line, re.IGNORECASE):
                yield line


def notes_on_rights(archive_commands: Iterable[str]) -> Iterator[str]:
    """`restore_command` and its like are ours to make, and are not kept."""
    names = sorted({name for each in archive_commands for name in _GAINS_RIGHTS.findall(each)})
    if names:
        yield (
            f"its archive_command uses {', '.join(names)}, which fails under Flightmode: what "
            "PostgreSQL starts gains no rights there (NoNewPrivileges); give the user postgres "
            "the rights that it needs"
        )


def _has_checksums(control: str) -> bool:
    lines = (line.partition(":") for line in control.splitlines())
    return any(n == "Data page checksum version" and v.strip() != "0" for n, _, v in lines)
