"""Failures on purpose, each followed until the cluster is whole again by itself."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from flightmode.agent.clock import Clock
from flightmode.demo.asking import ask_for_switchover, until_well
from flightmode.demo.cluster import NODES, WITNESS, DemoCluster, Picture
from flightmode.demo.killing import alive
from flightmode.demo.ledger import Attempt, Outcome, write_gap
from flightmode.demo.proxied import Application, Seen, seen
from flightmode.errors import RehearsalFailed
from flightmode.model.server import Run

_WRITES_AGAIN_S = 60.0
_BACK_S = 90.0
_FENCED_S = 20.0


@dataclass(frozen=True, slots=True)
class Result:
    """What a rehearsal showed.  Times in seconds."""

    title: str
    before: str
    after: str
    gap_s: float
    """The longest time in which no client of all got a commit acknowledged."""
    back_s: float
    """From the fault, or the healing of it, until the old primary was a promotable standby."""
    acknowledged: int
    unknown: int
    rejected: int
    note: str = ""
    errors: Seen | None = None
    """What clients behind the proxy saw; None without a proxy."""


class Writers(Protocol):
    """Clients that write: `Workload` on the nodes themselves, `Application` behind the proxy."""

    @property
    def history(self) -> list[Attempt]: ...


@dataclass(frozen=True, slots=True)
class Stage:
    """What a rehearsal plays on."""

    cluster: DemoCluster
    workload: Writers
    clock: Clock
    say: Callable[[str], None]


Fault = Callable[[Stage, str], Awaitable[str]]
"""Does the damage to the named primary; returns a remark for the table."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A fault, and what is done to end it once the cluster has got over it."""

    title: str
    fault: Fault
    heal: Fault | None = None
    fails_over: bool = True
    """Another node has to lead afterwards; else the same one in the same term."""
    lasts_s: float = 0.0
    """So long the fault lasts before it is healed."""


async def rehearse(rehearsal: Rehearsal, stage: Stage) -> Result:
    """One failure from a whole cluster to a whole cluster.  Raises RehearsalFailed."""
    cluster, clock = stage.cluster, stage.clock
    start = await cluster.until(lambda p: p.whole, "the cluster to be whole")
    await _acknowledged_after(stage, clock.now_s())
    before, term = start.state.leader, start.state.term
    stage.say(f"{rehearsal.title}: {before} is the primary of term {term}")
    fault_s = clock.now_s()
    notes = [await rehearsal.fault(stage, before)]
    if rehearsal.fails_over:
        serving = await cluster.until(
            lambda p: p.state.term > term and _serves(p), "another primary", _WRITES_AGAIN_S
        )
        stage.say(f"{serving.state.leader} leads term {serving.state.term}: {serving.state.reason}")
    await asyncio.sleep(max(0.0, fault_s + rehearsal.lasts_s - clock.now_s()))
    await _acknowledged_after(stage, clock.now_s())
    healed_s = fault_s
    if rehearsal.heal is not None:
        notes.append(await rehearsal.heal(stage, before))
        healed_s = clock.now_s()
    whole = await cluster.until(lambda p: p.whole, "the cluster to be whole again", _BACK_S)
    if not rehearsal.fails_over and (whole.state.leader, whole.state.term) != (before, term):
        raise RehearsalFailed(f"{rehearsal.title}: {whole.state.reason}, and nobody had to")
    ended_s = clock.now_s()
    stage.say(f"there is a promotable standby again after {ended_s - healed_s:.1f} s")
    window = [a for a in stage.workload.history if a.ended_s >= fault_s]
    gap = write_gap(stage.workload.history, fault_s=fault_s, until_s=ended_s)
    note = "; ".join(note for note in notes if note)
    return Result(
        rehearsal.title,
        before,
        whole.state.leader,
        gap.length_s,
        ended_s - healed_s,
        _count(window, Outcome.ACKNOWLEDGED),
        _count(window, Outcome.UNKNOWN),
        _count(window, Outcome.REJECTED),
        note,
        _errors(stage.workload, fault_s),
    )


def _errors(writers: Writers, since_s: float) -> Seen | None:
    if not isinstance(writers, Application):
        return None
    return seen([fault for fault in writers.faults if fault.at_s >= since_s])


def _serves(picture: Picture) -> bool:
    leader = picture.members.get(picture.state.leader)
    return leader is not None and leader.run is Run.PRIMARY and leader.term == picture.state.term


def _count(window: list[Attempt], outcome: Outcome) -> int:
    return sum(attempt.outcome is outcome for attempt in window)


async def _acknowledged_after(stage: Stage, moment_s: float) -> None:
    """Wait until a commit that ended after the moment was acknowledged."""
    until_s = stage.clock.now_s() + _WRITES_AGAIN_S
    while stage.clock.now_s() < until_s:
        newest = reversed(stage.workload.history[-200:])
        if any(a.outcome is Outcome.ACKNOWLEDGED and a.ended_s > moment_s for a in newest):
            return
        await asyncio.sleep(0.02)
    raise RehearsalFailed(f"no commit was acknowledged for {_WRITES_AGAIN_S:.0f} s")


# ------------------------------------------------------------------ the faults


async def switchover(stage: Stage, primary: str) -> str:
    """Planned: the standby takes over, nobody loses more than a moment."""
    target = next(name for name in stage.cluster.policy.databases if name != primary)
    await ask_for_switchover(stage.cluster, target)
    return ""


async def kill_postmaster(stage: Stage, primary: str) -> str:
    """`kill -9` of the postmaster."""
    os.kill(stage.cluster.postmaster(primary), signal.SIGKILL)
    return ""


async def power_loss(stage: Stage, primary: str) -> str:
    """Everything of the host is gone in the same instant."""
    await stage.cluster.lab.power_loss(primary)
    return ""


async def power_on(stage: Stage, primary: str) -> str:
    """The host boots again."""
    await stage.cluster.power_on(primary)
    return ""


async def cut(stage: Stage, primary: str) -> str:
    """The primary's host is cut off from everybody, and goes on running."""
    await stage.cluster.lab.cut(primary)
    return ""


async def heal(stage: Stage, primary: str) -> str:
    """Only once the fence has stopped the old primary, which nobody could reach to tell it."""
    pid = stage.cluster.postmaster_or_none(primary)
    until_s = stage.clock.now_s() + _FENCED_S
    while pid is not None and alive(pid):
        if stage.clock.now_s() > until_s:
            raise RehearsalFailed(f"the cut off primary {primary} was not fenced")
        await asyncio.sleep(0.02)
    stage.say(f"{primary} was stopped by its own fence; joining the network again")
    await stage.cluster.lab.heal(primary)
    return "fenced itself"


async def hang(stage: Stage, primary: str) -> str:
    """SIGSTOP for the postmaster: sessions that stand go on, nobody new gets in."""
    os.kill(stage.cluster.postmaster(primary), signal.SIGSTOP)
    return ""


async def lose_standby(stage: Stage, primary: str) -> str:
    """The host of the standby loses its power."""
    await stage.cluster.lab.power_loss(_standby_of(stage, primary))
    return ""


async def standby_on(stage: Stage, primary: str) -> str:
    """It boots again."""
    await stage.cluster.power_on(_standby_of(stage, primary))
    return ""


def _standby_of(stage: Stage, primary: str) -> str:
    return next(name for name in stage.cluster.policy.databases if name != primary)


async def lose_witness(stage: Stage, primary: str) -> str:
    """The witness loses its power."""
    await stage.cluster.lab.power_loss(WITNESS)
    return ""


async def witness_on(stage: Stage, primary: str) -> str:
    """It boots again."""
    await stage.cluster.power_on(WITNESS)
    return ""


async def lose_etcd(stage: Stage, primary: str) -> str:
    """`kill -9` of every member of etcd."""
    for name in NODES:
        process = stage.cluster.process(name, "etcd")
        process.kill()
        await process.wait()
    return ""


async def etcd_on(stage: Stage, primary: str) -> str:
    """They are started again, with the data they have."""
    for name in NODES:
        await stage.cluster.start_etcd(name)
    return ""


async def kill_agent(stage: Stage, primary: str) -> str:
    """`kill -9` of the primary's agent, as a bad upgrade would do it."""
    process = stage.cluster.process(primary, "agent")
    process.kill()
    await process.wait()
    return ""


async def agent_on(stage: Stage, primary: str) -> str:
    """It is started again, and has seen that the standby lives: until then it would start a
    Postgres that dies again in its place, rather than hand over to who may be dead."""
    cluster, standby = stage.cluster, _standby_of(stage, primary)
    await cluster.start_agent(primary)
    await until_well(cluster, primary)
    first = await cluster.until(lambda p: standby in p.members, "the standby's record")
    await cluster.until(lambda p: p.members[standby] != first.members[standby], "a newer one")
    return ""


SWITCHOVER = Rehearsal("planned switchover", switchover)
KILL = Rehearsal("kill -9 of the postmaster", kill_postmaster)
POWER = Rehearsal("power loss of the primary's host", power_loss, power_on)
PARTITION = Rehearsal("partition of the primary", cut, heal)
HUNG = Rehearsal("SIGSTOP of the postmaster", hang)
STANDBY_LOST = Rehearsal(
    "power loss of the standby's host", lose_standby, standby_on, fails_over=False, lasts_s=6.0
)
WITNESS_LOST = Rehearsal(
    "power loss of the witness", lose_witness, witness_on, fails_over=False, lasts_s=6.0
)
ETCD_LOST = Rehearsal(
    "all of etcd gone for a minute", lose_etcd, etcd_on, fails_over=False, lasts_s=60.0
)
AGENT_LOST = Rehearsal(
    "kill -9 of the primary's agent", kill_agent, agent_on, fails_over=False, lasts_s=1.0
)
