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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from simulator.planted import MUTANTS, Mutant

ROOT = Path(__file__).parents[1]
SEEDS = 400
"""Each has to be found by one of the plans that are kept, or within so many seeds."""
_CHECK = ("decide/__init__.py", "    check(view, decision)\n", "")


def main(names: str = "") -> int:
    """Run those whose name contains `names`, one a core; 1 when one survives."""
    chosen = [mutant for mutant in MUTANTS if names in mutant.name]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = list(pool.map(_found, chosen))
    survivors = [mutant.name for mutant, one in zip(chosen, found, strict=True) if not one]
    print(f"{len(chosen)} planted; survived: {', '.join(survivors) or 'none'}")
    return 1 if survivors else 0


def _found(mutant: Mutant) -> bool:
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as place:
        plant(mutant, Path(place))
        argv = [sys.executable, "-m", "simulator", "--seeds", str(SEEDS), "--first"]
        done = subprocess.run(
            argv, cwd=place, env=dict(os.environ, PYTHONPATH=place), capture_output=True, text=True
        )
    took_s = time.monotonic() - began_s
    lines = done.stdout.splitlines()
    how = next((line.strip() for line in lines if "VIOLATED" in line), "SURVIVED " + done.stderr)
    where = lines[0].partition(":")[0] if done.returncode == 1 and lines else "-"
    print(f"{mutant.name:62} {where:28.28} {took_s:5.1f} s  {how[:150]}", flush=True)
    # What merely breaks our own code is not found by a promise.
    return done.returncode == 1 and "VIOLATED I" in done.stdout


def plant(mutant: Mutant, place: Path) -> None:
    """A copy of the code with the bug in it.  Raises ValueError when the text is not there."""
    for name in ("flightmode", "simulator"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, old, new in (_CHECK, *mutant.edits):
        path = place / "flightmode" / name
        text = path.read_text()
        if text.count(old) != 1:
            raise ValueError(f"{mutant.name}: {name} holds it {text.count(old)} times: {old!r}")
        path.write_text(text.replace(old, new))
