"""Putting a Decision together."""

from dataclasses import replace

from flightmode.model.action import Action
from flightmode.model.decision import Decision
from flightmode.model.memory import Memory
from flightmode.model.view import JobKind, View

SOON_S = 0.02
"""Something is about to be finished here: look again at once."""

IDLE_S = 0.5
"""Nothing is expected: the longest time between two looks."""


def answer(
    view: View,
    rule: str,
    why: str,
    *actions: Action,
    memory: Memory | None = None,
    wake_s: float = IDLE_S,
    problem: str | None = None,
) -> Decision:
    """A decision; the memory stays as it is unless another one is given."""
    return Decision(rule, why, actions, view.memory if memory is None else memory, wake_s, problem)


def before(decision: Decision, *actions: Action) -> Decision:
    """The decision with `actions` in front of its own."""
    return replace(decision, actions=(*actions, *decision.actions)) if actions else decision


def died_starting(view: View) -> str | None:
    """Postgres, seen stopped, was started less than `job_retry_s` ago in this term, and ended.

    A stop, a copy or a rewind of ours since then explains it otherwise.
    """
    started = view.result(JobKind.START)
    if started is None or started.error is not None or started.term != view.memory.term:
        return None
    ours = (JobKind.STOP, JobKind.CLONE, JobKind.REWIND)
    if any((result := view.result(kind)) and result.ended_s > started.ended_s for kind in ours):
        return None
    if view.now_s - started.ended_s >= view.policy.job_retry_s:
        return None
    return "FM612: Postgres was started and ended before it came up"


def recently_failed(view: View, *kinds: str) -> str | None:
    """The error of a job of these kinds that failed less than `job_retry_s` ago in this term."""
    for kind in kinds:
        result = view.result(kind)
        if (
            result is not None
            and result.error is not None
            and result.term == view.memory.term
            and view.now_s - result.ended_s < view.policy.job_retry_s
        ):
            return result.error
    return None
