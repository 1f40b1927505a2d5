"""Whether the settings that safety rests on are in force.  Pure.

They stand in our file, and something may win over it: ALTER SYSTEM, until the next start.
"""

from collections.abc import Callable, Mapping
from typing import Final

from flightmode.postgres.settings import HBA, IDENT, SLOT_KEEP_LEAST_MB, PostgresConfig

_OFF: Final = "off".__eq__
_ON: Final = "on".__eq__

_AS_WANTED: Final[Mapping[str, Callable[[str], bool]]] = {
    "fsync": _ON,
    "full_page_writes": _ON,
    # pg_rewind cannot work without (or checksums, which an adopted directory may lack).
    "wal_log_hints": _ON,
    "wal_level": lambda value: value in ("replica", "logical"),
    "hot_standby": _ON,
    # After a crash the agent decides who goes on.
    "restart_after_crash": _OFF,
    # After a failed fsync the kernel has forgotten the pages: a second one would succeed.
    "data_sync_retry": _OFF,
    "zero_damaged_pages": _OFF,
    "ignore_checksum_failure": _OFF,
    "recovery_min_apply_delay": "0".__eq__,
    "recovery_target_timeline": "latest".__eq__,
    # Without a limit a standby that is away fills the primary's disk (S9).
    "max_slot_wal_keep_size": lambda value: int(value) >= SLOT_KEEP_LEAST_MB,
}

NAMES: Final = (*_AS_WANTED, "hba_file", "ident_file")


def strays(config: PostgresConfig, effective: Mapping[str, str]) -> tuple[str, ...]:
    """Each setting that is not as it must be, `name = value`, with the value in force.

    `effective`: what pg_settings says of `NAMES`; one that this version does not have is left out.
    """
    # With another file of access rules clients come in when they must not (S8).
    files = {"hba_file": str(config.data_dir / HBA), "ident_file": str(config.data_dir / IDENT)}
    wanted = {**_AS_WANTED, **{name: path.__eq__ for name, path in files.items()}}
    return tuple(
        f"{name} = {value}" for name, value in effective.items() if not wanted[name](value)
    )
