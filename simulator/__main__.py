"""`python -m simulator`: many seeds, one seed with its story, or the planted bugs."""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from simulator import cases, mutants
from simulator.run import Plan, Result, plan_of, run
from simulator.shrink import shrunk


def main() -> int:
    """The exit status: 1 when a promise was broken, or a planted bug was not found."""
    options = _parser().parse_args()
    if options.what == "mutants":
        return mutants.main(options.only, known=options.known)
    if options.plan is not None:
        return _one(cases.load(options.plan), options)
    if options.seed is not None:
        return _one(plan_of(options.seed, slow=options.slow), options)
    return _many(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m simulator", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("mutants",), help="run the planted bugs")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to run")
    parser.add_argument("--from", type=int, default=1, dest="begin", help="the first seed")
    parser.add_argument("--seed", type=int, help="run this one seed alone")
    parser.add_argument("--plan", type=Path, help="run the plan in this file alone")
    parser.add_argument(
        "--slow", action="store_true", help="a lost leader is always waited for to the ttl"
    )
    parser.add_argument("--trace", action="store_true", help="tell the story of the run")
    parser.add_argument("--shrink", action="store_true", help="find a smaller plan that fails")
    parser.add_argument("--first", action="store_true", help="stop at the first that fails")
    parser.add_argument("--keep", action="store_true", help="keep the shrunk plans of what fails")
    parser.add_argument("--only", default="", help="only the planted bugs with this in their name")
    parser.add_argument(
        "--known", action="store_true", help="planted bugs: only by the plan that finds them"
    )
    return parser


# ------------------------------------------------------------------ one


def _one(plan: Plan, options: argparse.Namespace) -> int:
    if options.shrink or options.keep:
        plan = shrunk(plan)
    result = run(plan)
    if options.trace:
        tell(result)
    if options.shrink:
        _describe(plan)
    if options.keep and result.violations:
        print(_kept(result))
    _report(result)
    return 1 if result.violations else 0


def tell(result: Result) -> None:
    """The story, with what was broken where it was broken; then the figures of the run."""
    lines = [(at_s, who, what) for at_s, who, what in result.history.story]
    lines += [(v.at_s, "BROKEN", f"{v.invariant}: {v.what}") for v in result.violations]
    before_s = 0.0
    for at_s, who, what in sorted(lines, key=lambda line: line[0]):
        if at_s - before_s > 1.0:
            print(f"{'':9}  … {at_s - before_s:.0f} s")
        before_s = at_s
        print(f"{at_s:9.3f}  {who:9} {what}")


def _describe(plan: Plan) -> None:
    print(f"seed {plan.seed}, {plan.lasts_s:.0f} s, {plan.weather}")
    for fault in plan.faults:
        print(f"{fault.at_s:9.3f}  {fault}")
    if plan.left_out:
        print(f"{plan.lasts_s:9.3f}  {plan.left_out} stays away: {plan.left_out_by}")


def _kept(result: Result) -> Path:
    broken = result.violations[0]
    name = f"{broken.invariant.lower()}-{result.plan.seed}"
    return cases.save(result.plan, name, f"{broken.invariant}: {broken.what}")


def _report(result: Result) -> None:
    for violation in result.violations:
        print(f"{violation.at_s:9.3f}  VIOLATED {violation.invariant}: {violation.what}")


# ------------------------------------------------------------------ many


@dataclass
class _Tally:
    runs: int = 0
    faults: int = 0
    virtual_s: float = 0.0
    failed: list[str] = field(default_factory=list)
    began_s: float = field(default_factory=time.process_time)

    def add(self, name: str, result: Result) -> None:
        self.runs += 1
        self.faults += len(result.plan.faults)
        self.virtual_s += result.virtual_s
        if result.violations:
            self.failed.append(name)

    def __str__(self) -> str:
        took_s = time.process_time() - self.began_s
        minutes = self.virtual_s / 60
        return (
            f"{self.runs} runs, {self.faults} faults, {minutes:.0f} virtual minutes in "
            f"{took_s:.0f} s of a core ({minutes / max(took_s, 0.001):.1f} a second); "
            f"failed: {', '.join(self.failed) or 'none'}"
        )


def _plans(options: argparse.Namespace) -> Iterator[tuple[str, str, Plan]]:
    """What has failed once comes first, for ever."""
    for path in cases.kept():
        yield path.stem, f"--plan {path}", cases.load(path)
    slow = " --slow" if options.slow else ""
    for seed in range(options.begin, options.begin + options.seeds):
        yield f"seed {seed}", f"--seed {seed}{slow}", plan_of(seed, slow=options.slow)


def _many(options: argparse.Namespace) -> int:
    tally = _Tally()
    for name, how, plan in _plans(options):
        result = run(plan)
        tally.add(name, result)
        if not result.violations:
            continue
        print(f"{name}: python -m simulator {how} --trace", flush=True)
        _report(result)
        if options.keep:
            print(f"kept as {_kept(run(shrunk(plan)))}")
        if options.first:
            break
    print(tally)
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
