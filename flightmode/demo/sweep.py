"""Removing what dead runs left behind; living runs and kept ones stay as they are.

A run of a kind that is not known here belongs to another program, which sweeps it itself.

`python -m flightmode.demo.sweep` removes kept ones too: whoever types it means it.
"""

import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType

from flightmode.demo import loopback, namespaces
from flightmode.demo.record import Record, records

Kinds = Mapping[str, Callable[[Record], None]]
"""How a run of each kind is removed."""

TEAR_DOWN: Kinds = MappingProxyType(
    {"namespaces": namespaces.tear_down, "loopback": loopback.tear_down}
)


def dead_runs(*, kept_too: bool = False, kinds: Kinds = TEAR_DOWN) -> list[Record]:
    """The runs of those kinds whose process is gone."""
    return [
        record
        for record in records()
        if record.kind in kinds and record.dead and (kept_too or not record.kept)
    ]


def sweep(*, kept_too: bool = False, kinds: Kinds = TEAR_DOWN) -> list[Record]:
    """Remove the dead runs of those kinds, and return them.  May be repeated."""
    dead = dead_runs(kept_too=kept_too, kinds=kinds)
    for record in dead:
        kinds[record.kind](record)
    return dead


if __name__ == "__main__":
    for gone in sweep(kept_too=True):
        sys.stderr.write(f"removed what run {gone.run_id} had left\n")
