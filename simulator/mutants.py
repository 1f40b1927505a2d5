"""Each planted bug is put into a copy of the shipped code, and the simulator has to find it.

A simulator that finds nothing may be looking at nothing.  In the copies the assertions of
`decide/invariants.py` are taken out, so that what finds a bug is the world's history.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from simulator.planted import MUTANTS, Mutant
from simulator.planted_fast import BY_PLAN, FAST
from simulator.planted_given import BY_PLAN as GIVEN_BY_PLAN
from simulator.planted_given import GIVEN
from simulator.planted_guards import BY_PLAN_OF_GUARDS, GUARDS
from simulator.planted_people import BY_PEOPLE, PEOPLE
from simulator.planted_return import RETURN

ROOT = Path(__file__).parents[1]
SEEDS = 400
"""Each has to be found by one of the plans that are kept, or within so many seeds."""
BY_SEED: Mapping[str, int] = {
    "a claim before the silence has lasted the ttl": 8,
    "an unknown outcome is taken as done": 49,
    "the fence has no deadline when a standby becomes promotable": 8,
    "the deadline stays in mode solo": 26,
    "the fence acts late": 8,
    "the fence is lifted whatever the mode": 8,
    "a new leader begins with the old one in its sync set": 28,
    "a primary goes on beside another leader": 46,
    "commits wait for nobody although a standby is recorded": 69,
    "an offered handover is waited for without end": 152,
}
"""A seed that is known to find it, without the fast path."""

BY_KEPT: Mapping[str, str] = {
    "clients see what crash recovery brought back": "a-recovery-that-is-shown-and-then-lost",
    "clients come in before commits are proven to wait": (
        "clients-come-in-before-commits-wait-again"
    ),
    "a copy is made of a node that is counted on": "a-copy-is-asked-for-of-who-is-counted-on",
    "a node that is counted on is rewound": "a-claim-in-doubt-and-etcd-gone",
    "an unknown outcome is taken as lost": "a-claim-in-doubt-and-etcd-gone",
    "the detach is not verified": "a-receiver-that-lingers-behind-a-link-that-returns",
    "commits stop waiting before the degrade is recorded": "commits-that-stop-waiting-too-early",
    "a doubt is forgotten by the leader": "a-doubt-of-the-leader",
    "a standby is recorded before commits are known to wait for it": (
        "a-standby-is-added-before-it-has-everything"
    ),
    "a standby is recorded that has not flushed everything": (
        "a-standby-is-added-before-it-has-everything"
    ),
    "two timelines of one number are taken for one": "two-promoted-apart",
    "a promotion that was cut in two goes on as a primary": "a-promotion-that-is-cut-in-two",
    "a promotion that hangs is waited for without end": "a-promotion-that-is-wedged",
    "the long permission of a pause outlives it": "a-leader-that-hangs-as-a-pause-ends",
    "what was known of an earlier life counts as confirmed": (
        "a-swap-of-an-earlier-life-arrives-just-before"
    ),
    "a crashed primary is started as a standby's copy would be": (
        "a-primary-that-died-is-cut-off-as-it-comes-back"
    ),
    "a standby without room claims": "a-standby-whose-disk-is-full",
    "Postgres starts although its handover is offered": "a-handover-and-a-start-beside-it",
    "a switchover to who is not promotable": "a-switchover-while-alone",
    "who was passed over is rewound": "a-leader-that-was-passed-over-returns",
    "who was passed over follows where it is": "a-namesake-that-somebody-follows",
    "only the leader counts as passed over": (
        "a-third-node-holds-more-than-the-one-that-was-forced"
    ),
    "who makes room for another machine does not count as passed over": (
        "a-node-that-makes-room-holds-more-than-the-one-that-was-forced"
    ),
    "who waits goes by its own ttl": "a-ttl-that-differs",
    "what is left of a longer permission is forgotten": "a-ttl-that-shrinks",
    **BY_PLAN,
    **GIVEN_BY_PLAN,
    **BY_PEOPLE,
    **BY_PLAN_OF_GUARDS,
}
"""The kept plan that is known to find it; the rest are found by one of the kept plans."""

ALL = (*MUTANTS, *FAST, *GIVEN, *RETURN, *PEOPLE, *GUARDS)

_CHECK = ("decide/__init__.py", "    check(view, decision)\n", "")


def main(names: str = "", *, known: bool = False) -> int:
    """Run those whose name contains `names`, one a core; 1 when one survives.

    `known`: each only on the plan that has found it before, which takes a minute.
    """
    chosen = [mutant for mutant in ALL if names in mutant.name]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = list(pool.map(lambda mutant: _found(mutant, known=known), chosen))
    survivors = [mutant.name for mutant, one in zip(chosen, found, strict=True) if not one]
    print(f"{len(chosen)} planted; survived: {', '.join(survivors) or 'none'}")
    return 1 if survivors else 0


def _seeds(mutant: Mutant, *, known: bool) -> list[str]:
    if not known:
        return ["--seeds", str(SEEDS)]
    if mutant.name in BY_KEPT:
        return ["--plan", f"simulator/kept/{BY_KEPT[mutant.name]}.json"]
    seed = BY_SEED.get(mutant.name)
    return ["--seeds", "0"] if seed is None else ["--seed", str(seed), "--slow"]


def _found(mutant: Mutant, *, known: bool) -> bool:
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as place:
        plant(mutant, Path(place))
        argv = [sys.executable, "-m", "simulator", *_seeds(mutant, known=known), "--first"]
        done = subprocess.run(
            argv, cwd=place, env=dict(os.environ, PYTHONPATH=place), capture_output=True, text=True
        )
    took_s = time.monotonic() - began_s
    lines = done.stdout.splitlines()
    how = next((line.strip() for line in lines if "VIOLATED" in line), "SURVIVED " + done.stderr)
    where = lines[0].partition(":")[0] if done.returncode == 1 and lines else "-"
    print(f"{mutant.name:62} {where:28.28} {took_s:5.1f} s  {how[:150]}", flush=True)
    # What merely breaks our own code is not found by a promise.
    promises = ("VIOLATED I", "VIOLATED S")
    return done.returncode == 1 and any(promise in done.stdout for promise in promises)


def plant(mutant: Mutant, place: Path) -> None:
    """A copy of the code with the bug in it.  Raises ValueError when the text is not there."""
    for name in ("flightmode", "simulator"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in edited(mutant).items():
        (place / "flightmode" / name).write_text(text)


def edited(mutant: Mutant) -> dict[str, str]:
    """The files of `flightmode` that the bug is in.  Raises ValueError when it does not fit."""
    texts: dict[str, str] = {}
    for name, old, new in (_CHECK, *mutant.edits):
        text = texts.get(name) or (ROOT / "flightmode" / name).read_text()
        if text.count(old) != 1:
            raise ValueError(f"{mutant.name}: {name} holds it {text.count(old)} times: {old!r}")
        texts[name] = text.replace(old, new)
    return texts
