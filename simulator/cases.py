"""Plans that are kept: one JSON file each, run again for ever.

A seed's meaning changes with the code that draws plans; a plan written out does not.
"""

import json
from dataclasses import asdict
from pathlib import Path

from simulator.fault import Fault
from simulator.run import Plan
from simulator.weather import Weather

KEPT = Path(__file__).with_name("kept")


def kept() -> list[Path]:
    """The files of all plans that are kept, in the order of their names."""
    return sorted(KEPT.glob("*.json"))


def load(path: Path) -> Plan:
    """Raises KeyError or TypeError for a file that holds no plan."""
    told = json.loads(path.read_text())
    faults = tuple(Fault(**each) for each in told.pop("faults"))
    weather = Weather(**told.pop("weather"))
    told.pop("why", None)
    # Most were found before there was a fast path, and need the wait for the ttl.
    told.setdefault("fast", False)
    return Plan(weather=weather, faults=faults, **told)


def save(plan: Plan, name: str, why: str) -> Path:
    """Under that name, over what was there."""
    told = {"why": why, **asdict(plan)}
    told["faults"] = [_without_defaults(fault) for fault in plan.faults]
    path = KEPT / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(told, indent=1) + "\n")
    return path


def _without_defaults(fault: Fault) -> dict[str, object]:
    plain = asdict(Fault(fault.at_s, fault.kind))
    told = asdict(fault)
    return {key: told[key] for key in told if key in ("at_s", "kind") or told[key] != plain[key]}
