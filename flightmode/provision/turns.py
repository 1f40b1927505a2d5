"""Restarts on a cluster that serves: one host after the other, the primary's last.

Everything else of a run is done on all hosts at once.  What a host waits for at its turn is that
the cluster lacks nothing that it did not lack before the first one: a run may well be there to mend
something, and then waits for no more than it found.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from flightmode.config import Config
from flightmode.errors import HostRefused, HostUnreachable, RequestUnfinished, StepFailed
from flightmode.model.member import NodeKind
from flightmode.provision.plan import Plan, Step
from flightmode.provision.wanted import ETCD


def in_two(plan: Plan) -> tuple[Plan, Plan]:
    """What may be done everywhere at once, and the restarts that have their turn after it."""
    return _split(plan, lambda step: not step.in_turn)


def etcd_apart(plan: Plan) -> tuple[Plan, Plan]:
    """The restart of etcd, and the others: where etcd does not answer, a member that restarts waits
    for two, and so all have to at once.  Nothing is lost by it."""
    return _split(plan, _is_etcd_s)


def _is_etcd_s(step: Step) -> bool:
    return step.title == f"restart {ETCD}"


def _split(plan: Plan, comes_first: Callable[[Step], bool]) -> tuple[Plan, Plan]:
    first = tuple(step for step in plan.steps if comes_first(step))
    then = tuple(step for step in plan.steps if not comes_first(step))
    of = plan.of or len(plan.steps)
    done = plan.done + len(first)
    return replace(plan, steps=first, of=of), replace(plan, steps=then, done=done, of=of)


def order(config: Config, primary: str | None) -> list[str]:
    """Witnesses, standbys, and the primary."""
    nodes = config.nodes.items()
    witnesses = [name for name, node in nodes if node.kind is NodeKind.WITNESS]
    standbys = [name for name in config.nodes if name != primary and name not in witnesses]
    return [*witnesses, *standbys, *([primary] if primary in config.nodes else [])]


def restarts_etcd(plan: Plan) -> bool:
    """Whether a member of etcd is away for a moment: the others have to be there."""
    return any(map(_is_etcd_s, plan.steps))


def worse(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> tuple[str, ...]:
    """What is lacking now, in words, and was not before; both are answers of /status.

    A cluster of which nobody could tell before, or that took no writes, has nothing to lose.
    """
    if before is None or before["writes"] is None:
        return ()
    if now["writes"] is None:
        return (str(now["route"]),)
    found = []
    if before["store_reachable"] and not now["store_reachable"]:
        found.append(f"etcd does not answer {now['node']}")
    nodes = {node["name"]: node for node in now["nodes"]}
    for old in before["nodes"]:
        new = nodes.get(old["name"])
        if new is None:
            continue
        served = old["streaming"] or old["name"] == before["writes"]
        if old["heard"] and not new["heard"]:
            found.append(f"nothing is heard of {new['name']}")
        elif served and not new["streaming"] and new["name"] != now["writes"]:
            found.append(f"{new['name']} does not follow")
    if _is_held_twice(before) and not _is_held_twice(now):
        found.append("no standby holds every commit")
    return tuple(found)


def _is_held_twice(status: Mapping[str, Any]) -> bool:
    return any(node["sync"] and node["name"] != status["writes"] for node in status["nodes"])


async def one_by_one(
    plans: Sequence[Plan],
    ordered: Callable[[], Awaitable[Sequence[str]]],
    bring: Callable[[Plan], Awaitable[None]],
    back: Callable[[str], Awaitable[None]],
) -> None:
    """Each plan at its host's turn, and the next when that is `back`.

    `ordered` is asked before each turn: a failover in between has made another one the primary.
    Raises what `bring` does; RequestUnfinished when a host does not come back.  Nothing is
    restarted after either, and the message says what was not.
    """
    left = {each.name: each for each in plans if each.steps}
    while left:
        names = await ordered()
        turn = next((name for name in names if name in left), next(iter(left)))
        plan = left.pop(turn)
        spared = f"; not restarted: {', '.join(left)}" if left else ""
        try:
            await bring(plan)
        except (StepFailed, HostUnreachable, HostRefused) as failure:
            raise type(failure)(f"{failure.message}{spared}", hint=failure.hint_text) from None
        try:
            await back(turn)
        except RequestUnfinished as failure:
            text = f"{turn} was restarted, and {failure.message}{spared}"
            raise RequestUnfinished(
                f"{text}; another run goes on from here", hint=failure.hint_text
            ) from None
