"""The real hand: one local PostgreSQL, its data directory, and what this node remembers of it."""

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import LiteralString

import psycopg

from flightmode.errors import (
    DataUnreadable,
    PostgresError,
    ServerSilent,
    ServerUnwilling,
    SettingsRefused,
    SyncNamesUnproven,
)
from flightmode.model.lsn import Lsn
from flightmode.model.server import FenceView, Role, Run, Server
from flightmode.model.timeline import History
from flightmode.postgres import (
    commands,
    copying,
    effective,
    files,
    floors,
    history,
    judging,
    postmaster,
    queries,
    roles,
    settings,
    status,
)
from flightmode.postgres.connection import Connection, abort, fetch, local, open_local
from flightmode.postgres.data import DataReader
from flightmode.postgres.disk import Disk
from flightmode.postgres.listening import check_port_free
from flightmode.postgres.port import PROBE_S, QUIET_S, StartCommand
from flightmode.postgres.settings import Changing, PostgresConfig

_LOOK_S = 0.4
_ACT_S = 5.0
_EFFECTIVE_S = 10.0
_POLL_S = 0.01
_DISK_EVERY_S = 5.0
_SETTINGS_EVERY_S = 30.0


@dataclass(frozen=True, slots=True)
class _Proof:
    """Since `since`, in this life of the postmaster, every commit waits for `names`."""

    names: tuple[str, ...]
    since: Lsn
    started: str


class PostgresServer:
    """Implements `port.Postgres`."""

    def __init__(self, config: PostgresConfig) -> None:
        self._config = config
        self._data = DataReader(config)
        self._disk_of_data = Disk()
        self._admitted = True
        """What pg_hba.conf was last made to say: goes for what it says while its disk hangs."""
        self._looking: Connection | None = None
        self._writing = asyncio.Lock()
        """Of flightmode.conf: a reload that was asked for goes beside a job that sets the names."""
        self._answered = ""
        """The start time of the postmaster that last answered."""
        self._proof: _Proof | None = None
        self._prepared = ""
        self._histories: dict[int, History] = {}
        self._floors: dict[str, int] = {}
        self._disk = (-1e9, 1.0)
        self._looked_at_settings_s = -1e9
        self._lowered: tuple[str, ...] = ()
        self._stray: tuple[str, ...] = ()
        self._judged = False
        """PostgreSQL takes the settings as configured; until then those of before are written."""
        self._refused: tuple[str, ...] = ()
        self._in_files: tuple[str, ...] = ()
        """What it has against those that are configured; against those in its files."""

    # ---------------------------------------------------------------- looking

    async def observe(self, fence: FenceView) -> Server:
        disk_free = await self._disk_free()
        if fence.reachable and not fence.running:
            seen = await self._stopped(fence)
        else:
            seen = await self._running(fence)
        return replace(seen, disk_free=disk_free)

    async def probe(self) -> None:
        try:
            async with asyncio.timeout(PROBE_S):
                async with local(self._config, within_s=PROBE_S) as connection:
                    await fetch(connection, queries.PROBE, within_s=PROBE_S)
        except TimeoutError:
            raise ServerSilent(f"a small write took longer than {PROBE_S:g} s") from None
        except psycopg.Error as error:
            raise ServerUnwilling(str(error).strip()) from None

    async def _stopped(self, fence: FenceView) -> Server:
        await self._drop()
        self._answered = ""
        if not fence.tree_empty:
            return Server(Run.DYING)
        try:
            data = await self._data.read()
            if data is None:
                return Server(Run.ABSENT)
            read = partial(history.read, self._config.data_dir, data.timeline)
            known = await self._disk_of_data.ask("the history", read)
        except DataUnreadable:
            return Server(Run.STOPPED)
        return Server(Run.STOPPED, data=data, history=known, position=data.position)

    async def _running(self, fence: FenceView) -> Server:
        proof = self._proof
        try:
            answer = await self._look()
        except ServerSilent:
            await self._drop()
            return Server(Run.SILENT if self._answered else Run.STARTING)
        except PostgresError:
            await self._drop()
            return Server(Run.STARTING if fence.running else await self._without_fence())
        self._answered = status.started(answer)
        await self._look_at_settings()
        received = await self._received(status.alone(answer))
        seen = status.server(answer, self._config, self._history, received)
        if proof is self._proof and self._proven(seen.sync_names) is None:
            # Once the names were others, commits went by that did not wait for these (S2).
            self._proof = None
        return replace(
            seen,
            sync_since=self._proven(seen.sync_names),
            admits_clients=await self._admits_now(status.loaded_wall_s(answer)),
            lowered_commit=self._lowered,
            stray_settings=self._stray,
            refused_settings=tuple(dict.fromkeys((*self._refused, *self._in_files))),
            prepared=self._prepared == f"{self._answered} {seen.run}",
        )

    async def _without_fence(self) -> Run:
        """The fence does not answer: Postgres dies with it, and may not have yet."""
        try:
            ask = partial(postmaster.lives, self._config)
            lives = await self._disk_of_data.ask("postmaster.pid", ask)
        except DataUnreadable:
            return Run.SILENT
        return Run.SILENT if lives else Run.DYING

    async def _look(self) -> str:
        """One query over the kept connection.  Raises ServerSilent, ServerUnwilling."""
        if self._looking is None:
            self._looking = await open_local(self._config, within_s=_LOOK_S)
        rows = await fetch(self._looking, queries.OBSERVE, within_s=_LOOK_S)
        return str(rows[0][0])

    async def _drop(self) -> None:
        if self._looking is not None:
            abort(self._looking)
            await self._looking.close()
            self._looking = None

    async def _received(self, alone: status.Alone | None) -> int:
        """The timeline of the WAL that a standby without a receiver has; 0: nothing is known.

        Its control file learns of a new one only at the next restartpoint.
        """
        if alone is None:
            return 0
        data_dir = self._config.data_dir
        ask = partial(history.received, data_dir, alone.position, alone.segment_bytes)
        try:
            return await self._disk_of_data.ask("the names of the WAL", ask)
        except DataUnreadable:
            return 0

    def _history(self, timeline: int) -> History | None:
        """Cached: a history file never changes once it is there."""
        if timeline not in self._histories:
            found = history.read(self._config.data_dir, timeline)
            if found is None:
                return None
            self._histories = {timeline: found}
        return self._histories[timeline]

    def _proven(self, names: tuple[str, ...]) -> Lsn | None:
        proof = self._proof
        fits = proof is not None and (proof.names, proof.started) == (names, self._answered)
        return proof.since if proof is not None and fits else None

    async def _admits_now(self, loaded_wall_s: float) -> bool:
        try:
            return await self._disk_of_data.ask("pg_hba", partial(self._admits, loaded_wall_s))
        except DataUnreadable:
            return self._admitted

    def _admits(self, loaded_wall_s: float) -> bool:
        """Whether the file says so, and was read since: a reload that failed is asked for again."""
        path = self._config.data_dir / settings.HBA
        if not path.exists() or path.stat().st_mtime > loaded_wall_s:
            return False
        return settings.admits(path.read_text())

    async def _disk_free(self) -> float:
        """The free part; a file system that does not answer at once keeps its last figure."""
        now_s = time.monotonic()
        if now_s - self._disk[0] < _DISK_EVERY_S:
            return self._disk[1]
        parent = self._config.data_dir.parent
        try:
            usage = await self._disk_of_data.ask("its room", partial(shutil.disk_usage, parent))
            self._disk = (now_s, usage.free / usage.total)
        except (DataUnreadable, OSError):
            self._disk = (now_s, self._disk[1])
        return self._disk[1]

    async def _look_at_settings(self) -> None:
        """Now and then: whether something has won over ours."""
        now_s = time.monotonic()
        if self._looking is None or now_s - self._looked_at_settings_s < _SETTINGS_EVERY_S:
            return
        # Also of a look that fails: it reads files, and a disk that stalls holds each one up.
        self._looked_at_settings_s = now_s
        try:
            lowered = await fetch(self._looking, queries.LOWERED_COMMIT, within_s=_LOOK_S)
            names = list(effective.NAMES)
            rows = await fetch(self._looking, queries.EFFECTIVE, (names,), within_s=_LOOK_S)
            self._in_files = await _against_files(self._looking, _LOOK_S)
        except PostgresError:
            await self._drop()
            return
        self._lowered = tuple(str(row[0]) for row in lowered)
        self._stray = effective.strays(self._config, {str(row[0]): str(row[1]) for row in rows})

    # ---------------------------------------------------------------- settings

    async def configure(self, role: Role, *, following: str | None, admit: bool) -> StartCommand:
        self._floors = {}
        await asyncio.to_thread(check_port_free, self._config.host, self._config.port)
        await asyncio.to_thread(self._make_room)
        await self._judge()
        if self._refused and not (self._config.data_dir / settings.CONF).exists():
            raise self._not_taken(self._refused)
        await asyncio.to_thread(self._configure, role, following, admit)
        self._admitted = admit
        if role is Role.STANDBY:
            self._floors = await floors.of(self._config)
            await asyncio.to_thread(self._write_conf, Changing(following, ()))
        self._proof = None
        config = self._config
        return StartCommand(
            argv=commands.postgres(config),
            environment=(("LC_ALL", "C.UTF-8"), ("PATH", os.environ.get("PATH", "/usr/bin:/bin"))),
            uid=config.uid,
            gid=config.gid,
            directory=config.data_dir,
            log=config.log,
        )

    def _make_room(self) -> None:
        """Raises DataModes."""
        config = self._config
        files.check_private(config, config.data_dir)
        for directory in (config.socket_dir, config.log.parent):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            files.own(config, directory)

    def _configure(self, role: Role, following: str | None, admit: bool) -> None:
        config, data_dir = self._config, self._config.data_dir
        self._write_passwords()
        for name, text in (
            ("postgresql.conf", settings.with_include),
            ("postgresql.auto.conf", settings.without_ours),
        ):
            path = data_dir / name
            files.write(config, path, text(path.read_text() if path.exists() else ""))
        files.write(config, data_dir / settings.IDENT, settings.ident(config))
        files.write(config, data_dir / settings.HBA, settings.hba(config, admit=admit))
        names = self._sync_names() if role is Role.PRIMARY else ()
        self._write_conf(Changing(following if role is Role.STANDBY else None, names))
        if role is Role.STANDBY:
            files.write(config, data_dir / settings.SIGNAL, "")
        else:
            files.remove(data_dir / settings.SIGNAL)

    def _write_passwords(self) -> None:
        files.write(self._config, self._config.passfile, roles.password_file(self._config))

    def _write_conf(self, changing: Changing) -> None:
        usage = shutil.disk_usage(self._config.data_dir)
        keep_mb = settings.slot_keep_mb(usage.total, usage.free)
        path, config = self._config.data_dir / settings.CONF, self._config
        if not self._judged and path.exists():
            config = replace(config, parameters=settings.parameters_of(path.read_text()))
        files.write(self._config, path, settings.conf(config, changing, keep_mb, self._floors))

    async def _judge(self) -> None:
        """Take up what is configured, if PostgreSQL does.  Raises PostgresError."""
        text = settings.conf(self._config, Changing(None, ()), settings.SLOT_KEEP_LEAST_MB)
        self._refused = await judging.refusals(self._config, text)
        self._judged = not self._refused

    def _not_taken(self, wrong: tuple[str, ...]) -> SettingsRefused:
        told = "PostgreSQL does not take its settings, and keeps those of before"
        return SettingsRefused(f"{self._config.name}: {told}: {'; '.join(wrong)}")

    def _write_hba_again(self) -> None:
        """With the rules as configured now; whether clients are let in stays as it is."""
        path = self._config.data_dir / settings.HBA
        if path.exists():
            admit = settings.admits(path.read_text())
            files.write(self._config, path, settings.hba(self._config, admit=admit))

    def _changing(self) -> Changing:
        """What flightmode.conf says now."""
        path = self._config.data_dir / settings.CONF
        return settings.changing_of(path.read_text() if path.exists() else "", self._config)

    def _sync_names(self) -> tuple[str, ...]:
        return self._changing().sync_names

    async def _change(self, changing: Changing) -> None:
        """Write and reload.  Raises PostgresError."""
        await self._rewrite(lambda _: changing)
        await self._reload()

    async def _rewrite(self, change: Callable[[Changing], Changing]) -> None:
        """Read what flightmode.conf says, and write it anew: nobody else does in between."""
        async with self._writing:
            before = await asyncio.to_thread(self._changing)
            await asyncio.to_thread(self._write_conf, change(before))

    async def _reload(self) -> None:
        await self._at_once(queries.RELOAD)

    async def _until_effective(self, name: str, wanted: str) -> None:
        """Until a connection opened after the reload has the value.

        The postmaster signals its children before it forks again, so by then every process
        has been told.  Raises SyncNamesUnproven.
        """
        until_s = time.monotonic() + _EFFECTIVE_S
        while time.monotonic() < until_s:
            async with local(self._config) as connection:
                rows = await fetch(connection, queries.SETTING, (name,), within_s=_ACT_S)
            if rows and rows[0][0] == wanted:
                return
            await asyncio.sleep(_POLL_S)
        raise SyncNamesUnproven(f"{name} did not become {wanted!r} within {_EFFECTIVE_S:g} s")

    async def detach(self) -> None:
        await self._change(Changing(None, ()))
        await self._until_effective("primary_conninfo", "")

    async def follow(self, member: str) -> None:
        await asyncio.to_thread(self._write_passwords)
        await self._change(Changing(member, ()))

    async def apply_settings(self) -> None:
        await asyncio.to_thread(self._write_hba_again)
        await self._judge()
        await self._rewrite(lambda as_before: as_before)
        async with local(self._config) as connection:
            await fetch(connection, queries.RELOAD, within_s=_ACT_S)
            # It reads the files by itself, so nothing has to be waited for.
            self._in_files = await _against_files(connection, _ACT_S)
        wrong = self._refused or self._in_files
        if wrong:
            raise self._not_taken(wrong)

    async def admit(self) -> None:
        text = settings.hba(self._config, admit=True)
        path = self._config.data_dir / settings.HBA
        await asyncio.to_thread(files.write, self._config, path, text)
        await self._reload()
        self._admitted = True

    async def set_sync_names(self, names: tuple[str, ...]) -> Lsn:
        # What was proven before says nothing of the commits in between (S2).
        self._proof = None
        await self._rewrite(lambda before: replace(before, sync_names=tuple(sorted(names))))
        async with local(self._config) as connection:
            await fetch(connection, queries.RELOAD, within_s=_ACT_S)
        await self._until_effective(
            "synchronous_standby_names", settings.sync_names_text(tuple(sorted(names)))
        )
        async with local(self._config) as connection:
            started = str((await fetch(connection, queries.STARTED, within_s=_ACT_S))[0][0])
            if not names:
                return Lsn(0)
            await fetch(connection, queries.CHECKPOINT, within_s=None)
            since = Lsn.parse((await fetch(connection, queries.FLUSHED, within_s=_ACT_S))[0][0])
        self._proof = _Proof(tuple(sorted(names)), since, started)
        return since

    # ---------------------------------------------------------------- acts

    async def promote(self) -> None:
        await self._at_once(queries.PROMOTE)

    async def _at_once(self, query: LiteralString) -> None:
        """Over the kept connection, if there is one: every millisecond of a failover counts.

        For what the loop does itself; a job beside it would be in the way of its looks.
        """
        if self._looking is not None:
            await fetch(self._looking, query, within_s=_ACT_S)
            return
        async with local(self._config) as connection:
            await fetch(connection, query, within_s=_ACT_S)

    async def checkpoint(self) -> None:
        async with local(self._config) as connection:
            await fetch(connection, queries.CHECKPOINT, within_s=None)

    async def prepare(self, slots: tuple[str, ...]) -> None:
        async with local(self._config) as connection:
            # One job at a time: one that waits for a user's transaction would hold up all others.
            await fetch(connection, queries.STATEMENTS_END, within_s=_ACT_S)
            await roles.make_slots(connection, slots)
            await roles.make_roles(connection, self._config)
            await fetch(connection, queries.STATEMENTS_LAST, within_s=_ACT_S)
            rows = await fetch(connection, queries.TIMELINES, within_s=_ACT_S)
            if rows[0][0] != rows[0][1]:
                # Whoever rewinds against us compares control files: ours must tell our timeline.
                await fetch(connection, queries.CHECKPOINT, within_s=None)
            started = str((await fetch(connection, queries.STARTED, within_s=_ACT_S))[0][0])
        self._prepared = f"{started} {Run.PRIMARY}"

    async def settle(self, within_s: float) -> None:
        now_s = asyncio.get_running_loop().time
        until_s = now_s() + within_s
        async with local(self._config) as connection:
            busy_s = now_s()
            while now_s() < until_s and now_s() - busy_s < QUIET_S:
                await asyncio.sleep(_POLL_S)
                if (await fetch(connection, queries.AT_WORK, within_s=_ACT_S))[0][0]:
                    busy_s = now_s()

    async def end_walsenders(self, keep: tuple[str, ...]) -> None:
        await asyncio.to_thread(postmaster.end_walsenders, self._config, keep)

    async def initdb(self) -> None:
        await copying.initdb(self._config)

    async def clone(self, member: str) -> None:
        await asyncio.to_thread(self._write_passwords)
        await copying.clone(self._config, member)

    async def rewind(self, member: str) -> None:
        await asyncio.to_thread(self._write_passwords)
        await copying.rewind(self._config, member)

    async def close(self) -> None:
        await self._drop()


async def _against_files(connection: Connection, within_s: float) -> tuple[str, ...]:
    """What the server has against its files.  Raises PostgresError."""
    rows = await fetch(connection, queries.FILE_ERRORS, within_s=within_s)
    # Asked after it: the view before has this very session find out what waits for a restart.
    waiting = await fetch(connection, queries.WAITING, within_s=within_s) if rows else ()
    return judging.in_files(rows, (row[0] for row in waiting))
