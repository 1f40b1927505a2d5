"""docs/reference/pgbouncer-parity.md from outcomes of `suite.py --save` and reasons.toml.

.venv/bin/python tests/parity/page.py OURS.json THEIRS.json > docs/reference/pgbouncer-parity.md
"""

import json
import re
import tomllib
from collections import Counter, defaultdict
from pathlib import Path
from typing import Annotated

import typer

Outcomes = dict[str, list[str]]
REASONS = Path(__file__).with_name("reasons.toml")
WORDS = Path(__file__).with_name("words.toml")
WITH_WORDS = "words of ours for: "
"""As `suite.py` notes it of a test that passed."""
HEAD = """# PgBouncer's tests against Flightmode

PgBouncer has a test suite of its own. It runs here against our proxy: a stand-in
(`tests/parity/bouncer.py`) takes the place of the `pgbouncer` command, translates its
configuration into ours and keeps its console; the tests themselves come from a checkout and
are not part of this repository. Two more things stand in for others: certificates are made with
version 3 (`openssl.sh`), and where a test wants PgBouncer's words, ours will do
(`expected_words.py`, `words.toml`): what happens has to be the same, its wording has not.

```
.venv/bin/python tests/parity/suite.py CHECKOUT --python VENV/bin/python --save ours.json
.venv/bin/python tests/parity/suite.py CHECKOUT --python VENV/bin/python --theirs --save theirs.json
.venv/bin/python tests/parity/page.py ours.json theirs.json
```
"""


def main(
    ours: Annotated[Path, typer.Argument()],
    theirs: Annotated[Path | None, typer.Argument(help="Else every test counts as one.")] = None,
    run: Annotated[str, typer.Option(help="When and on what it ran, a sentence.")] = "",
) -> None:
    """Print the page."""
    found: Outcomes = json.loads(ours.read_text())
    ran = {name: ["passed", ""] for name, (outcome, _) in found.items() if outcome != "skipped"}
    reference: Outcomes = ran if theirs is None else json.loads(theirs.read_text())
    reasons = tomllib.loads(REASONS.read_text())["reason"]
    print(HEAD)
    if run:
        print(f"{run}\n")
    print(_counts(found, reference))
    print(_by_reason(found, reference, reasons))
    print(_apart(reference))
    print(_words(found), end="")


def _counts(found: Outcomes, reference: Outcomes) -> str:
    lines = [
        "| tests of | passed by PgBouncer here | of these by Flightmode | in words of ours |",
        "|---|---:|---:|---:|",
    ]
    passes, ours, reworded = Counter[str](), Counter[str](), Counter[str]()
    for name, (outcome, _) in reference.items():
        file = name.partition("::")[0].removeprefix("test_")
        if outcome == "passed":
            own, note = found.get(name, ["not run", ""])
            passes[file] += 1
            ours[file] += own == "passed"
            reworded[file] += own == "passed" and note.startswith(WITH_WORDS)
    lines += [f"| {f} | {passes[f]} | {ours[f]} | {reworded[f]} |" for f in sorted(passes)]
    sums = (passes.total(), ours.total(), reworded.total())
    lines.append(f"| **all** | {' | '.join(f'**{total}**' for total in sums)} |")
    return "\n".join(lines) + "\n"


def _apart(reference: Outcomes) -> str:
    """What PgBouncer itself does not pass, or does not run, on that machine."""
    lines = ["## What PgBouncer does not pass or run here either\n"]
    for name, (outcome, why) in sorted(reference.items()):
        if outcome != "passed":
            lines.append(f"- {name}: {outcome}, {why}")
    return "\n".join(lines) + "\n"


def _words(found: Outcomes) -> str:
    """The words that tests were given, with how many tests needed each."""
    used = Counter[str]()
    for outcome, note in found.values():
        if outcome == "passed" and note.startswith(WITH_WORDS):
            used.update(note.removeprefix(WITH_WORDS).split(", "))
    lines = [
        "## Words of ours for theirs\n",
        "| theirs | ours | tests that pass |",
        "|---|---|---:|",
    ]
    for pair in tomllib.loads(WORDS.read_text())["words"]:
        theirs, ours = (pair[key].replace("|", " or ") for key in ("theirs", "ours"))
        lines.append(f"| `{theirs}` | `{ours}` | {used[pair['theirs']]} |")
    return "\n".join(lines) + "\n"


def _by_reason(found: Outcomes, reference: Outcomes, reasons: list[dict[str, str]]) -> str:
    """Each test that PgBouncer passes here and we do not, under the first reason that fits."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name, (outcome, _) in reference.items():
        if outcome != "passed" or found.get(name, ["not run"])[0] == "passed":
            continue
        fits = (each["text"] for each in reasons if re.search(each["tests"], name))
        groups[next(fits, "Not looked into yet.")].append(name)
    parts = ["## What does not pass, and why\n"]
    for text, names in groups.items():
        parts.append(f"**{text}**\n")
        # Without quotes: tests of our own are named in those.
        parts += [f"- {name}" for name in names]
        parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    typer.run(main)
