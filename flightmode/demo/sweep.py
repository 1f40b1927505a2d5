"""Removing what dead runs left behind; living runs and kept ones stay as they are.

`python -m flightmode.demo.sweep` removes kept ones too: whoever types it means it.
"""

import sys

from flightmode.demo import loopback, namespaces
from flightmode.demo.record import Record, records

TEAR_DOWN = {"namespaces": namespaces.tear_down, "loopback": loopback.tear_down}


def dead_runs(*, kept_too: bool = False) -> list[Record]:
    """The runs whose process is gone."""
    return [record for record in records() if record.dead and (kept_too or not record.kept)]


def sweep(*, kept_too: bool = False) -> list[Record]:
    """Remove the dead runs, and return them.  May be repeated."""
    dead = dead_runs(kept_too=kept_too)
    for record in dead:
        TEAR_DOWN[record.kind](record)
    return dead


if __name__ == "__main__":
    for gone in sweep(kept_too=True):
        sys.stderr.write(f"removed what run {gone.run_id} had left\n")
