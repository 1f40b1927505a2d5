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
HEAD = """# PgBouncer's tests against Flightmode

PgBouncer has a test suite of its own. It runs here against our proxy: a stand-in
(`tests/parity/bouncer.py`) takes the place of the `pgbouncer` command, translates its
configuration into ours and keeps its console; the tests themselves come from a checkout and
are not part of this repository.

```
.venv/bin/python tests/parity/suite.py CHECKOUT --python VENV/bin/python --save ours.json
.venv/bin/python tests/parity/suite.py CHECKOUT --python VENV/bin/python --theirs --save theirs.json
.venv/bin/python tests/parity/page.py ours.json theirs.json
```
"""


def main(
    ours: Annotated[Path, typer.Argument()],
    theirs: Annotated[Path | None, typer.Argument(help="Else every test counts as one.")] = None,
) -> None:
    """Print the page."""
    found: Outcomes = json.loads(ours.read_text())
    ran = {name: ["passed", ""] for name, (outcome, _) in found.items() if outcome != "skipped"}
    reference: Outcomes = ran if theirs is None else json.loads(theirs.read_text())
    reasons = tomllib.loads(REASONS.read_text())["reason"]
    print(HEAD)
    print(_counts(found, reference))
    print(_by_reason(found, reference, reasons))


def _counts(found: Outcomes, reference: Outcomes) -> str:
    lines = [
        "| tests of | tests that can pass here | Flightmode passes of these |",
        "|---|---:|---:|",
    ]
    passes, ours = Counter[str](), Counter[str]()
    for name, (outcome, _) in reference.items():
        file = name.partition("::")[0].removeprefix("test_")
        if outcome == "passed":
            passes[file] += 1
            ours[file] += found.get(name, ["not run"])[0] == "passed"
    lines += [f"| {file} | {passes[file]} | {ours[file]} |" for file in sorted(passes)]
    lines.append(f"| **all** | **{passes.total()}** | **{ours.total()}** |")
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
