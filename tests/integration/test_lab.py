"""Both labs, on real processes; the one of namespaces also on real packets."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from flightmode.demo.cgroup import Cgroups
from flightmode.demo.killing import alive
from flightmode.demo.lab import Lab
from flightmode.demo.loopback import LoopbackLab
from flightmode.demo.namespaces import NamespaceLab, namespaces_of
from flightmode.demo.record import Record, records
from flightmode.demo.sweep import TEAR_DOWN, dead_runs, sweep
from flightmode.errors import RehearsalFailed

pytestmark = pytest.mark.integration

MISSING = NamespaceLab.missing()
needs_root = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
labs = pytest.mark.parametrize(
    "make",
    [
        pytest.param(NamespaceLab, marks=[pytest.mark.hosts, needs_root]),
        LoopbackLab,
    ],
)

ECHO = """
import socket, sys
me = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
me.bind((sys.argv[1], 7000))
print("ready", flush=True)
while True:
    what, whom = me.recvfrom(100)
    me.sendto(what, whom)
"""
ASK = """
import socket, sys
me = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
me.settimeout(0.3)
me.sendto(b"are you there?", (sys.argv[1], 7000))
me.recv(100)
"""


async def until(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, "the condition did not become true"
        await asyncio.sleep(0.01)


async def echo_on(lab: Lab, host: str) -> asyncio.subprocess.Process:
    log = lab.scratch / f"{host}.log"
    address = lab.hosts[host].address
    process = await lab.spawn(host, [sys.executable, "-c", ECHO, address], log=log)
    await until(lambda: "ready" in log.read_text())
    return process


async def hears(lab: Lab, one: str, other: str) -> bool:
    """Whether a packet of `one` reaches `other` and its answer comes back."""
    argv = [*lab.prefix(one), sys.executable, "-c", ASK, lab.hosts[other].address]
    process = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.DEVNULL)
    return await process.wait() == 0


async def asked_from_here(lab: Lab, host: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as me:
        me.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendto(me, b"are you there?", (lab.hosts[host].address, 7000))
        try:
            await asyncio.wait_for(loop.sock_recv(me, 100), 1.0)
        except TimeoutError:
            return False
        return True


@labs
async def test_a_program_on_a_host_is_reached_from_this_machine(make: type[LoopbackLab]) -> None:
    async with make(["ams", "fra"]) as lab:
        await echo_on(lab, "fra")
        assert await asked_from_here(lab, "fra")


@labs
async def test_power_loss_kills_a_host_with_all_its_descendants_and_no_other(
    make: type[LoopbackLab],
) -> None:
    async with make(["ams", "fra"]) as lab:
        pids = lab.scratch / "pids"
        # A child that leaves its session and is orphaned, as a daemon does.
        script = f"(setsid sleep 600 & echo $! >>{pids}); echo $$ >>{pids}; exec sleep 600"
        dies = await lab.spawn("ams", ["sh", "-c", script], log=lab.scratch / "ams.log")
        lives = await echo_on(lab, "fra")
        await until(lambda: pids.exists() and len(pids.read_text().split()) == 2)

        await lab.power_loss("ams")

        assert not any(alive(int(pid)) for pid in pids.read_text().split())
        assert await dies.wait() == -signal.SIGKILL
        assert lives.returncode is None
        await lab.power_on("ams")
        await echo_on(lab, "ams")
        assert await asked_from_here(lab, "ams")


@labs
async def test_a_stopped_process_does_not_survive_power_loss(make: type[LoopbackLab]) -> None:
    async with make(["ams"]) as lab:
        process = await echo_on(lab, "ams")
        process.send_signal(signal.SIGSTOP)
        await lab.power_loss("ams")
        assert await process.wait() == -signal.SIGKILL


@labs
async def test_nothing_is_left_when_the_lab_is_closed_by_an_error(make: type[LoopbackLab]) -> None:
    with contextlib.suppress(ZeroDivisionError):
        async with make(["ams", "fra"]) as lab:
            process = await echo_on(lab, "ams")
            scratch, run_id = lab.scratch, lab.scratch.name.split("-")[1]
            _ = 1 / 0
    assert await process.wait() == -signal.SIGKILL
    assert not scratch.exists()
    assert namespaces_of(run_id) == []
    assert run_id not in [record.run_id for record in records()]
    cgroup = Cgroups(run_id, ()).root
    assert cgroup is None or not cgroup.exists()


@labs
async def test_two_labs_live_side_by_side(make: type[LoopbackLab]) -> None:
    async with make(["ams"]) as one, make(["ams"]) as other:
        await echo_on(one, "ams")
        assert one.hosts["ams"].address != other.hosts["ams"].address
        assert not await asked_from_here(other, "ams")
        assert await asked_from_here(one, "ams")


@pytest.mark.hosts
@needs_root
class TestCables:
    async def test_a_cut_host_hears_nobody_and_a_healed_one_everybody(self) -> None:
        async with NamespaceLab(["ams", "fra", "wit"]) as lab:
            for host in lab.hosts:
                await echo_on(lab, host)
            assert await hears(lab, "ams", "fra")

            await lab.cut("ams")
            assert not await hears(lab, "ams", "fra")
            assert not await hears(lab, "wit", "ams")
            assert not await asked_from_here(lab, "ams")
            assert await hears(lab, "fra", "wit")
            assert await hears(lab, "ams", "ams")

            await lab.heal("ams")
            assert await hears(lab, "ams", "fra")
            assert await hears(lab, "wit", "ams")

    async def test_a_cut_between_two_hosts_leaves_their_other_cables_whole(self) -> None:
        async with NamespaceLab(["ams", "fra", "wit"]) as lab:
            for host in lab.hosts:
                await echo_on(lab, host)
            for _ in range(2):
                await lab.cut_between("ams", "fra")
            assert not await hears(lab, "ams", "fra")
            assert not await hears(lab, "fra", "ams")
            assert await hears(lab, "ams", "wit")
            assert await hears(lab, "wit", "fra")

            for _ in range(2):
                await lab.heal_between("fra", "ams")
            assert await hears(lab, "ams", "fra")

    async def test_a_peer_of_a_host_without_power_is_told_nothing(self) -> None:
        async with NamespaceLab(["ams", "fra"]) as lab:
            script = (
                "import socket, sys\n"
                "s = socket.create_server((sys.argv[1], 7001))\n"
                "print('ready', flush=True)\n"
                "s.accept()[0].recv(1)\n"
            )
            log = lab.scratch / "server.log"
            argv = [sys.executable, "-c", script, lab.hosts["ams"].address]
            await lab.spawn("ams", argv, log=log)
            await until(lambda: "ready" in log.read_text())
            with socket.create_connection((lab.hosts["ams"].address, 7001), 5.0) as me:
                me.setblocking(False)
                await lab.power_loss("ams")
                # A process that dies with its cable plugged in sends a FIN: this read would end.
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(asyncio.get_running_loop().sock_recv(me, 1), 0.5)


def test_a_lab_on_loopback_says_that_it_has_no_cables() -> None:
    async def try_all(lab: LoopbackLab) -> None:
        verbs: list[Awaitable[None]] = [lab.cut("ams"), lab.cut_between("ams", "fra")]
        for verb in verbs:
            with pytest.raises(RehearsalFailed, match="no cables"):
                await verb

    async def main() -> None:
        async with LoopbackLab(["ams", "fra"]) as lab:
            await try_all(lab)

    asyncio.run(main())


ABANDONED = """
import asyncio, os, signal, sys
from pathlib import Path
from flightmode.demo.{module} import {kind}

async def main():
    async with {kind}(["ams"]) as lab:
        if sys.argv[1] == "kept":
            lab.keep()
        sleeper = await lab.spawn("ams", ["sleep", "600"], log=lab.scratch / "log")
        print(lab.scratch, sleeper.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def abandon(make: type[LoopbackLab], how: str) -> tuple[Path, int]:
    """Let another process open a lab and die of SIGKILL in it."""
    script = ABANDONED.format(module=make.__module__.rsplit(".", 1)[1], kind=make.__name__)
    argv = [sys.executable, "-c", script, how]
    # stdin and stderr are not shared with the sleeper, which outlives its parent.
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        scratch, pid = child.stdout.readline().split()
    return Path(scratch), int(pid)


@labs
def test_a_sweep_removes_what_a_killed_run_left(make: type[LoopbackLab]) -> None:
    scratch, pid = abandon(make, "left")
    assert alive(pid)
    assert scratch.exists()

    swept = sweep()

    assert scratch in [record.scratch for record in swept]
    assert not alive(pid)
    assert not scratch.exists()
    assert namespaces_of(scratch.name.split("-")[1]) == []


@labs
def test_a_sweep_leaves_a_kept_run_until_it_is_asked_for(make: type[LoopbackLab]) -> None:
    scratch, pid = abandon(make, "kept")
    assert scratch not in [record.scratch for record in sweep()]
    assert alive(pid)
    (mine,) = [record for record in dead_runs(kept_too=True) if record.scratch == scratch]
    TEAR_DOWN[mine.kind](mine)
    assert not alive(pid)
    assert mine not in records()


@labs
async def test_a_sweep_leaves_a_living_run_alone(make: type[LoopbackLab]) -> None:
    async with make(["ams"]) as lab:
        process = await echo_on(lab, "ams")
        assert lab.scratch not in [record.scratch for record in sweep()]
        assert process.returncode is None


def test_a_sweep_leaves_what_it_does_not_know_how_to_remove() -> None:
    theirs = Record.claim("of another program")
    try:
        theirs.owner = (os.getpid(), theirs.owner[1] - 1)
        theirs.save()
        assert theirs.dead
        assert theirs not in sweep(kept_too=True)
        assert theirs in records()
    finally:
        theirs.erase()


def test_a_run_whose_pid_went_to_somebody_else_is_dead() -> None:
    mine = Record.claim("loopback")
    try:
        assert not mine.dead
        mine.owner = (os.getpid(), mine.owner[1] - 1)
        assert mine.dead
    finally:
        mine.erase()
