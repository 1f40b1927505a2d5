"""One run: rounds of faults on a cluster with clients, each until the cluster is whole again."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import aiohttp

from chaos.clients import Clients
from chaos.history import Done, Recorder, Round, StateSeen, Way
from chaos.lab import ChaosLab
from chaos.nemeses.scene import Scene
from chaos.schedule import Plan, Strike
from flightmode.agent.clock import Clock
from flightmode.config.derive import api_url
from flightmode.demo.cluster import APP, DATABASES, NODES, DemoCluster, Picture
from flightmode.errors import FlightmodeError
from flightmode.pki import client_context

TIMING = MappingProxyType({"stable_after_flap_s": 1.0})
"""The defaults, but a standby that comes back is trusted again sooner: it always comes back."""
WHOLE_S = 90.0
"""So long after its healing the cluster may need to be whole: I9's 30 s, and a copy if need be."""
WRITES_S = 40.0
"""So long a fault that leaves two hosts alone may keep all commits waiting: I9's 30 s, and a slow
machine."""
_LOOK_S = 0.1
_RESTART_S = 1.0
_ASK = aiohttp.ClientTimeout(total=3.0)


class Stuck(Exception):
    """The cluster does not get on its feet; says what was waited for."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What rounds are played on."""

    cluster: DemoCluster
    lab: ChaosLab
    clients: Clients
    recorder: Recorder
    clock: Clock
    say: Callable[[str], None]


class _Struck(NamedTuple):
    strike: Strike
    scene: Scene
    done: Done


class Run:
    """Plays rounds; keeps what the store says all the while."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._picture: Picture | None = None
        self._changed_s = 0.0
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Watch the store from now on; returns when the cluster is whole and clients write."""
        self._watching = asyncio.create_task(self._watch())
        await self._whole_again(self._stage.clock.now_s())

    async def stop(self) -> None:
        """Watch no more."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def play(self, plan: Plan) -> Round:
        """One round.  A cluster that gets stuck is told in its `failure`, not raised."""
        stage, clock = self._stage, self._stage.clock
        assert self._picture is not None
        primary, standby = self._picture.state.leader, self._picture.standby
        began_s, struck, failure = clock.now_s(), list[_Struck](), ""
        try:
            await self._strike(plan, primary, standby, struck)
            await asyncio.sleep(plan.hold_s)
            await self._commits_go_on(plan, struck)
        except (Stuck, FlightmodeError) as stuck:
            failure = str(stuck)
        healed_s = clock.now_s()
        try:
            await self._heal(struck)
            healed_s = clock.now_s()
            if not failure:
                await self._whole_again(healed_s)
        except (Stuck, FlightmodeError) as stuck:
            failure = failure or str(stuck)
        done = Round(
            plan.number,
            tuple(each.done for each in struck),
            began_s,
            healed_s,
            clock.now_s(),
            WHOLE_S,
            failure,
        )
        stage.recorder.round(done)
        return done

    # ---------------------------------------------------------------- a round

    async def _strike(self, plan: Plan, primary: str, standby: str, struck: list[_Struck]) -> None:
        stage = self._stage
        for number, strike in enumerate(plan.strikes):
            if number:
                await asyncio.sleep(plan.second_after_s)
            scene = Scene(stage.cluster, stage.lab, strike.role, primary, standby, strike.dice)
            nemesis = strike.nemesis
            stage.say(f"round {plan.number}: {nemesis.name} of the {strike.role}, {scene.node}")
            # Before it is done: what is half done must be undone too.
            struck.append(_Struck(strike, scene, Done(nemesis.name, strike.role, scene.node)))
            note = await nemesis.begin(scene)
            struck[-1] = struck[-1]._replace(done=Done(nemesis.name, strike.role, scene.node, note))

    async def _commits_go_on(self, plan: Plan, struck: list[_Struck]) -> None:
        """With two of three hosts healthy, somebody is told "committed" before the fault ends."""
        if not all(each.strike.role in each.strike.nemesis.live for each in struck):
            return
        struck_s = self._stage.clock.now_s() - plan.hold_s
        await self._until(
            partial(self._answered, Way.DIRECT, struck_s),
            f"a commit while only {struck[0].scene.node} is struck",
            WRITES_S,
        )

    async def _heal(self, struck: list[_Struck]) -> None:
        """End the faults, and start what died."""
        # A member of etcd joins anew when the network is there again.
        for each in sorted(struck, key=lambda s: s.strike.nemesis.name == "etcd-data"):
            await each.strike.nemesis.heal(each.scene)
        await self._start_what_died()

    async def _start_what_died(self) -> None:
        cluster = self._stage.cluster
        for name in NODES:
            if cluster.process(name, "etcd").returncode is not None:
                await cluster.start_etcd(name)
            if name in DATABASES and cluster.process(name, "fence").returncode is not None:
                await cluster.start_fence(name)
            if cluster.process(name, "agent").returncode is not None:
                await cluster.start_agent(name)
        if cluster.process(APP, "proxy").returncode is not None:
            await cluster.start_proxy()

    async def _whole_again(self, since_s: float) -> None:
        """Whole as the store says, as each node says of itself, and as clients find."""
        until_s, supervising = since_s + WHOLE_S, asyncio.create_task(self._supervise())
        try:
            await self._whole_until(since_s, until_s)
        finally:
            supervising.cancel()
            await asyncio.gather(supervising, return_exceptions=True)

    async def _supervise(self) -> None:
        """As systemd: what ends is started again after a second, as often as it ends."""
        while True:
            await asyncio.sleep(_RESTART_S)
            await self._start_what_died()

    async def _whole_until(self, since_s: float, until_s: float) -> None:
        def left_s() -> float:
            return max(0.1, until_s - self._stage.clock.now_s())

        await self._until(lambda: self._changed_s > since_s, "the leader's renewal", left_s())
        while True:
            await self._until(self._is_whole, "primary and synchronous standby", left_s())
            whole_s = self._stage.clock.now_s()
            for way in (Way.DIRECT, Way.PROXY):
                answered = partial(self._answered, way, whole_s)
                await self._until(answered, f"a commit by {way}", left_s())
            ill = await self._ill()
            if not ill and self._is_whole():
                break
            if left_s() <= 0.1:
                raise Stuck(f"waited {WHOLE_S:.0f} s for {ill or 'the cluster to stay whole'}")
            await asyncio.sleep(_LOOK_S)

    def _answered(self, way: Way, since_s: float) -> bool:
        return self._stage.clients.answered_s[way] > since_s

    def _is_whole(self) -> bool:
        return self._picture is not None and self._picture.whole

    async def _ill(self) -> str:
        """The nodes whose agents do not call themselves well, empty when all do."""
        operator = self._stage.cluster.directory / "operator"
        tls = client_context(operator, "client")
        connector = aiohttp.TCPConnector(ssl=tls)
        async with aiohttp.ClientSession(connector=connector, timeout=_ASK) as session:
            answers = await asyncio.gather(*(self._health(session, name) for name in NODES))
        return ", ".join(name for name, well in zip(NODES, answers, strict=True) if not well)

    async def _health(self, session: aiohttp.ClientSession, name: str) -> bool:
        try:
            async with session.get(f"{api_url(self._stage.cluster.config, name)}/health") as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    # ---------------------------------------------------------------- what the store says

    async def _until(self, holds: Callable[[], bool], what: str, within_s: float) -> None:
        until_s = time.monotonic() + within_s
        while not holds():
            if self._watching is not None and self._watching.done():
                # Only by a mistake of ours; its exception says which.
                self._watching.result()
            if time.monotonic() > until_s:
                raise Stuck(f"waited {within_s:.0f} s in vain for {what}; {self.told()}")
            await asyncio.sleep(_LOOK_S / 4)

    async def _watch(self) -> None:
        known: tuple[object, ...] = ()
        renewal = None
        while True:
            picture = await self._stage.cluster.picture()
            if picture is not None:
                self._picture, state = picture, picture.state
                now_s = self._stage.clock.now_s()
                if state.renewal != renewal:
                    renewal, self._changed_s = state.renewal, now_s
                if (seen := (state.term, state.leader, str(state.mode), state.sync)) != known:
                    known = seen
                    self._stage.recorder.state(StateSeen(now_s, *seen))
            await asyncio.sleep(_LOOK_S)

    def told(self) -> str:
        """What the store said last, for people."""
        if self._picture is None:
            return "the store has not told anything yet"
        state = self._picture.state
        members = "; ".join(
            f"{m.name}: {m.run}{' streaming' if m.streaming else ''}"
            f"{f', job {m.job}' if m.job else ''}{f', {m.problem}' if m.problem else ''}"
            for m in self._picture.members.values()
        )
        return f"term {state.term}, leader {state.leader}, {state.mode} {state.sync}; {members}"
