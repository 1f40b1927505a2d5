"""The fence with a real PostgreSQL: what stops when, and what never does (S4, I6)."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from flightmode.errors import FenceRefused, FenceUnreachable
from flightmode.fence.client import FenceClient
from flightmode.fence.port import Exited, Fenced, FenceEvent, StartRequest, TreeEmpty
from flightmode.model.server import Role
from tests.integration.fence_process import (
    ROOT,
    FenceProcess,
    Program,
    binary,
    boottime_s,
    eventually,
    postgres_user,
    proc,
)

BIN = Path("/usr/lib/postgresql/15/bin")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not (BIN / "postgres").exists(), reason="PostgreSQL 15 is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to run Postgres as its own user"),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def as_postgres(*argv: str) -> None:
    user = postgres_user()
    subprocess.run(
        argv, user=user.pw_uid, group=user.pw_gid, extra_groups=[], check=True,
        stdout=subprocess.DEVNULL, cwd="/",
    )  # fmt: skip


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """A fresh data directory, to be copied."""
    home = Path(tempfile.mkdtemp(prefix="fence-template-"))
    try:
        os.chown(home, postgres_user().pw_uid, postgres_user().pw_gid)
        data = home / "data"
        as_postgres(str(BIN / "initdb"), "--no-sync", "-A", "trust", "-U", "postgres", str(data))
        yield data
    finally:
        shutil.rmtree(home)


class Node:
    """A fence, and a Postgres for it to start."""

    def __init__(self, fence: FenceProcess, template: Path) -> None:
        self.fence = fence
        self.client = fence.client
        self.port = free_port()
        self.data = fence.work / "data"
        as_postgres("cp", "-a", str(template), str(self.data))

    def postgres(self) -> Program:
        # fsync=off: nothing here is about what survives a crash of the machine.
        settings = {
            "port": self.port, "unix_socket_directories": self.fence.work,
            "listen_addresses": "127.0.0.1", "fsync": "off", "shared_buffers": "16MB",
        }  # fmt: skip
        options = [f"--{name}={value}" for name, value in settings.items()]
        return self.fence.program(str(BIN / "postgres"), "-D", str(self.data), *options)

    async def start(
        self, role: Role = Role.PRIMARY, term: int = 1, deadline_s: float | None = None
    ) -> psutil.Process:
        """The postmaster, once it answers."""
        if role is Role.PRIMARY and deadline_s is None:
            await self.client.lift(term)
        pid = await self.client.start(StartRequest(self.postgres(), role, term, deadline_s))
        await eventually("Postgres answers", self.answers)
        return psutil.Process(pid)

    async def connect(self) -> psycopg.AsyncConnection[tuple[object, ...]]:
        return await psycopg.AsyncConnection.connect(
            host="127.0.0.1", port=self.port, user="postgres", dbname="postgres", autocommit=True
        )

    async def answers(self) -> bool:
        try:
            async with await self.connect() as connection:
                await connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    async def empty(self) -> bool:
        return (await self.client.status()).tree_empty


@pytest.fixture
async def node(template: Path) -> AsyncIterator[Node]:
    async with FenceProcess() as fence:
        yield Node(fence, template)


def gone(process: psutil.Process) -> bool:
    """A zombie is gone; it only waits for its parent to notice."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def open_files(process: psutil.Process) -> list[str]:
    return [os.readlink(path) for path in Path(f"/proc/{process.pid}/fd").iterdir()]


def control_state(data: Path) -> str:
    """As pg_controldata prints it."""
    argv = [BIN / "pg_controldata", data]
    printed = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    lines = dict(line.split(":", 1) for line in printed.splitlines() if ":" in line)
    return lines["Database cluster state"].strip()


async def is_gone(process: psutil.Process, within_s: float = 10.0) -> float:
    """When it was seen gone."""

    async def seen() -> float:
        return boottime_s() if gone(process) else 0.0

    return float(await eventually(f"{process} has ended", seen, within_s))


async def exited_s(node: Node) -> float:
    """When the postmaster ended, by the fence's clock: this process may be slow to look."""

    async def seen() -> float:
        return (await node.client.status()).exited_s or 0.0

    return float(await eventually("the postmaster has ended", seen))


class Listener:
    """Collects events in the background."""

    def __init__(self, client: FenceClient) -> None:
        self._client = client
        self.heard: list[tuple[float, FenceEvent]] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Listener":
        self._task = asyncio.create_task(self._listen())
        marker = self._client

        async def subscribed() -> bool:
            return (await marker.report()).subscribers > 0

        await eventually("subscribed", subscribed)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _listen(self) -> None:
        async for event in self._client.events():
            self.heard.append((boottime_s(), event))

    async def until(self, kind: type[FenceEvent], within_s: float = 5.0) -> float:
        """When the first event of this kind was heard."""

        async def heard() -> float:
            return next((at_s for at_s, event in self.heard if isinstance(event, kind)), 0.0)

        return float(await eventually(f"heard {kind}", heard, within_s))


# ---------------------------------------------------------------- start, adopt, stop


async def test_postgres_starts_as_its_own_user_and_stops_fast(node: Node) -> None:
    postmaster = await node.start()
    assert postmaster.uids().real == postgres_user().pw_uid
    assert postmaster.ppid() == node.fence.pid
    assert os.getsid(postmaster.pid) == postmaster.pid
    report = await node.client.report()
    assert report.pid == postmaster.pid
    assert report.view.running
    assert report.view.role is Role.PRIMARY
    assert report.view.lifted

    await node.client.stop("fast")
    await eventually("nothing is left", node.empty)
    report = await node.client.report()
    assert report.last_exit is not None
    assert (report.last_exit.pid, report.last_exit.exit_code) == (postmaster.pid, 0)
    assert not report.view.running


async def test_postgres_starts_again_after_a_stop(node: Node) -> None:
    for term in (1, 2):
        await node.start(term=term)
        await node.client.stop("immediate")
        await eventually("nothing is left", node.empty)


async def test_a_log_that_is_cut_under_postgres_goes_on_at_its_beginning(node: Node) -> None:
    """So that logrotate may copy and cut it: nobody has to be told."""
    await node.start()
    log = node.fence.work / "postgres.log"
    assert log.stat().st_size > 0
    os.truncate(log, 0)
    async with await node.connect() as connection:
        with pytest.raises(psycopg.errors.UndefinedTable):
            await connection.execute("SELECT * FROM nowhere")
    written = log.read_bytes()
    assert b"nowhere" in written
    assert b"\0" not in written, "as a writer that keeps its place in the file leaves"


async def test_what_protects_the_fence_is_not_given_to_postgres(node: Node) -> None:
    postmaster = await node.start()
    assert proc(postmaster.pid, "oom_score_adj").strip() == "0"
    assert os.sched_getscheduler(postmaster.pid) == os.SCHED_OTHER
    status = proc(postmaster.pid, "status")
    assert "VmLck:\t       0 kB" in status
    assert "CapEff:\t0000000000000000" in status
    # Nothing of the fence's leaks: standard streams, and what Postgres opened itself.
    assert not [link for link in open_files(postmaster) if "timerfd" in link or "pidfd" in link]


async def test_what_cannot_be_executed_is_told(node: Node) -> None:
    await node.client.lift(1)
    program = node.fence.program("/nonexistent/postgres")
    with pytest.raises(FenceRefused, match="could not execute the program: No such file"):
        await node.client.start(StartRequest(program, Role.PRIMARY, 1, None))
    await eventually("nothing is left", node.empty)
    await node.start()


async def test_a_second_start_is_refused(node: Node) -> None:
    await node.start()
    with pytest.raises(FenceRefused) as refused:
        await node.client.start(StartRequest(node.postgres(), Role.PRIMARY, 1, None))
    assert refused.value.reason == "already_running"


async def test_two_starts_at_once_make_one_postmaster(node: Node) -> None:
    await node.client.lift(1)
    request = StartRequest(node.postgres(), Role.PRIMARY, 1, None)
    outcomes = await asyncio.gather(
        node.client.start(request), node.client.start(request), return_exceptions=True
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, FenceRefused)]
    assert [refusal.reason for refusal in refused] == ["already_running"]
    assert len(psutil.Process(node.fence.pid).children()) == 1


async def test_the_death_of_a_client_disturbs_nobody_and_another_adopts(node: Node) -> None:
    script = (
        "import asyncio, sys; from pathlib import Path;"
        "from flightmode.fence.client import FenceClient;"
        "asyncio.run(anext(aiter(FenceClient(Path(sys.argv[1])).events())))"
    )
    postmaster = await node.start()
    agent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(node.fence.socket), cwd=ROOT
    )

    async def subscribed() -> bool:
        return (await node.client.report()).subscribers > 0

    async with await node.connect() as connection:
        await eventually("the agent listens", subscribed)
        agent.kill()
        await agent.wait()
        row = await (await connection.execute("SELECT pg_postmaster_start_time()")).fetchone()
        assert row is not None

        async def nobody() -> bool:
            return (await node.client.report()).subscribers == 0

        await eventually("the fence has seen the agent go", nobody)
        again = await (await connection.execute("SELECT pg_postmaster_start_time()")).fetchone()
        assert again == row
    adopted = await FenceClient(node.fence.socket).report()
    assert adopted.pid == postmaster.pid
    assert adopted.view.running


# ---------------------------------------------------------------- the deadline


async def test_at_the_deadline_and_not_before_postgres_is_gone(node: Node) -> None:
    deadline_s = boottime_s() + 2.5
    postmaster = await node.start(deadline_s=deadline_s)
    async with Listener(node.client) as listener:
        fenced_s = await listener.until(Fenced)
        gone_s = await exited_s(node)
        await listener.until(TreeEmpty)
    assert gone(postmaster)
    assert deadline_s <= fenced_s
    assert deadline_s <= gone_s < deadline_s + 0.3
    assert (await node.client.status()).expired


async def test_an_extension_moves_the_deadline(node: Node) -> None:
    first_s = boottime_s() + 1.5
    await node.start(deadline_s=first_s)
    await node.client.extend(1, first_s + 1.0)
    gone_s = await exited_s(node)
    assert first_s + 1.0 <= gone_s < first_s + 1.3


async def test_a_lifted_permission_outlives_its_old_deadline(node: Node) -> None:
    deadline_s = boottime_s() + 1.5
    postmaster = await node.start(deadline_s=deadline_s)
    await node.client.lift(1)
    async with await node.connect() as connection:

        async def later() -> bool:
            await connection.execute("SELECT 1")
            return boottime_s() > deadline_s + 0.5

        await eventually("half a second after the old deadline", later)
    assert not gone(postmaster)
    assert (await node.client.status()).lifted


async def test_a_standby_is_not_stopped_at_a_deadline(node: Node) -> None:
    as_postgres("touch", str(node.data / "standby.signal"))
    standby = await node.start(Role.STANDBY)
    async with Listener(node.client) as listener:
        await node.client.extend(1, boottime_s() + 0.2)
        await listener.until(Fenced)
        assert await node.answers()
        assert not gone(standby)
    assert (await node.client.status()).role is Role.STANDBY


async def test_a_promoted_standby_is_stopped_at_its_deadline(node: Node) -> None:
    as_postgres("touch", str(node.data / "standby.signal"))
    await node.start(Role.STANDBY)
    with pytest.raises(FenceRefused) as refused:
        await node.client.set_role(Role.PRIMARY, 2)
    assert refused.value.reason == "no_permission"
    deadline_s = boottime_s() + 0.5
    await node.client.extend(2, deadline_s)
    await node.client.set_role(Role.PRIMARY, 2)
    gone_s = await exited_s(node)
    assert deadline_s <= gone_s < deadline_s + 0.3


async def test_a_fenced_primary_comes_back_only_by_a_new_permission(node: Node) -> None:
    await node.start(deadline_s=boottime_s() + 1.5)
    await eventually("fenced", node.empty)
    with pytest.raises(FenceRefused) as refused:
        await node.client.start(StartRequest(node.postgres(), Role.PRIMARY, 1, None))
    assert refused.value.reason == "no_permission"
    await node.start(deadline_s=boottime_s() + 30)


async def test_a_hung_postmaster_is_killed_two_seconds_after_the_deadline(node: Node) -> None:
    deadline_s = boottime_s() + 1.5
    postmaster = await node.start(deadline_s=deadline_s)
    async with await node.connect():
        children = postmaster.children(recursive=True)
        assert children
        postmaster.suspend()

        async def past() -> bool:
            return boottime_s() > deadline_s + 0.1

        await eventually("the deadline has passed", past)
        with pytest.raises(FenceRefused) as refused:
            await node.client.extend(2, boottime_s() + 60)
        assert refused.value.reason == "not_stopped"
        await eventually("nothing is left", node.empty)
        gone_s = boottime_s()
    assert deadline_s + 2.0 <= gone_s < deadline_s + 2.5
    assert all(gone(process) for process in (postmaster, *children))


async def test_void_stops_postgres_at_once_and_asking_again_gives_no_more_time(node: Node) -> None:
    postmaster = await node.start()
    postmaster.suspend()
    began_s = boottime_s()

    async def asked_again() -> bool:
        await node.client.void()
        return await node.empty()

    await eventually("nothing is left", asked_again)
    assert 2.0 <= boottime_s() - began_s < 2.5
    with pytest.raises(FenceRefused):
        await node.client.start(StartRequest(node.postgres(), Role.PRIMARY, 1, None))


async def test_an_older_term_is_refused(node: Node) -> None:
    await node.client.lift(5)
    for attempt in (
        node.client.lift(4),
        node.client.extend(4, boottime_s() + 60),
        node.client.start(StartRequest(node.postgres(), Role.PRIMARY, 4, None)),
        node.client.start(StartRequest(node.postgres(), Role.PRIMARY, 4, boottime_s() + 60)),
        node.client.start(StartRequest(node.postgres(), Role.STANDBY, 4, None)),
    ):
        with pytest.raises(FenceRefused) as refused:
            await attempt
        assert refused.value.reason == "older_term"
    status = await node.client.status()
    assert (status.term, status.lifted, status.tree_empty) == (5, True, True)


async def test_a_primary_does_not_start_without_permission(node: Node) -> None:
    with pytest.raises(FenceRefused) as refused:
        await node.client.start(StartRequest(node.postgres(), Role.PRIMARY, 1, None))
    assert refused.value.reason == "no_permission"
    assert await node.empty()


# ---------------------------------------------------------------- deaths


async def test_when_the_fence_is_killed_postgres_ends_with_it(node: Node) -> None:
    postmaster = await node.start()
    async with await node.connect():
        everything = [postmaster, *postmaster.children(recursive=True)]
        node.fence.signal(signal.SIGKILL)
        node.fence.wait()
        for process in everything:
            await is_gone(process, 1.0)
    with pytest.raises(FenceUnreachable):
        await node.client.status()
    await node.fence.start()
    await node.start()


async def test_asked_to_end_the_fence_stops_postgres_first(node: Node) -> None:
    postmaster = await node.start()
    node.fence.signal(signal.SIGTERM)
    assert await asyncio.to_thread(node.fence.wait) == 0
    assert gone(postmaster)
    assert not node.fence.socket.exists()
    assert control_state(node.data) == "shut down"


async def test_the_death_of_the_postmaster_is_told_at_once_and_its_orphans_block_a_start(
    node: Node,
) -> None:
    postmaster = await node.start()
    async with Listener(node.client) as listener, await node.connect() as connection:
        backend = psutil.Process(connection.info.backend_pid)
        backend.suspend()
        killed_s = boottime_s()
        postmaster.kill()
        await listener.until(Exited)
        status = await node.client.status()
        assert status.exited_s is not None
        assert status.exited_s - killed_s < 0.05
        assert not status.running
        assert not status.tree_empty
        with pytest.raises(FenceRefused) as refused:
            await node.client.start(StartRequest(node.postgres(), Role.PRIMARY, 1, None))
        assert refused.value.reason == "remnants"
        assert not gone(backend)
        assert not [event for _, event in listener.heard if isinstance(event, TreeEmpty)]

        await node.client.kill()
        await listener.until(TreeEmpty)
        assert gone(backend)
    exited = [event for _, event in listener.heard if isinstance(event, Exited)]
    assert [(event.pid, event.signal) for event in exited] == [(postmaster.pid, signal.SIGKILL)]
    await node.start()


async def test_at_the_deadline_orphans_of_a_dead_postmaster_are_killed_too(node: Node) -> None:
    deadline_s = boottime_s() + 2.0
    postmaster = await node.start(deadline_s=deadline_s)
    async with await node.connect() as connection:
        backend = psutil.Process(connection.info.backend_pid)
        backend.suspend()
        postmaster.kill()
        gone_s = await is_gone(backend)
    assert deadline_s <= gone_s < deadline_s + 0.3


async def test_a_postgres_of_nobody_in_the_same_directory_blocks_a_start(node: Node) -> None:
    program = node.postgres()
    stranger = await asyncio.create_subprocess_exec(
        *program.argv, user=program.uid, group=program.gid, extra_groups=[], cwd=node.data,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await eventually("the stranger answers", node.answers)
        await node.client.lift(1)
        with pytest.raises(FenceRefused) as refused:
            await node.client.start(StartRequest(node.postgres(), Role.PRIMARY, 1, None))
        assert refused.value.reason == "remnants"
        await node.client.kill()
        assert await asyncio.wait_for(stranger.wait(), 5) == -signal.SIGKILL
    finally:
        if stranger.returncode is None:
            stranger.kill()
            await stranger.wait()
    await eventually("nothing is left", node.empty)
    await node.start()


# ---------------------------------------------------------------- peers


async def test_somebody_else_may_not_speak_to_the_fence(node: Node) -> None:
    node.fence.socket.chmod(0o666)
    script = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET);"
        "s.connect(sys.argv[1]); s.settimeout(5); print(s.recv(9999).decode());"
        "print(repr(s.recv(9999)))"
    )
    said = await asyncio.create_subprocess_exec(
        "/usr/bin/python3", "-c", script, str(node.fence.socket),
        stdout=asyncio.subprocess.PIPE, user="nobody", group="nogroup", extra_groups=[], cwd="/",
    )  # fmt: skip
    words, _ = await said.communicate()
    assert b'"code":"peer_refused"' in words
    assert words.endswith(b"b''\n")


async def test_the_socket_is_for_its_owner_alone(node: Node) -> None:
    status = node.fence.socket.stat()
    assert (status.st_uid, status.st_mode & 0o777) == (postgres_user().pw_uid, 0o600)


async def test_nobody_gets_a_process_of_another_user(node: Node) -> None:
    await node.client.lift(1)
    program = node.fence.program("/bin/sleep", "60")
    for uid, gid in ((0, 0), (0, program.gid), (program.uid, 0)):
        other = Program(program.argv, program.environment, uid, gid, program.directory, program.log)
        with pytest.raises(FenceRefused) as refused:
            await node.client.start(StartRequest(other, Role.PRIMARY, 1, None))
        assert refused.value.reason == "wrong_user"


async def test_a_second_fence_at_the_same_socket_ends(node: Node) -> None:
    argv = [binary(), "--socket", str(node.fence.socket), "--node", "fra"]
    argv += ["--postgres-uid", str(node.fence.user.pw_uid)]
    second = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.PIPE)
    _, words = await second.communicate()
    assert b"another fence has this socket" in words
    assert second.returncode == 71
    assert (await node.client.status()).reachable
