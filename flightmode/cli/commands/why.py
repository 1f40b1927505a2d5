"""`flightmode why` and `replay`: what was decided, in words, and whether it still would be."""

import asyncio
import os
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from flightmode.agent.replay import Replayed, records
from flightmode.agent.replay import replay as decide_again
from flightmode.api.face import Told, told
from flightmode.cli.asking import by_operator
from flightmode.cli.options import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigPath,
    NodeName,
    TlsDirectory,
    place,
)
from flightmode.cli.show import as_json, decision_view, out
from flightmode.decide.words import in_words
from flightmode.errors import FileMissing, ReplayDiffers

Count = Annotated[int, typer.Option("--count", help="How many of the last.", min=1, max=10000)]


def why(
    config: ConfigPath = DEFAULT_CONFIG,
    node: NodeName = None,
    tls: TlsDirectory = None,
    count: Count = 20,
    json: AsJson = False,
) -> None:
    """The last decisions, in words.

    Without --node: those of this machine, from its journal. With it: as that node tells them.
    Decisions that said nothing new are left out.
    """
    here = place(config)
    local = here.here() if node is None else None
    journal = None if local is None else here.locations(local).state_dir / "journal.jsonl"
    if journal is not None and os.access(journal, os.R_OK):
        tales = [asdict(each) for each in last(journal, count)]
    else:
        only = None if node is None else here.known(node)

        async def look() -> list[dict[str, Any]]:
            async with by_operator(here, here.tls(tls, node), only) as cluster:
                found: list[dict[str, Any]] = (await cluster.best(f"/why?count={count}")).body
                return found

        tales = asyncio.run(look())
    if json:
        as_json(tales)
        return
    for each in tales:
        out.print(decision_view(each))
    if not tales:
        out.print("nothing has been decided yet")


def last(journal: Path, count: int) -> list[Told]:
    """The last records of a journal, oldest first.  Raises RecordUnreadable."""
    kept = deque((record for _, record in records(journal)), maxlen=count)
    return [told(each.view.wall_s, each.decision, each.errors) for each in kept]


def replay(
    journal: Annotated[Path, typer.Argument(help="A journal.jsonl.", metavar="JOURNAL")],
    json: AsJson = False,
) -> None:
    """Decide again over a journal with this version's rules, and show where they differ.

    Exit status: 0 all the same; 1 something would be decided differently.
    """
    if not journal.is_file():
        raise FileMissing(f"{journal} is not a file")
    total, changed = 0, []
    for each in decide_again(journal):
        total += 1
        if not each.same:
            changed.append(_difference(each))
    if json:
        as_json({"records": total, "different": changed})
    else:
        for line in changed:
            out.print(f"line {line['line']}: {line['then']} -> {line['now']}", soft_wrap=True)
            out.print(f"    then: {'; '.join(line['did_then']) or 'nothing'}", soft_wrap=True)
            out.print(f"    now:  {'; '.join(line['did_now']) or 'nothing'}", soft_wrap=True)
        out.print(f"{total} decisions, {len(changed)} would be different today")
    if changed:
        raise ReplayDiffers(f"{len(changed)} of {total} decisions would be different today")


def _difference(each: Replayed) -> dict[str, Any]:
    then, now = each.record.decision, each.now
    return {
        "line": each.line,
        "wall_s": each.record.view.wall_s,
        "then": then.rule,
        "now": now.rule,
        "did_then": [in_words(action) for action in then.actions],
        "did_now": [in_words(action) for action in now.actions],
    }
