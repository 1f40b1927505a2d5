"""Planted bugs: each is put into a copy of the shipped code, and the simulator has to find it.

A simulator that finds nothing may be looking at nothing.  In the copies the assertions of
`decide/invariants.py` are taken out, so that what finds a bug is the world's history.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_SEEDS = 400
_CHECK = ("decide/__init__.py", "    check(view, decision)\n", "")


@dataclass(frozen=True, slots=True)
class Mutant:
    """A bug: in which file, which text becomes what."""

    name: str
    edits: tuple[tuple[str, str, str], ...]


MUTANTS = (
    Mutant(
        "the detach is not verified",
        (
            (
                "decide/election.py",
                "if view.server.following is not None or view.server.receiver is not None:",
                "if view.server.following is not None:",
            ),
        ),
    ),
    Mutant(
        "a claim without detaching",
        (
            (
                "decide/election.py",
                "if view.server.following is not None or view.server.receiver is not None:",
                "if view.now_s < 0:",
            ),
        ),
    ),
    Mutant(
        "a claim by who is not in the sync set",
        (
            (
                "decide/election.py",
                "if state.mode is not Mode.SYNC or view.me.name not in state.sync or paused(view):",
                "if paused(view):",
            ),
        ),
    ),
    Mutant(
        "a claim before the silence has lasted the ttl",
        (
            (
                "decide/election.py",
                "    if silent_for_s(view) >= view.policy.ttl_s:\n        return f",
                "    if silent_for_s(view) >= view.policy.ttl_s / 2:\n        return f",
            ),
        ),
    ),
    Mutant(
        "commits stop waiting before the degrade is recorded",
        (
            (
                "decide/quorum.py",
                'alone = (swap(view, "degrade", solo), LiftFence(term), SetSyncNames(term, ()))',
                'alone = (SetSyncNames(term, ()), swap(view, "degrade", solo))',
            ),
        ),
    ),
    Mutant(
        "a standby is recorded before commits are known to wait for it",
        (
            (
                "decide/quorum.py",
                "if names != (candidate,) or view.server.sync_since is None:",
                "if names != (candidate,):",
            ),
            (
                "decide/quorum.py",
                "not _holds_everything(view, candidate) or not _permission_left(view)",
                "not _permission_left(view)",
            ),
        ),
    ),
    Mutant(
        "a standby is recorded that has not flushed everything",
        (
            (
                "decide/quorum.py",
                "not _holds_everything(view, candidate) or not _permission_left(view)",
                "not _permission_left(view)",
            ),
        ),
    ),
    Mutant(
        "an unknown outcome is taken as lost",
        (("agent/act.py", "            self._tracker.doubted(action.expected_revision)\n", ""),),
    ),
    Mutant(
        "an unknown outcome is taken as done",
        (
            (
                "agent/act.py",
                "            self._tracker.doubted(action.expected_revision)\n            raise\n",
                "            txn = Txn(True, action.expected_revision + 1)\n",
            ),
            (
                "agent/act.py",
                "from flightmode.store.port import Compare, Delete, Put",
                "from flightmode.store.port import Compare, Delete, Put, Txn",
            ),
        ),
    ),
    Mutant(
        "a doubt is forgotten by the leader",
        (
            (
                "decide/leading.py",
                "    if view.store.in_doubt is not None:\n",
                "    if view.now_s < 0:\n",
            ),
            (
                "decide/permission.py",
                "    if view.store.in_doubt is not None:\n        return False\n",
                "",
            ),
        ),
    ),
    Mutant(
        "permission counts from the answer",
        (
            (
                "agent/act.py",
                "        if state.leader == self._me:\n            self._tracker.renewed",
                "        sent_s = self._hands.clock.now_s()\n"
                "        if state.leader == self._me:\n            self._tracker.renewed",
            ),
        ),
    ),
    Mutant(
        "the margin is added",
        (("decide/permission.py", "(1 - view.policy.margin)", "(1 + view.policy.margin)"),),
    ),
    Mutant(
        "the fence has no deadline when a standby becomes promotable",
        (
            (
                "decide/permission.py",
                "    if solo_confirmed(view) and not adding:\n",
                "    if fence.lifted or (solo_confirmed(view) and not adding):\n",
            ),
        ),
    ),
    Mutant(
        "the deadline stays in mode solo",
        (
            (
                "decide/permission.py",
                "    if solo_confirmed(view) and not adding:\n",
                "    if view.now_s < 0:\n",
            ),
        ),
    ),
    Mutant(
        "a pause is ignored by who might claim",
        (
            (
                "decide/election.py",
                "view.me.name not in state.sync or paused(view):",
                "view.me.name not in state.sync:",
            ),
        ),
    ),
    Mutant(
        "clients see what crash recovery brought back",
        (
            (
                "decide/leading.py",
                '    if solo_confirmed(view):\n        return answer(view, "leading: admit"',
                '    if view.now_s > 0:\n        return answer(view, "leading: admit"',
            ),
        ),
    ),
    Mutant(
        "Postgres starts although its handover is offered",
        (
            (
                "decide/leading.py",
                "    if state.handover is not None:\n        return _offered(view",
                "    if view.now_s < 0:\n        return _offered(view",
            ),
        ),
    ),
    Mutant(
        "a switchover to who is not promotable",
        (
            (
                "decide/switchover.py",
                "    if state.mode is not Mode.SYNC:\n",
                "    if view.now_s < 0:\n",
            ),
            ("decide/switchover.py", "    if target not in state.sync:\n", "    if not target:\n"),
            (
                "decide/switchover.py",
                "    if target not in state_of(view).sync:\n",
                "    if not target:\n",
            ),
        ),
    ),
)


def main(names: str = "") -> int:
    """Run those whose name contains `names`; 1 when one survives."""
    survivors = 0
    for mutant in MUTANTS:
        if names in mutant.name:
            survivors += not _found(mutant)
    print(f"{survivors} survived" if survivors else "all found")
    return 1 if survivors else 0


def _found(mutant: Mutant) -> bool:
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as place:
        plant(mutant, Path(place))
        argv = [sys.executable, "-m", "simulator", "--seeds", str(_SEEDS), "--first"]
        done = subprocess.run(
            argv, cwd=place, env=dict(os.environ, PYTHONPATH=place), capture_output=True, text=True
        )
    took_s = time.monotonic() - began_s
    lines = done.stdout.splitlines()
    how = next((line.strip() for line in lines if "VIOLATED" in line), "SURVIVED " + done.stderr)
    seed = lines[0].partition(":")[0] if done.returncode == 1 and lines else "-"
    print(f"{mutant.name:62} {seed:9} {took_s:5.1f} s  {how[:150]}", flush=True)
    return done.returncode == 1 and "VIOLATED" in done.stdout


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
