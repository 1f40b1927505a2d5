"""Settings that must not be lower on a standby than they were on its primary.

Postgres refuses to start such a standby (manual, 27.4.3).  Who lowers one restarts the primary
first; until a standby has replayed that, it goes on with the old value.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from flightmode.postgres import commands, controldata
from flightmode.postgres.settings import PostgresConfig
from flightmode.postgres.subprocesses import run

_PRINTED: Final = {
    "max_connections": "max_connections setting",
    "max_worker_processes": "max_worker_processes setting",
    "max_wal_senders": "max_wal_senders setting",
    "max_prepared_transactions": "max_prepared_xacts setting",
    "max_locks_per_transaction": "max_locks_per_xact setting",
}
"""The setting, and how pg_controldata calls it."""


def told(control: str) -> dict[str, int]:
    """What the primary had, from the output of pg_controldata.  Pure."""
    fields = controldata.fields(control)
    return {name: int(fields[line]) for name, line in _PRINTED.items() if line in fields}


def too_low(wanted: Mapping[str, int], floors: Mapping[str, int]) -> dict[str, int]:
    """The floors that are above what is wanted.  Pure."""
    return {name: floor for name, floor in floors.items() if wanted[name] < floor}


async def of(config: PostgresConfig) -> dict[str, int]:
    """What a start as standby needs above the settings in the (written) files.

    Raises PostgresCommandFailed.
    """
    floors = told(await run(config, commands.controldata(config)))
    asked = await asyncio.gather(*(run(config, commands.setting(config, name)) for name in floors))
    wanted = {name: int(answer) for name, answer in zip(floors, asked, strict=True)}
    return too_low(wanted, floors)
