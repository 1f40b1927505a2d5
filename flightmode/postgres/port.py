"""What the hand that touches the local Postgres promises.

`server.py` is the real one; the simulator has its own.  Starting and stopping
processes is the fence's: this hand only says *what* to start.
No method blocks the loop: file-system calls and subprocesses run in threads or
children, and every query has a deadline.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from flightmode.model.lsn import Lsn
from flightmode.model.server import FenceView, Role, Server

PROBE_S: Final = 1.5
"""So long a probe may take."""
QUIET_S: Final = 0.06
"""So long no client has to be seen at work: news of a stop take a moment to reach the proxies."""


@dataclass(frozen=True, slots=True)
class StartCommand:
    """How to start the postmaster: what the fence is told."""

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    uid: int
    gid: int
    directory: Path
    log: Path


class Postgres(Protocol):
    """The local PostgreSQL server and its data directory."""

    async def observe(self, fence: FenceView) -> Server:
        """What it is now.  Never raises for a sick server: that is what `Server.run` tells.

        Takes at most 0.5 s; a server that runs and does not answer is STARTING, or SILENT when
        it has answered since its start.  Cheap enough for 20 calls a second: one query over a kept
        connection; control data is read only when the server does not run, and cached.
        """

    async def probe(self) -> None:
        """A new connection to the running primary, and a small write that is flushed.

        Takes at most `PROBE_S`.  Raises ServerSilent when it does not come to its end, and
        ServerUnwilling when the server answers and refuses."""

    async def configure(self, role: Role, *, following: str | None, admit: bool) -> StartCommand:
        """Write postgresql.conf, pg_hba.conf, standby.signal for a start in this role.

        `following`: the member to stream from (standby), None for nobody.  For a primary,
        synchronous_standby_names keeps what was last set by `set_sync_names`.
        `admit` False: only our own roles may connect (S8).  Where PostgreSQL would not take a
        setting, those of before stay, and `Server.refused_settings` tells.  Raises PostgresError;
        SettingsRefused where there are none of before.
        """

    async def initdb(self) -> None:
        """Make a new data directory (checksums on).  Repeatable: starts over what was unfinished.

        Raises PostgresError; never touches a directory that holds a finished cluster."""

    async def detach(self) -> None:
        """Clear primary_conninfo and reload.  Does not wait for the receiver to end."""

    async def follow(self, member: str) -> None:
        """Point the running standby at `member` and reload."""

    async def promote(self) -> None:
        """Ask the standby to promote (no wait: `observe` tells when it is primary)."""

    async def set_sync_names(self, names: tuple[str, ...]) -> Lsn:
        """Set synchronous_standby_names (`ANY 1 ("a")`, or empty) and prove it (S2).

        Returns a position from which on every commit is certain to wait: the new value is
        visible to a connection opened after the reload, and the checkpointer, which owns the
        shared flag that committing backends read (syncrep.c, SyncRepUpdateSyncStandbysDefined),
        has gone round its main loop since, shown by a CHECKPOINT asked for after that.
        For an empty list no checkpoint is made.  `Server.sync_since` shows the position.
        Raises PostgresError when it could not be proven.
        """

    async def admit(self) -> None:
        """Let clients in: render pg_hba.conf open and reload."""

    async def prepare(self, slots: tuple[str, ...]) -> None:
        """On a primary: make our roles (replication, rewind, monitor) and exactly these slots.

        Repeatable.  Slots of others that are not in the list and inactive are dropped."""

    async def apply_settings(self) -> None:
        """Render settings as configured and reload; `Server.pending_restart` tells the rest.

        Raises SettingsRefused when PostgreSQL would not take one of them: rules of access are
        in force then, and of the settings those of before, which `detach`, `follow` and
        `set_sync_names` go on to write.  PostgresError.
        """

    async def checkpoint(self) -> None:
        """CHECKPOINT, as fast as possible."""

    async def settle(self, within_s: float) -> None:
        """Wait until no client has been in a transaction for `QUIET_S`; at most `within_s`.

        Raises ServerSilent, ServerUnwilling."""

    async def end_walsenders(self, keep: tuple[str, ...]) -> None:
        """Terminate walsenders whose application_name is not in `keep` (a planned stop, S5)."""

    async def clone(self, member: str) -> None:
        """pg_basebackup from `member` into a new directory beside, then swap by rename.

        The old directory is kept under another name (I10).  Raises PostgresError."""

    async def rewind(self, member: str) -> None:
        """pg_rewind against `member`; marks the directory unfinished meanwhile.

        Raises PostgresError; then the directory may be unusable and says so (`unfinished`)."""

    async def close(self) -> None:
        """Give up connections and children.  The server goes on."""
