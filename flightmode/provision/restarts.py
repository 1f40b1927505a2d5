"""Settings of Postgres that need a restart: who restarts when.  Pure, but for one question in SQL.

Some settings may not be lower on a standby than on its primary (Postgres manual, 27.4.3): a growing
one has to be on the standbys first, a shrinking one on the primary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from flightmode.errors import RequestWrong

FLOORS = (
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
)
DIRECTIONS = f"""
SELECT s.name, sign(coalesce(f.setting, s.boot_val)::bigint - s.setting::bigint)
FROM pg_settings AS s LEFT JOIN LATERAL (
    SELECT setting FROM pg_file_settings WHERE name = s.name ORDER BY seqno DESC LIMIT 1
) AS f ON true
WHERE s.pending_restart AND s.name IN ({", ".join(f"'{name}'" for name in FLOORS)})
"""
"""On the primary: which of them wait for a restart, and whether they grow (1) or shrink (-1)."""


class Turn(StrEnum):
    RESTART = "restart"
    SWITCH_OVER = "switch over"
    """Away from this node; it restarts when it begins to follow."""


@dataclass(frozen=True, slots=True)
class Restart:
    """One thing to do, with the cluster whole before and after it."""

    turn: Turn
    node: str


def shrinks(directions: Mapping[str, int]) -> bool:
    """Whether the primary goes first.  Raises RequestWrong: one grows while another shrinks."""
    up = sorted(name for name, sign in directions.items() if sign > 0)
    down = sorted(name for name, sign in directions.items() if sign < 0)
    if up and down:
        raise RequestWrong(
            f"{', '.join(up)} would grow and {', '.join(down)} shrink: one has to be on the "
            "standbys first and the other on the primary; change them one after the other in "
            "flightmode.toml (nothing was restarted)",
            hint="flightmode config apply --plan",
        )
    return bool(down)


def order(
    waiting: Mapping[str, Sequence[str]], primary: str, *, primary_first: bool
) -> list[Restart]:
    """`waiting`: for each database node the settings that wait for its restart."""
    others = [
        Restart(Turn.RESTART, name) for name, names in waiting.items() if names and name != primary
    ]
    if not waiting.get(primary):
        return others
    if primary_first or len(waiting) == 1:
        return [Restart(Turn.RESTART, primary), *others]
    return [*others, Restart(Turn.SWITCH_OVER, primary)]
