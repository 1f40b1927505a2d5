"""The data directory while Postgres does not run."""

import os
from dataclasses import dataclass
from pathlib import Path

from flightmode.errors import DataUnreadable, PostgresError
from flightmode.model.server import DataDirectory
from flightmode.postgres import commands, controldata
from flightmode.postgres.disk import Disk
from flightmode.postgres.files import UNFINISHED, is_empty
from flightmode.postgres.settings import SIGNAL, PostgresConfig
from flightmode.postgres.subprocesses import run


@dataclass(frozen=True, slots=True)
class _Print:
    """What tells that the directory has changed since it was last read."""

    control: tuple[int, int, int]
    """Device, inode and time of change (ns): a directory may be swapped for an older one."""
    major: int
    signal: bool
    unfinished: str | None


class DataReader:
    """Reads a stopped data directory; asks pg_controldata only when something changed."""

    def __init__(self, config: PostgresConfig) -> None:
        self._config = config
        self._disk = Disk()
        self._last: tuple[_Print, DataDirectory] | None = None

    async def read(self) -> DataDirectory | None:
        """None: there is none.  Raises DataUnreadable."""
        found = await self._disk.ask("the data directory", self._print)
        if found is None:
            return None
        if self._last is not None and self._last[0] == found:
            return self._last[1]
        try:
            text = await run(self._config, commands.controldata(self._config))
        except PostgresError as error:
            raise DataUnreadable(str(error)) from None
        data = controldata.parse(
            text, pg_major=found.major, standby_signal=found.signal, unfinished=found.unfinished
        )
        self._last = (found, data)
        return data

    def _print(self) -> _Print | None:
        data_dir = self._config.data_dir
        if is_empty(data_dir):
            return None
        try:
            control = os.stat(data_dir / "global" / "pg_control")
        except FileNotFoundError:
            raise DataUnreadable(f"{data_dir} is not empty and holds no Postgres cluster") from None
        marker = data_dir / UNFINISHED
        unfinished = marker.read_text().strip() if marker.exists() else None
        identity = (control.st_dev, control.st_ino, control.st_mtime_ns)
        return _Print(identity, major_of(data_dir), (data_dir / SIGNAL).exists(), unfinished)


def major_of(data_dir: Path) -> int:
    """The major version that a data directory belongs to.  Raises DataUnreadable."""
    try:
        return int((data_dir / "PG_VERSION").read_text().strip().partition(".")[0])
    except (FileNotFoundError, ValueError):
        raise DataUnreadable(f"{data_dir}/PG_VERSION cannot be read") from None
