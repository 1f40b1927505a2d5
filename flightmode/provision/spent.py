"""Where the time of a run went: what Debian's packages took, and what is ours.  Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flightmode.provision.apply import Progress


@dataclass(frozen=True, slots=True)
class Spent:
    """The stretches of a run, one after the other; together they are all of it."""

    making_s: float
    """Looking at the hosts, and making the wheels that they get."""
    packages_s: float
    """While at least one host installed Debian's packages: a mirror's time and dpkg's, not ours."""
    steps_s: float
    """The rest of the steps."""
    settling_s: float
    """After the last step, until the cluster was whole."""

    @property
    def all_s(self) -> float:
        return self.ours_s + self.packages_s

    @property
    def ours_s(self) -> float:
        return self.making_s + self.steps_s + self.settling_s

    def __str__(self) -> str:
        parts = f"{self.making_s:.0f} s to look and make the wheels, {self.steps_s:.0f} s in steps"
        return (
            f"{self.packages_s:.0f} s for Debian's packages, {self.ours_s:.0f} s for the rest "
            f"({parts}, {self.settling_s:.0f} s until all was whole)"
        )

    def as_json(self) -> Mapping[str, float]:
        seconds = {
            "making_s": self.making_s,
            "packages_s": self.packages_s,
            "steps_s": self.steps_s,
            "settling_s": self.settling_s,
            "ours_s": self.ours_s,
        }
        return {name: round(value, 1) for name, value in seconds.items()}


def spent(
    steps: Iterable[Progress], *, began_s: float, stepped_s: float, settled_s: float, ended_s: float
) -> Spent:
    """From the steps that were told of, and when the run began, took its first step, had taken its
    last one, and ended: all by the clock of `Progress`."""
    ended = [step for step in steps if step.ended and step.debian]
    packages_s = covered_s((step.ended_s - step.took_s, step.ended_s) for step in ended)
    return Spent(
        stepped_s - began_s, packages_s, settled_s - stepped_s - packages_s, ended_s - settled_s
    )


def covered_s(stretches: Iterable[tuple[float, float]]) -> float:
    """How long at least one of them lasted: hosts work side by side."""
    covered_s, until_s = 0.0, float("-inf")
    for began_s, ended_s in sorted(stretches):
        covered_s += max(0.0, ended_s - max(began_s, until_s))
        until_s = max(until_s, ended_s)
    return covered_s
