"""What stands behind the fence and around it: cgroup, nftables, watchdog, heartbeats, clocks.

Here it guards plain programs; what they do is not what these tests are about.
"""

import asyncio
import hashlib
import hmac
import json
import os
import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from flightmode.errors import FenceRefused, FenceUnreachable
from flightmode.fence.client import FenceClient
from flightmode.fence.port import StartRequest
from flightmode.model.server import Role
from tests.integration.fence_process import FenceProcess, boottime_s, eventually, proc

SLEEP = ("/bin/sleep", "600")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

pytestmark = pytest.mark.integration


async def start(fence: FenceProcess, *argv: str, deadline_s: float | None = None) -> psutil.Process:
    if deadline_s is None:
        await fence.client.lift(1)
    request = StartRequest(fence.program(*(argv or SLEEP)), Role.PRIMARY, 1, deadline_s)
    return psutil.Process(await fence.client.start(request))


async def until_empty(fence: FenceProcess, within_s: float = 5.0) -> float:
    async def empty() -> bool:
        return (await fence.client.status()).tree_empty

    await eventually("nothing is left", empty, within_s)
    return boottime_s()


def entries(directory: Path, pattern: str) -> list[Path]:
    return list(directory.glob(pattern))


# ---------------------------------------------------------------- cgroup


def cgroup2() -> Path | None:
    """Where cgroup v2 is mounted and can be written."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2" and os.access(where, os.W_OK):
            return Path(where)
    return None


@pytest.fixture
def cgroup() -> Iterator[Path]:
    mount = cgroup2()
    if os.geteuid() != 0 or mount is None:
        pytest.skip("needs root and a writable cgroup2")
    path = mount / f"fence-test-{uuid.uuid4().hex[:8]}"
    yield path
    if path.exists():
        (path / "cgroup.kill").write_text("1")
        path.rmdir()


async def test_postgres_lives_in_a_cgroup_of_its_own(cgroup: Path) -> None:
    async with FenceProcess("--cgroup", str(cgroup)) as fence:
        program = await start(fence, "/bin/sh", "-c", "sleep 600 & exec sleep 601")

        async def both() -> bool:
            return len((cgroup / "cgroup.procs").read_text().split()) == 2

        await eventually("the child is there too", both)
        assert (await fence.client.report()).cgroup
        assert str(fence.pid) not in (cgroup / "cgroup.procs").read_text().split()
        await fence.client.kill()
        await until_empty(fence)
        assert not program.is_running()
        fence.signal(signal.SIGTERM)
        assert await asyncio.to_thread(fence.wait) == 0
        assert entries(cgroup.parent, cgroup.name) == []


async def test_a_new_fence_kills_what_an_old_one_left_in_the_cgroup(cgroup: Path) -> None:
    async with FenceProcess("--cgroup", str(cgroup)) as fence:
        # Its child has no parent-death signal: it stays when the fence is killed.
        await start(fence, "/bin/sh", "-c", "sleep 600 & exec sleep 601")

        async def inside() -> list[str]:
            return (cgroup / "cgroup.procs").read_text().split()

        async def both() -> bool:
            return len(await inside()) == 2

        await eventually("both are there", both)
        fence.signal(signal.SIGKILL)
        fence.wait()

        async def orphan() -> bool:
            return len(await inside()) == 1

        await eventually("the child is left alone", orphan)
        await fence.start()
        await until_empty(fence)
        assert await inside() == []
        await start(fence)


async def test_a_directory_that_is_no_cgroup_is_told_and_left_alone(tmp_path: Path) -> None:
    async with FenceProcess("--cgroup", str(tmp_path / "postgres")) as fence:
        report = await fence.client.report()
        assert not report.cgroup
        assert any(words.startswith("cgroup: ") for words in report.missing)
        assert entries(tmp_path, "*") == []


# ---------------------------------------------------------------- nftables


def nft(*words: str) -> str:
    argv = ["nft", *words]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def table() -> Iterator[str]:
    if os.geteuid() != 0 or shutil.which("nft") is None:
        pytest.skip("needs root and nftables")
    name = f"fence-{uuid.uuid4().hex[:8]}"
    try:
        nft("add", "table", "inet", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"nftables does not work here: {error.stderr}")
    yield name
    subprocess.run(["nft", "delete", "table", "inet", name], check=False, capture_output=True)


@pytest.fixture
def freezer() -> Iterator[Path]:
    """A cgroup (version 1) whose frozen members do not even die of SIGKILL, like one whose disk
    has stalled."""
    home = Path("/sys/fs/cgroup/freezer")
    if not (home / "tasks").exists() or not os.access(home, os.W_OK):
        pytest.skip("there is no freezer of cgroup version 1 here")
    path = home / f"fence-test-{uuid.uuid4().hex[:8]}"
    path.mkdir()
    yield path
    (path / "freezer.state").write_text("THAWED")
    path.rmdir()


async def connects(port: int) -> bool:
    try:
        async with asyncio.timeout(0.2):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
    except (TimeoutError, OSError):
        return False
    writer.close()
    return True


async def test_the_port_of_what_outlives_sigkill_is_cut_until_it_is_gone(
    table: str, freezer: Path
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        port = int(listener.getsockname()[1])
        async with FenceProcess("--nft-table", table, "--nft-port", str(port)) as fence:
            assert (await fence.client.status()).level == "fence+nft"
            assert "dormant" in nft("list", "table", "inet", table)
            deadline_s = boottime_s() + 0.5
            program = await start(fence, deadline_s=deadline_s)
            assert await connects(port)
            (freezer / "tasks").write_text(str(program.pid))
            (freezer / "freezer.state").write_text("FROZEN")

            async def cut() -> bool:
                return (await fence.client.report()).port_cut

            await eventually("the port is cut", cut)
            assert deadline_s + 2.0 < boottime_s() < deadline_s + 3.2
            assert not await connects(port)
            assert not (await fence.client.status()).tree_empty

            (freezer / "freezer.state").write_text("THAWED")
            await until_empty(fence)
            assert await connects(port)
            assert not (await fence.client.report()).port_cut
            fence.signal(signal.SIGTERM)
            assert await asyncio.to_thread(fence.wait) == 0
    assert table not in nft("list", "tables")


# ---------------------------------------------------------------- the watchdog


class PretendedDog:
    """A pipe in the place of the device: what the fence writes can be read."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def said(self) -> bytes:
        try:
            return os.read(self._fd, 4096)
        except BlockingIOError:
            return b""

    async def until_petted(self) -> None:
        self.said()

        async def petted() -> bool:
            return b"\0" in self.said()

        await eventually("the watchdog is petted", petted)

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def dog(tmp_path: Path) -> Iterator[PretendedDog]:
    dog = PretendedDog(tmp_path / "watchdog")
    yield dog
    dog.close()


async def test_the_watchdog_is_petted_except_while_something_lives_that_should_not(
    dog: PretendedDog, tmp_path: Path
) -> None:
    async with FenceProcess("--watchdog", str(tmp_path / "watchdog")) as fence:
        await dog.until_petted()
        # A pipe is no watchdog, and the fence does not pretend that it is.
        assert (await fence.client.status()).level == "fence"
        deadline_s = boottime_s() + 1.0
        program = await start(fence, deadline_s=deadline_s)
        await dog.until_petted()
        program.suspend()

        async def ended() -> bool:
            return (await fence.client.status()).expired

        await eventually("the permission has ended", ended)
        dog.said()

        async def almost_killed() -> bool:
            assert dog.said() == b""
            return boottime_s() > deadline_s + 1.9

        await eventually("nobody pets until it is killed", almost_killed)
        assert program.is_running()
        await until_empty(fence)
        await dog.until_petted()
        fence.signal(signal.SIGTERM)
        assert await asyncio.to_thread(fence.wait) == 0
        assert dog.said().endswith(b"V")


async def test_a_fence_that_is_killed_leaves_the_watchdog_armed(
    dog: PretendedDog, tmp_path: Path
) -> None:
    async with FenceProcess("--watchdog", str(tmp_path / "watchdog")) as fence:
        await dog.until_petted()
        fence.signal(signal.SIGKILL)
        fence.wait()
        assert b"V" not in dog.said()


# ---------------------------------------------------------------- heartbeats

KEY = b"a key that is long enough"


@pytest.fixture
async def receiver() -> AsyncIterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        yield receiver


async def heard(receiver: socket.socket) -> dict[str, object]:
    """The next heartbeat, its signature verified."""
    async with asyncio.timeout(5):
        datagram = await asyncio.get_running_loop().sock_recv(receiver, 2048)
    body, tag = datagram.split(b"\n")
    assert hmac.new(KEY, body, hashlib.sha256).hexdigest() == tag.decode()
    said: dict[str, object] = json.loads(body)
    return said


async def test_heartbeats_say_the_term_and_whether_postgres_lives(
    receiver: socket.socket, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.touch(0o600)
    key.write_bytes(KEY)
    # One of the receivers does not exist; nobody waits for it.
    to = (f"127.0.0.1:{receiver.getsockname()[1]}", "127.0.0.1:9")
    async with FenceProcess("--heartbeat-key", str(key)) as fence:
        await fence.client.send_heartbeats(to)
        first = await heard(receiver)
        assert (first["node"], first["term"], first["postgres_alive"]) == ("ams", 0, False)
        second = await heard(receiver)
        assert second["sequence"] == int(str(first["sequence"])) + 1
        assert second["started_s"] == first["started_s"]
        program = await start(fence)

        async def alive() -> bool:
            said = await heard(receiver)
            return said["term"] == 1 and said["postgres_alive"] is True

        await eventually("Postgres is said to live", alive)
        program.kill()

        async def dead() -> bool:
            return (await heard(receiver))["postgres_alive"] is False

        await eventually("Postgres is said to be dead", dead)
        assert (await fence.client.report()).heartbeats_to == to
        assert KEY.decode() not in fence.words()


async def test_heartbeats_need_a_key_and_numbers(tmp_path: Path) -> None:
    async with FenceProcess() as fence:
        with pytest.raises(FenceRefused) as refused:
            await fence.client.send_heartbeats(("127.0.0.1:9",))
        assert refused.value.reason == "no_key"
        with pytest.raises(FenceRefused) as refused:
            await fence.client.send_heartbeats(("localhost:9",))
        assert refused.value.reason == "bad_request"


async def test_a_key_that_others_can_read_stops_the_fence(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(KEY)
    key.chmod(0o644)
    with pytest.raises(AssertionError, match="others than its owner can read it"):
        async with FenceProcess("--heartbeat-key", str(key)):
            pass


# ---------------------------------------------------------------- clocks


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    built = tmp_path_factory.mktemp("shim") / "clock.so"
    source = Path(__file__).with_name("clock_shim.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(built), str(source)], check=True)
    return built


async def test_when_the_clocks_move_apart_an_armed_primary_ends_at_once(
    shim: Path, tmp_path: Path
) -> None:
    clock = tmp_path / "clock"
    environment = {"LD_PRELOAD": str(shim), "FENCE_CLOCK": str(clock)}
    async with FenceProcess(environment=environment) as fence:
        program = await start(fence, deadline_s=boottime_s() + 600)
        clock.write_text("2")
        await until_empty(fence, within_s=1.0)
        assert not program.is_running()
        assert (await fence.client.report()).ended_by == "clock jump"


async def test_when_the_clocks_move_apart_a_lifted_primary_goes_on(
    shim: Path, tmp_path: Path
) -> None:
    clock = tmp_path / "clock"
    environment = {"LD_PRELOAD": str(shim), "FENCE_CLOCK": str(clock)}
    async with FenceProcess(environment=environment) as fence:
        program = await start(fence)
        clock.write_text("-3600")
        before = (await fence.client.report()).view

        async def seen_ten_times() -> bool:
            # Ten looks of the fence: each status is one.
            return [await fence.client.status() for _ in range(10)][-1] == before

        await eventually("nothing changes", seen_ten_times)
        assert program.is_running()
        # What was granted before does not count against what is granted now.
        await fence.client.extend(1, boottime_s() + 600)
        assert not (await fence.client.status()).expired


# ---------------------------------------------------------------- callers


async def test_what_a_caller_has_given_up_is_not_carried_out(tmp_path: Path) -> None:
    async with FenceProcess() as fence:
        await fence.client.extend(3, boottime_s() + 600)
        fence.signal(signal.SIGSTOP)
        hasty = FenceClient(fence.socket, timeout_s=0.1)
        with pytest.raises(FenceUnreachable, match=r"no answer .* in 0\.1 s"):
            await hasty.lift(4)
        fence.signal(signal.SIGCONT)
        view = await fence.client.status()
        assert (view.term, view.lifted) == (3, False)


async def test_a_listener_that_does_not_read_is_dropped_and_holds_up_nobody() -> None:
    async with FenceProcess() as fence:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as lazy:
            lazy.connect(str(fence.socket))
            lazy.send(b'{"id": 1, "cmd": "subscribe"}')

            async def dropped() -> bool:
                for _ in range(100):
                    await fence.client.lift(1)
                    await fence.client.void()
                return (await fence.client.report()).subscribers == 0

            await eventually("the lazy one is dropped", dropped, within_s=20)


async def test_many_calls_leave_no_descriptor_behind() -> None:
    async with FenceProcess() as fence:
        process = psutil.Process(fence.pid)
        await fence.client.status()
        before = process.num_fds()
        for _ in range(300):
            await fence.client.status()
        await asyncio.gather(*(fence.client.status() for _ in range(20)))
        for _ in range(3):
            await start(fence)
            await fence.client.kill()
            await until_empty(fence)

        async def same() -> bool:
            return process.num_fds() <= before

        await eventually("no more descriptors than before", same)


async def test_nonsense_is_answered(tmp_path: Path) -> None:
    async with FenceProcess() as fence:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
            door.connect(str(fence.socket))
            door.settimeout(5)
            for packet in (b"nonsense", b"[]", b'{"id": 1}', b"\0" * 65536 + b"x"):
                door.send(packet)
                reply = json.loads(await asyncio.to_thread(door.recv, 65536))
                assert reply["error"]["code"] == "bad_request"
        assert (await fence.client.status()).reachable


@needs_root
async def test_the_fence_says_how_well_it_is_protected() -> None:
    async with FenceProcess() as fence:
        report = await fence.client.report()
        assert report.oom_protected == (proc(fence.pid, "oom_score_adj").strip() == "-1000")
        locked = proc(fence.pid, "status").split("VmLck:")[1].split()[0]
        assert report.mlocked == (int(locked) > 0)
        assert report.fence_pid == fence.pid
