"""From a plan that breaks a promise to a small one that still breaks it."""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace

from simulator.fault import Fault
from simulator.run import Plan, run
from simulator.weather import fair

Fails = Callable[[Plan], bool]
_RUNS = 300
"""A plan is shrunk by at most so many runs."""


def shrunk(plan: Plan) -> Plan:
    """The smallest plan found that breaks the same invariant first; `plan`, if it breaks none."""
    broken = first_broken(plan)
    if broken is None:
        return plan
    return smaller(plan, lambda each: first_broken(each) == broken)


def first_broken(plan: Plan) -> str | None:
    violations = run(plan).violations
    return violations[0].invariant if violations else None


def smaller(plan: Plan, fails: Fails, *, runs: int = _RUNS) -> Plan:
    """Take away what is not needed, until nothing more can be taken away."""
    left = runs
    while left > 0:
        for each in _simpler(plan):
            left -= 1
            if fails(each):
                plan = each
                break
            if left <= 0:
                break
        else:
            break
    return plan


def _simpler(plan: Plan) -> Iterator[Plan]:
    """Plans with less in them, those with much less first."""
    for faults in _fewer(plan.faults):
        yield replace(plan, faults=faults)
    if plan.left_out:
        yield replace(plan, left_out="")
    if plan.weather != fair():
        yield replace(plan, weather=fair())
        for each in fields(fair()):
            kind = getattr(fair(), each.name)
            if getattr(plan.weather, each.name) != kind:
                yield replace(plan, weather=replace(plan.weather, **{each.name: kind}))
    last_s = max((fault.at_s + fault.lasts_s for fault in plan.faults), default=0.0)
    if last_s + 5.0 < plan.lasts_s:
        yield replace(plan, lasts_s=last_s + 5.0)


def _fewer(faults: tuple[Fault, ...]) -> Iterator[tuple[Fault, ...]]:
    """Without a half, a quarter, … one of them."""
    size = len(faults)
    while size > 1:
        size = (size + 1) // 2
        for begin in range(0, len(faults), size):
            yield (*faults[:begin], *faults[begin + size :])
    if len(faults) == 1:
        yield ()
