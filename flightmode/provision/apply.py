"""Look at all hosts, say what is to be done, and do it, on all of them at once."""

import asyncio
import shlex
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from flightmode.config import Config
from flightmode.errors import FlightmodeError, HostRefused, HostUnfit, StepFailed
from flightmode.provision.facts import Facts, read, script
from flightmode.provision.plan import Plan, Step, plan
from flightmode.provision.takeover import obstacles
from flightmode.provision.unpacking import unpack_command
from flightmode.provision.wanted import File, Wanted
from flightmode.provision.wheels import Kind, Release
from flightmode.remote.port import Remote

LOOK_WITHIN_S = 120.0
STEP_WITHIN_S = 900.0
TOLD_AFTER_S = 1.0
"""A step that takes longer is told of before it has ended: people wait for it."""
_TAIL = 1200


@dataclass(frozen=True, slots=True)
class Progress:
    """A step that is under way (`ended` is False) or has ended."""

    host: str
    number: int
    of: int
    title: str
    ended: bool
    took_s: float = 0.0
    said: str = ""
    """What it printed, where that is for whoever typed the command."""
    debian: bool = False
    """It installs packages of Debian's."""
    ended_s: float = 0.0
    """When it ended, by CLOCK_MONOTONIC."""


Say = Callable[[Progress], None]
T = TypeVar("T")


async def look(remote: Remote, wanted: Wanted) -> tuple[Facts, float]:
    """What the host has; and our wall clock when it looked at its own, as near to that as may be:
    somewhere between the question and the answer.  Raises HostRefused, HostUnreachable.
    """
    asked_s = time.time()
    answer = await remote.run(script(wanted), within_s=LOOK_WITHIN_S)
    answered_s = time.time()
    facts = read(answer.out)
    if facts is None:
        raise HostRefused(f"{wanted.name} did not say what it has: {answer.err.strip()[-_TAIL:]}")
    return facts, min(max(facts.clock_s, asked_s), answered_s)


async def plan_all(
    config: Config,
    hosts: Sequence[Wanted],
    remotes: Mapping[str, Remote],
    release: Release | None,
    *,
    fence_too: bool = False,
) -> list[Plan]:
    """What to do on each.  Without a release each host keeps the Flightmode that it has.

    Raises HostUnfit with the problems of all hosts at once, also with those that one host makes
    for another.
    """
    found = await asyncio.gather(*(look(remotes[each.name], each) for each in hosts))
    plans = [
        plan(
            config,
            each,
            facts,
            facts.release if release is None else release.name,
            now_s,
            fence_too=fence_too,
        )
        for each, (facts, now_s) in zip(hosts, found, strict=True)
    ]
    looked = [(each, facts) for each, (facts, _) in zip(hosts, found, strict=True)]
    problems = [f"{each.name} {problem}" for each in plans for problem in each.unfit]
    problems += [f"{name} {problem}" for name, problem in obstacles(config, looked)]
    if problems:
        raise HostUnfit("\n  ".join(("nothing was changed:", *problems)))
    return plans


class _Together:
    """What hosts that are brought along side by side have in common."""

    def __init__(self, names: Sequence[str]) -> None:
        self.failed = asyncio.Event()
        self._ready = {name: asyncio.Event() for name in names}

    def ready(self, name: str) -> None:
        """Nothing is left to do on this host but what comes last."""
        self._ready[name].set()

    async def all_ready(self) -> None:
        for event in self._ready.values():
            await event.wait()


async def carry_out(
    plans: Sequence[Plan], remotes: Mapping[str, Remote], release: Release, say: Say
) -> None:
    """All hosts at once.  When one fails, the others end the step that they are at, unless it
    waits for that host.  Raises the failures, in one."""
    together = _Together([each.name for each in plans])
    done = await asyncio.gather(
        *(_one_host(each, remotes[each.name], release, say, together) for each in plans),
        return_exceptions=True,
    )
    failures = [each for each in done if isinstance(each, FlightmodeError)]
    for each in done:
        if isinstance(each, BaseException) and not isinstance(each, FlightmodeError):
            raise each
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise StepFailed("\n  ".join(str(each) for each in failures))


async def _one_host(
    plan: Plan, remote: Remote, release: Release, say: Say, together: _Together
) -> None:
    failed = together.failed
    of = plan.of or len(plan.steps)
    for number, step in enumerate(plan.steps, start=plan.done + 1):
        if step.last:
            together.ready(plan.name)
            await _unless(failed, together.all_ready())
        if failed.is_set():
            return
        began_s = time.monotonic()
        begun = Progress(plan.name, number, of, step.title, ended=False, debian=step.debian)
        telling = asyncio.get_running_loop().call_later(TOLD_AFTER_S, say, begun)
        try:
            doing = _one_step(plan.name, step, remote, release)
            said = await (_unless(failed, doing) if step.meets else doing)
        except BaseException:
            failed.set()
            raise
        finally:
            telling.cancel()
        if said is None:
            return
        ended_s, told = time.monotonic(), said if step.tells else ""
        took_s = ended_s - began_s
        say(replace(begun, ended=True, took_s=took_s, said=told, ended_s=ended_s))
    together.ready(plan.name)


async def _unless(failed: asyncio.Event, doing: Coroutine[None, None, T]) -> T | None:
    """What came of it; None: another host failed before it ended, and nobody waits for it now."""
    mine, other = asyncio.ensure_future(doing), asyncio.ensure_future(failed.wait())
    try:
        await asyncio.wait((mine, other), return_when=asyncio.FIRST_COMPLETED)
        return await mine if mine.done() else None
    finally:
        for task in (mine, other):
            task.cancel()
        await asyncio.gather(mine, other, return_exceptions=True)


async def _one_step(name: str, step: Step, remote: Remote, release: Release) -> str:
    """What it printed.  Raises StepFailed, HostUnreachable, HostRefused, HostUnfit."""
    if len(step.files) == 1:
        (file,) = step.files
        await _put(file, file.path, remote)
        return ""
    command, stdin = step.command, None
    if step.files:
        command = await _drafted(step.files, remote)
    if step.release:
        command, stdin = await _unpacking(name, remote, release)
    done = await remote.run(command, stdin=stdin, within_s=STEP_WITHIN_S)
    if done.status != 0:
        said = (done.err.strip() or done.out.strip())[-_TAIL:]
        raise StepFailed(
            f"{name}: {step.title}: status {done.status}: {said}; another run goes on from here"
        )
    return done.out


async def _drafted(files: Sequence[File], remote: Remote) -> str:
    """Everything is there before anything is replaced: a command that only renames is left."""
    for each in files:
        await _put(each, _draft(each), remote)
    return " && ".join(shlex.join(["mv", "-fT", _draft(each), each.path]) for each in files)


async def _put(file: File, path: str, remote: Remote) -> None:
    await remote.put(path, file.content, mode=file.owned.mode, owner=file.owned.owner)


def _draft(file: File) -> str:
    return f"{file.path}.flightmode-draft"


async def _unpacking(name: str, remote: Remote, release: Release) -> tuple[str, bytes]:
    """The wheels that fit this host's Python and processor.  Raises HostUnfit, StepFailed."""
    asked = 'import sys; print("%d.%d" % sys.version_info[:2])'
    answer = await remote.run(f"python3 -c '{asked}' && uname -m")
    if answer.status != 0 or len(answer.out.split()) != 2:
        raise HostUnfit(f"{name} has no Python that works: {answer.err.strip()[-_TAIL:]}")
    kind = Kind(*answer.out.split())
    return unpack_command(release.name), await asyncio.to_thread(release.archive_for, kind)
