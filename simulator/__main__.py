"""`python -m simulator`: many seeds, one seed with its story, or the planted bugs."""

import argparse
import sys
import time
from pathlib import Path

from simulator import mutants
from simulator.run import Result, plan_of, run

SEEDS = Path(__file__).with_name("seeds.txt")
"""Seeds that have failed once; they are run before any other, for ever."""


def main() -> int:
    """The exit status: 1 when a promise was broken, or a planted bug was not found."""
    parser = argparse.ArgumentParser(prog="python -m simulator", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("mutants",), help="run the planted bugs")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to run")
    parser.add_argument("--from", type=int, default=1, dest="begin", help="the first seed")
    parser.add_argument("--seed", type=int, help="run this one seed alone")
    parser.add_argument("--trace", action="store_true", help="tell the story of the run")
    parser.add_argument("--first", action="store_true", help="stop at the first that fails")
    parser.add_argument("--only", default="", help="only the planted bugs with this in their name")
    options = parser.parse_args()
    if options.what == "mutants":
        return mutants.main(options.only)
    if options.seed is not None:
        return _one(options.seed, trace=options.trace)
    return _many(options.begin, options.seeds, stop=options.first)


def known_seeds() -> list[int]:
    lines = SEEDS.read_text().splitlines() if SEEDS.exists() else []
    words = (line.partition("#")[0].strip() for line in lines)
    return [int(word) for word in words if word]


def _one(seed: int, *, trace: bool) -> int:
    result = run(plan_of(seed))
    if trace:
        for at_s, who, what in result.history.story:
            print(f"{at_s:9.3f}  {who:9} {what}")
    _report(result)
    return 1 if result.violations else 0


def _report(result: Result) -> None:
    for violation in result.violations:
        print(f"{violation.at_s:9.3f}  VIOLATED {violation.invariant}: {violation.what}")


def _many(first: int, number: int, *, stop: bool) -> int:
    seeds = [*known_seeds(), *range(first, first + number)]
    began_s, virtual_s, faults, failed = time.monotonic(), 0.0, 0, []
    for seed in seeds:
        result = run(plan_of(seed))
        virtual_s += result.virtual_s
        faults += len(result.plan.faults)
        if result.violations:
            failed.append(seed)
            print(f"seed {seed}: python -m simulator --seed {seed} --trace")
            _report(result)
            if stop:
                break
    took_s = time.monotonic() - began_s
    print(
        f"{len(seeds)} seeds, {faults} faults, {virtual_s / 60:.0f} virtual minutes "
        f"in {took_s:.0f} s ({virtual_s / 60 / took_s:.1f} a second); failed: {failed or 'none'}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
