"""One run: the cluster comes up, things go wrong, everything heals, the history is judged."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from random import Random

import structlog

from flightmode.model.cluster import Mode
from flightmode.model.policy import Policy
from simulator import checkers, rarities, schedule, weather
from simulator.checkers import Violation
from simulator.fault import Fault
from simulator.faults import Faults
from simulator.history import UNTOLD, Healed, History, Standing
from simulator.host import WALL_S
from simulator.loop import VirtualLoop
from simulator.weather import Weather
from simulator.world import POLICY, THREE, World

_UP_S = 15.0
"""By then a cluster without faults is in mode sync."""
_LOOK_S = 0.5
_LIVENESS_S = 62.0
_FAST = 0.75
"""So many runs have the fast path; the others meet what only the ttl keeps safe."""
_THREE = 0.2
"""So many have a third database node, and no witness."""
_QUIET_S = 3.0


@dataclass(frozen=True)
class Plan:
    """What a run is made of; from the seed, or by hand."""

    seed: int
    weather: Weather
    faults: tuple[Fault, ...]
    lasts_s: float = 60.0
    left_out: str = ""
    """Who stays away when the others are healed: a node, or "leader" or "standby" …"""
    left_out_by: str = "power"
    """… and how: power | cut."""
    fast: bool = True
    """A lost host is replaced as soon as two nodes miss it, and not after the ttl."""
    three: bool = False
    """The witness's place is taken by a third database node, under its name."""

    @property
    def policy(self) -> Policy:
        policy = THREE if self.three else POLICY
        return policy if self.fast else replace(policy, suspect_after_s=0.0)


@dataclass
class Result:
    """How it went."""

    plan: Plan
    history: History
    virtual_s: float = 0.0
    violations: list[Violation] = field(default_factory=list)


def plan_of(seed: int, *, slow: bool = False) -> Plan:
    """The plan that a seed stands for; `slow`: a lost leader is always waited for to the ttl."""
    dice = Random(f"{seed} plan")
    lasts_s = dice.choice((20.0, 40.0, 70.0))
    # Now and then things go wrong before the cluster is up.
    begin_s = 0.5 if dice.random() < 0.15 else _UP_S
    until_s = _UP_S + lasts_s
    # Drawn apart, so that the rest of a plan is the same with and without it.
    apart = Random(f"{seed} fast")
    fast = not slow and apart.random() < _FAST
    muffled = schedule.muffled(apart, _UP_S, until_s) if fast else ()
    retimed = schedule.retimed(Random(f"{seed} retimed"), _UP_S, until_s)
    three = Random(f"{seed} third").random() < _THREE
    swapped = schedule.exchanged(Random(f"{seed} exchanged"), _UP_S, until_s) if three else ()
    struck = schedule.struck(Random(f"{seed} blow"), _UP_S, until_s)
    rare = rarities.rarely(Random(f"{seed} rare"), _UP_S, until_s)
    kind, faults = weather.drawn(dice), schedule.drawn(dice, begin_s, until_s)
    return Plan(
        seed,
        kind,
        tuple(
            sorted(
                (*faults, *muffled, *retimed, *swapped, *struck, *rare),
                key=lambda fault: fault.at_s,
            )
        ),
        until_s,
        dice.choice(("", "leader", "leader", "standby", "wit")),
        dice.choice(("power", "cut")),
        fast,
        three,
    )


def run(plan: Plan) -> Result:
    """Play it and judge it.  Repeatable: the same plan gives the same history."""
    result = Result(plan, History())
    with _quiet(), asyncio.Runner(loop_factory=VirtualLoop) as runner:
        result.virtual_s = runner.run(_play(plan, result.history))
    result.violations = checkers.judge(result.history, plan.policy)
    return result


async def _play(plan: Plan, history: History) -> float:
    world = World(plan.seed, plan.weather, history, plan.policy)
    nemesis = Faults(world)
    world.start()
    nemesis.plan(plan.faults)
    await asyncio.sleep(plan.lasts_s)
    await _heal_two(world, nemesis, plan)
    nemesis.heal()
    await _recover(world)
    for name, server in world.servers.items():
        history.add(Standing(world.loop.time(), name, world.rows_of(server), world.state))
    ended_s = world.loop.time()
    for node in world.nodes.values():
        node.kill_agent()
    await asyncio.sleep(0)
    return ended_s


async def _heal_two(world: World, nemesis: Faults, plan: Plan) -> None:
    """All but one come back (I9); not when that one alone holds what was acknowledged."""
    away = nemesis.who(plan.left_out)
    state = world.state
    if not away or state is None or _alone(world, away):
        return
    if any(server.data is None for name, server in world.servers.items() if name != away):
        return
    nemesis.heal()
    nemesis.leave_out(away, plan.left_out_by)
    await _recover(world, without=away)


def _alone(world: World, away: str) -> bool:
    """It may hold what nobody else does, and it is for nobody else to take the term from it.

    Not if it was given the term and did nothing in it; nor if its agent, which lives, can see that
    nothing of that can be promoted.
    """
    state, fence = world.state, world.nodes[away].fence
    alone = state is not None and state.mode is Mode.SOLO and state.leader == away
    hung = fence is not None and fence.hung and world.hosts[away].up
    return alone and not world.untaken and not (world.unserved and hung)


def _alone_away(world: World, away: str) -> bool:
    """A swap that was under way made the one who is away the only one who may lead.

    Or a person passed it over: it serves whoever reaches it until it hears of that.
    """
    state = world.state
    return _alone(world, away) or (state is not None and away in state.passed_over)


async def _recover(world: World, without: str = "") -> None:
    """Until all is well for a while, or the time for it is over."""
    loop = world.loop
    now_s, pause_wall_s = loop.time(), world.pause_until_wall_s()
    paused_s = 0.0 if pause_wall_s is None else pause_wall_s - WALL_S + POLICY.pause_grace_s
    from_s = max(now_s, paused_s)
    world.history.add(Healed(now_s, from_s, without))
    # What was acknowledged before says nothing of what is served now.
    world.served.clear()
    well_since_s: float | None = None
    while loop.time() < from_s + _LIVENESS_S:
        await asyncio.sleep(_LOOK_S)
        look = world.look(without)
        if without and _alone_away(world, without):
            world.history.add(Healed(loop.time(), loop.time(), without=UNTOLD))
            return
        world.history.add(look)
        well = (look.served if without else look.synced) and look.routed
        well_since_s = (well_since_s or loop.time()) if well else None
        if well_since_s is not None and loop.time() - well_since_s >= _QUIET_S:
            return


@contextmanager
def _quiet() -> Iterator[None]:
    """The agents' own log lines say nothing that the story doesn't."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    try:
        yield
    finally:
        structlog.configure(**before)
