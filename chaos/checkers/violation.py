"""A broken promise, in words."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """What was promised (`promise`, one word for tables), and how it was broken."""

    promise: str
    story: str
