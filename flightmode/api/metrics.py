"""Every metric that a node exposes, in one table; docs/reference/metrics.md is made from it.

Values are taken from the agent's last look when somebody asks; nothing is counted in
between, so a scrape costs nothing but the text.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flightmode.api.face import AgentFace
from flightmode.decide.route import holds_primary, unwell
from flightmode.model.cluster import Mode
from flightmode.model.server import Run
from flightmode.model.view import View

Sample = tuple[tuple[str, ...], float]
Values = Callable[[View], Iterable[Sample]]


@dataclass(frozen=True, slots=True)
class Gauge:
    """One metric: its name, meaning, labels, and how it is read from a view."""

    name: str
    help: str
    values: Values
    labels: tuple[str, ...] = ()


def _one(value: float) -> tuple[Sample, ...]:
    return (((), float(value)),)


def _term(view: View) -> Iterable[Sample]:
    return () if view.store.state is None else _one(view.store.state.term)


def _leader(view: View) -> Iterable[Sample]:
    state = view.store.state
    return _one(state is not None and state.leader == view.me.name)


def _sync(view: View) -> Iterable[Sample]:
    state = view.store.state
    return () if state is None else _one(state.mode is Mode.SYNC)


def _paused(view: View) -> Iterable[Sample]:
    state = view.store.state
    return _one(state is not None and state.pause is not None)


def _run(view: View) -> Iterable[Sample]:
    return (((run.value,), float(view.server.run is run)) for run in Run)


def _replicas(view: View) -> Iterable[Sample]:
    for row in view.server.replicas:
        yield (row.name,), float(max(int(view.server.position) - int(row.flushed), 0))


def _slots(view: View) -> Iterable[Sample]:
    for slot in view.server.slots:
        yield (slot.name,), float(slot.wal_status == "lost")


def _fence_left(view: View) -> Iterable[Sample]:
    fence = view.fence
    if not fence.reachable or fence.lifted or fence.deadline_s is None:
        return ()
    return _one(fence.deadline_s - view.now_s)


def _silence(view: View) -> Iterable[Sample]:
    for seen in view.store.members:
        if seen.changed_s >= 0:
            yield (seen.member.name,), max(view.now_s - seen.changed_s, 0.0)


GAUGES: Final = (
    Gauge("flightmode_term", "The term that this node has seen last.", _term),
    Gauge("flightmode_leader", "1 while the cluster's state names this node.", _leader),
    Gauge(
        "flightmode_primary",
        "1 while this node holds the term and accepts writes: what /primary answers.",
        lambda view: _one(holds_primary(view)),
    ),
    Gauge(
        "flightmode_healthy",
        "1 while this node does its part: what /health answers.",
        lambda view: _one(unwell(view) is None),
    ),
    Gauge("flightmode_sync", "1 while every commit is held by a second node.", _sync),
    Gauge("flightmode_paused", "1 while the cluster is paused.", _paused),
    Gauge("flightmode_postgres_run", "1 for the state of the local Postgres.", _run, ("state",)),
    Gauge(
        "flightmode_postgres_position_bytes",
        "How far the local WAL goes.",
        lambda view: _one(view.server.position),
    ),
    Gauge(
        "flightmode_postgres_replayed_bytes",
        "How far the local standby has replayed.",
        lambda view: _one(view.server.replayed),
    ),
    Gauge(
        "flightmode_replica_lag_bytes",
        "On the primary: WAL that a standby has not flushed yet.",
        _replicas,
        ("replica",),
    ),
    Gauge(
        "flightmode_slot_lost", "1 for a slot whose WAL is gone: it re-clones.", _slots, ("slot",)
    ),
    Gauge(
        "flightmode_postgres_pending_restart",
        "Settings that wait for a restart of Postgres.",
        lambda view: _one(len(view.server.pending_restart)),
    ),
    Gauge(
        "flightmode_disk_free_ratio",
        "Free part of the data directory's file system.",
        lambda view: _one(view.server.disk_free),
    ),
    Gauge(
        "flightmode_store_reachable",
        "1 while etcd answers.",
        lambda view: _one(view.store.reachable),
    ),
    Gauge(
        "flightmode_fence_reachable",
        "1 while the fence answers.",
        lambda view: _one(view.fence.reachable),
    ),
    Gauge(
        "flightmode_fence_seconds_left",
        "How long the fence still lets Postgres lead; absent while it has no deadline.",
        _fence_left,
    ),
    Gauge(
        "flightmode_member_silent_seconds",
        "Since when a member has not changed what it says of itself.",
        _silence,
        ("member",),
    ),
)

LOOP_AGE: Final = "flightmode_loop_age_seconds"
LOOP_AGE_HELP: Final = "Since when the agent has not looked: more than a few seconds is a fault."
DROPPED: Final = "flightmode_journal_dropped"
DROPPED_HELP: Final = (
    "Decisions that could not be written into the journal since the agent began: "
    "its disk is full, or stands still."
)
PROBLEM: Final = "flightmode_problem"
PROBLEM_HELP: Final = "1 while a person is needed; the label is the code of the error."


class _AgentCollector(Collector):
    def __init__(self, face: AgentFace) -> None:
        self._face = face

    def collect(self) -> Iterator[Metric]:
        view, decision = self._face.view, self._face.decision
        if view is None:
            return
        yield GaugeMetricFamily(LOOP_AGE, LOOP_AGE_HELP, self._face.now_s() - view.now_s)
        yield GaugeMetricFamily(DROPPED, DROPPED_HELP, float(self._face.dropped))
        for gauge in GAUGES:
            family = GaugeMetricFamily(gauge.name, gauge.help, labels=gauge.labels)
            for labels, value in gauge.values(view):
                family.add_metric(labels, value)
            yield family
        problem = GaugeMetricFamily(PROBLEM, PROBLEM_HELP, labels=("code",))
        if decision is not None and decision.problem is not None:
            problem.add_metric((decision.problem.partition(":")[0],), 1.0)
        yield problem


class Metrics:
    """A registry of its own: nothing of the process or of other libraries mixes in."""

    def __init__(self, face: AgentFace) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_AgentCollector(face))

    def text(self) -> bytes:
        """In Prometheus' text format 0.0.4."""
        return generate_latest(self._registry)


def reference() -> str:
    """docs/reference/metrics.md."""
    rows = [(gauge.name, ", ".join(gauge.labels), gauge.help) for gauge in GAUGES]
    rows += [(LOOP_AGE, "", LOOP_AGE_HELP), (DROPPED, "", DROPPED_HELP)]
    rows += [(PROBLEM, "code", PROBLEM_HELP)]
    table = "\n".join(f"| `{name}` | {labels} | {text} |" for name, labels, text in sorted(rows))
    return (
        "# Metrics\n\n"
        "<!-- Made by `python -m flightmode.cli.reference`; not edited by hand. -->\n\n"
        "Each node answers `https://node:8008/metrics` in Prometheus' text format. "
        "All of them are gauges.\n\n"
        "| name | labels | meaning |\n|---|---|---|\n"
        f"{table}\n"
    )
