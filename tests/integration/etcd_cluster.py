"""Real etcd members on loopback with mTLS, to be killed, frozen, wiped, and lied to.

    async with EtcdCluster(3) as etcd:
        store = EtcdStore(etcd.endpoints(), etcd.client_tls(), clock=time.monotonic)
        etcd.kill(0)

Signals (`kill`, `stop`, `cont`) act at once; what takes time is awaited and ends when
etcd says it is so.  `link(i)` is a forwarder in front of a member that can lose requests
or answers.  Whatever happens, leaving the block ends every process by its own pid.
"""

import asyncio
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import trustme

ETCD = os.environ.get("FLIGHTMODE_TEST_ETCD") or shutil.which("etcd")
"""The program under test: set the variable to try another version of etcd."""

START_S = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def eventually(
    what: str, holds: Callable[[], Awaitable[Any]], within_s: float = START_S
) -> Any:
    """Poll `holds` until it is true, and return what it said."""
    try:
        async with asyncio.timeout(within_s):
            while not (found := await holds()):  # noqa: ASYNC110 - etcd has no event to wait for
                await asyncio.sleep(0.02)
            return found
    except TimeoutError:
        raise AssertionError(f"not within {within_s} s: {what}") from None


class EtcdCluster:
    """`size` members.  `tls=False` only for tools that can't do TLS."""

    def __init__(self, size: int, *, tls: bool = True, args: tuple[str, ...] = ()) -> None:
        self.size = size
        self.tls = tls
        self._args = args
        self._home = Path(tempfile.mkdtemp(prefix="etcd-test-"))
        self._client_ports = [free_port() for _ in range(size)]
        self._peer_ports = [free_port() for _ in range(size)]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._stopped: set[int] = set()
        self._links: list[Link] = []
        self.ca = trustme.CA()
        self._write_certificates()
        self._own_tls = self.client_tls()

    # ------------------------------------------------------------- addresses

    @property
    def _scheme(self) -> str:
        return "https" if self.tls else "http"

    def endpoint(self, i: int) -> str:
        return f"{self._scheme}://127.0.0.1:{self._client_ports[i]}"

    def endpoints(self, first: int = 0) -> tuple[str, ...]:
        """All client URLs, beginning with that of member `first`."""
        return tuple(self.endpoint((first + i) % self.size) for i in range(self.size))

    def peer_url(self, i: int) -> str:
        return f"{self._scheme}://127.0.0.1:{self._peer_ports[i]}"

    def client_tls(self) -> ssl.SSLContext | None:
        """A fresh context with a client certificate; None without TLS."""
        return self.tls_of(self.ca) if self.tls else None

    def tls_of(
        self, issuer: trustme.CA | None, *, trust: trustme.CA | None = None
    ) -> ssl.SSLContext:
        """Trusts `trust` (the cluster's CA), and shows a certificate of `issuer` (None: none)."""
        context = ssl.create_default_context()
        (trust or self.ca).configure_trust(context)
        if issuer is not None:
            issuer.issue_cert("client.test").configure_cert(context)
        return context

    def client_files(self) -> tuple[Path, Path, Path]:
        """CA, certificate and key (0600) of a client, for those who read files."""
        return self._home / "ca.pem", self._home / "cert.pem", self._home / "key.pem"

    def _write_certificates(self) -> None:
        ca, cert, key = self.client_files()
        leaf = self.ca.issue_cert("127.0.0.1", "localhost")
        self.ca.cert_pem.write_to_path(str(ca))
        key.touch(mode=0o600)
        leaf.private_key_pem.write_to_path(str(key))
        for blob in leaf.cert_chain_pems:
            blob.write_to_path(str(cert), append=True)

    # ------------------------------------------------------------- life

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Start all members and wait until each can write."""
        for i in range(self.size):
            self._spawn(i, "new", range(self.size))
        for i in range(self.size):
            await self.wait_healthy(i)

    def _spawn(self, i: int, state: str, members: range | list[int]) -> None:
        assert ETCD is not None, "etcd is not installed"
        ca, cert, key = self.client_files()
        peers = ",".join(f"m{j}={self.peer_url(j)}" for j in members)
        argv = [
            *("setpriv", "--pdeathsig", "KILL", ETCD),
            *("--name", f"m{i}", "--data-dir", str(self.data_dir(i))),
            *("--listen-client-urls", self.endpoint(i)),
            *("--advertise-client-urls", self.endpoint(i)),
            *("--listen-peer-urls", self.peer_url(i)),
            *("--initial-advertise-peer-urls", self.peer_url(i)),
            *("--initial-cluster", peers, "--initial-cluster-state", state),
            *("--pre-vote", "--heartbeat-interval", "100", "--election-timeout", "1000"),
            *("--logger", "zap", *self._args),
        ]
        if self.tls:
            for flags in (("", "--client-cert-auth"), ("peer-", "--peer-client-cert-auth")):
                argv += [f"--{flags[0]}cert-file", str(cert), f"--{flags[0]}key-file", str(key)]
                argv += [f"--{flags[0]}trusted-ca-file", str(ca), flags[1]]
        with (self._home / f"m{i}.log").open("ab") as log:
            self._processes[i] = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._home
            )

    def data_dir(self, i: int) -> Path:
        return self._home / f"m{i}"

    def log(self, i: int) -> str:
        """What the member has printed."""
        return (self._home / f"m{i}.log").read_text(errors="replace")

    async def close(self) -> None:
        """End everything.  May be repeated."""
        await self.close_links()
        for i in list(self._processes):
            self.kill(i)
        shutil.rmtree(self._home, ignore_errors=True)

    # ------------------------------------------------------------- faults

    def kill(self, i: int) -> None:
        """kill -9, and wait for its end.  Also ends a stopped one.  May be repeated."""
        self._stopped.discard(i)
        process = self._processes.pop(i, None)
        if process is not None:
            process.kill()
            process.wait()

    def stop(self, i: int) -> None:
        """Freeze (SIGSTOP), and wait until all of its threads stand still.  May be repeated.

        The kernel goes on accepting connections for it.
        """
        if i not in self._stopped:
            pid = self._processes[i].pid
            os.kill(pid, signal.SIGSTOP)
            os.waitpid(pid, os.WUNTRACED)
            self._stopped.add(i)

    def cont(self, i: int) -> None:
        """Thaw.  May be repeated."""
        os.kill(self._processes[i].pid, signal.SIGCONT)
        self._stopped.discard(i)

    def running(self, i: int) -> bool:
        return i in self._processes

    async def restart(self, i: int) -> None:
        """Start a killed member on its data again, and wait until it can write."""
        self.kill(i)
        self._spawn(i, "existing", range(self.size))
        await self.wait_healthy(i)

    async def wipe(self, i: int) -> None:
        """Lose the member's data directory, and bring it back as a new member."""
        self.kill(i)
        shutil.rmtree(self.data_dir(i))
        other = next(j for j in self._processes if j != i)
        await self._until_done(other, "cluster/member/remove", {"ID": (await self.member_ids())[i]})
        await self._until_done(other, "cluster/member/add", {"peerURLs": [self.peer_url(i)]})
        self._spawn(i, "existing", range(self.size))
        await self.wait_healthy(i)

    async def _until_done(self, i: int, path: str, body: dict[str, Any]) -> None:
        """A change of membership is refused while etcd does not feel healthy enough."""

        async def done() -> bool:
            return await self.call(i, path, body) is not None

        await eventually(path, done)

    async def link(self, i: int) -> "Link":
        """A forwarder in front of member `i`'s client port; see `close_links`."""
        link = Link(self._client_ports[i], self._scheme)
        self._links.append(link)
        return await link.start()

    async def close_links(self) -> None:
        """A link lives in the event loop that it was started in, so it is closed there."""
        for link in self._links:
            await link.close()
        self._links.clear()

    async def repair(self) -> None:
        """Undo every fault: all members run, none is frozen, no link is left."""
        await self.close_links()
        for i in range(self.size):
            if i in self._processes:
                self.cont(i)
            else:
                self._spawn(i, "existing", range(self.size))
        for i in range(self.size):
            await self.wait_healthy(i)

    # ------------------------------------------------------------- etcd's view

    async def call(
        self, i: int, path: str, body: dict[str, Any], timeout_s: float = 2.0
    ) -> dict[str, Any] | None:
        """An RPC of member `i` by the fixture's own means; None if it fails in any way."""
        url, timeout = f"{self.endpoint(i)}/v3/{path}", aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as http,
                http.post(url, json=body, ssl=self._own_tls or True) as response,
            ):
                answer: dict[str, Any] = await response.json(content_type=None)
                return answer if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return None

    async def wait_healthy(self, i: int) -> None:
        """Until member `i` answers a linearizable read."""

        async def answers() -> bool:
            process = self._processes[i]
            assert process.poll() is None, f"member {i} has ended:\n{self.log(i)[-2000:]}"
            return await self.call(i, "kv/range", {"key": "AA=="}) is not None

        await eventually(f"member {i} is healthy", answers)

    async def member_ids(self) -> dict[int, str]:
        """etcd's id of each member that has ever started."""
        for i in self._processes:
            answer = await self.call(i, "cluster/member/list", {})
            if answer is not None:
                rows = {row.get("name"): row["ID"] for row in answer["members"]}
                return {j: rows[f"m{j}"] for j in range(self.size) if f"m{j}" in rows}
        raise AssertionError("no member answers")

    async def leader(self) -> int:
        """The member that most recently was known to lead."""

        async def known() -> tuple[int] | None:
            ids = await self.member_ids()
            found: tuple[int, str] = (0, "")
            for i in list(self._processes):
                status = await self.call(i, "maintenance/status", {}, timeout_s=0.5)
                if status is not None:
                    found = max(found, (int(status["raftTerm"]), status.get("leader", "0")))
            return next(((j,) for j, member_id in ids.items() if member_id == found[1]), None)

        (leader,) = await eventually("there is a leader", known)
        return int(leader)

    async def move_leader(self, i: int) -> None:
        """Make member `i` the leader."""
        target = (await self.member_ids())[i]

        async def moved() -> bool:
            leader = await self.leader()
            if leader != i:
                await self.call(leader, "maintenance/transfer-leadership", {"targetID": target})
            return leader == i

        await eventually(f"member {i} leads", moved)

    async def compact(self, revision: int) -> None:
        """Forget what was before `revision`."""
        i = next(iter(self._processes))
        body = {"revision": str(revision), "physical": True}
        assert await self.call(i, "kv/compaction", body) is not None


class Link:
    """A TCP forwarder in front of one port, which can hold either direction for ever.

    While `requests` or `answers` is cleared, bytes of that direction wait here, and so does
    the news that a side has closed: to each end the other one looks merely silent.
    """

    def __init__(self, upstream_port: int, scheme: str) -> None:
        self._upstream_port = upstream_port
        self._scheme = scheme
        self.requests = asyncio.Event()
        self.answers = asyncio.Event()
        self.requests.set()
        self.answers.set()
        self._server: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[None]] = set()
        self.port = 0
        self.requested_bytes = 0
        self.connections = 0

    async def start(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    async def refuse(self) -> None:
        """Accept no new connection from now on; `start` accepts again, on the same port."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def cut(self) -> None:
        """Break all present connections."""
        for pipe in self._pipes:
            pipe.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        except OSError:
            writer.transport.abort()
            return
        self._spawn(self._pipe(reader, far_writer, self.requests))
        self._spawn(self._pipe(far_reader, writer, self.answers))

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._pipes.add(task)
        task.add_done_callback(self._pipes.discard)

    async def _pipe(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, open_: asyncio.Event
    ) -> None:
        try:
            with suppress(OSError):  # That a side is gone is news too, and has to wait as well.
                while data := await source.read(65536):
                    await open_.wait()
                    self.requested_bytes += len(data) if open_ is self.requests else 0
                    sink.write(data)
                    await sink.drain()
            await self.requests.wait()
            await self.answers.wait()
        finally:
            sink.transport.abort()

    async def close(self) -> None:
        await self.refuse()
        pipes = tuple(self._pipes)
        self.cut()
        await asyncio.gather(*pipes, return_exceptions=True)
