"""How unkind this run's world is: chances and durations, drawn from the seed."""

from dataclasses import dataclass
from random import Random


@dataclass
class Weather:
    """Chances are per act."""

    promote_slow: float = 0.0
    """A promotion takes seconds instead of a moment."""
    recovery_slow: float = 0.0
    """A start takes seconds."""
    start_fails: float = 0.0
    copy_fails: float = 0.0
    """A clone or a rewind breaks off."""
    copy_slow_s: float = 1.0
    linger_s: float = 0.05
    """So long, at most, a WAL receiver outlives its configuration."""
    reload_s: float = 0.02
    """So long, at most, a process takes to notice a changed setting …"""
    checkpointer_busy: float = 0.0
    """… and this often the checkpointer takes seconds."""
    orphans: float = 0.0
    """A child of a killed postmaster stays until it is killed itself."""
    slow_flush: float = 0.0
    """A flush takes a second."""
    drift: float = 0.0
    """Clocks go wrong by up to this part."""


def fair() -> Weather:
    """Nothing goes wrong by itself."""
    return Weather()


def drawn(dice: Random) -> Weather:
    """Some runs are kind, so that the rare things are also met in good weather."""

    def chance(most: float) -> float:
        return dice.choice((0.0, 0.0, most / 4, most))

    return Weather(
        promote_slow=chance(0.5),
        recovery_slow=chance(0.5),
        start_fails=chance(0.2),
        copy_fails=chance(0.5),
        copy_slow_s=dice.choice((0.3, 1.0, 6.0)),
        linger_s=dice.choice((0.05, 0.2, 0.6)),
        reload_s=dice.choice((0.005, 0.02, 0.2)),
        checkpointer_busy=chance(0.4),
        orphans=chance(0.5),
        slow_flush=chance(0.01),
        drift=dice.choice((0.0, 0.001, 0.02)),
    )
