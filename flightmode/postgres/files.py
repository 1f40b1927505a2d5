"""Files of the data directory: written whole, or not at all."""

import os
import shutil
import tempfile
from pathlib import Path

from flightmode.errors import DataModes
from flightmode.postgres.settings import PostgresConfig

UNFINISHED = "flightmode.unfinished"
"""Marks a data directory that a rewind or a clone was begun in and not finished."""


def write(config: PostgresConfig, path: Path, text: str) -> None:
    """Write it durably, 0600, owned by the user of Postgres.  Unchanged text is left alone."""
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(number, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    own(config, Path(name))
    Path(name).replace(path)
    sync_directory(path.parent)


def remove(path: Path) -> None:
    """Remove it durably, if it is there."""
    if path.exists():
        path.unlink()
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    number = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def own(config: PostgresConfig, path: Path) -> None:
    """Give it to the user of Postgres, where this process may."""
    if os.geteuid() == 0:
        os.chown(path, config.uid, config.gid)


def check_private(config: PostgresConfig, data_dir: Path) -> None:
    """Postgres would refuse to start, and say so in its log only.  Raises DataModes."""
    found = data_dir.stat()
    if os.geteuid() == 0 and found.st_uid != config.uid:
        owner = f"{config.user}:"
        text = f"{data_dir} does not belong to {config.user}, whom Postgres runs as"
        raise DataModes(text, hint=f"chown -R {owner} {data_dir}")
    if found.st_mode & 0o077:
        text = f"{data_dir} can be entered by others than its owner"
        raise DataModes(text, hint=f"chmod 700 {data_dir}")


def fresh_directory(config: PostgresConfig, path: Path) -> None:
    """An empty directory of Postgres; what stood there is an unfinished try of ours."""
    shutil.rmtree(path, ignore_errors=False) if path.exists() else None
    path.mkdir(mode=0o700, parents=True)
    own(config, path)


def is_empty(path: Path) -> bool:
    """Whether there is nothing at all."""
    return not path.exists() or next(path.iterdir(), None) is None
