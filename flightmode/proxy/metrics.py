"""What the proxy exposes for Prometheus, made from the data path's own counts when asked."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

_POOL = ("database", "user")
_CLIENTS = {"active": "clients_active", "idle": "clients_idle", "waiting": "clients_waiting"}
_SERVERS = {"active": "servers_active", "idle": "servers_idle", "login": "servers_login"}
_COUNTED = {
    "transactions": "Transactions that ended.",
    "queries": "Statements and groups that were answered.",
    "received_bytes": "Bytes that clients sent.",
    "sent_bytes": "Bytes that clients were sent.",
    "notifications": "Notifications that servers sent, each once for all who listen.",
    "notifications_sent": "Notifications that clients were sent.",
    "listen_gaps": "Clients that may have missed some, for the connection that listens was lost.",
}
_MEASURED = {
    "listeners": "Connections that listen for clients.",
    "listened_channels": "Channels that clients listen to by them.",
    "listening_clients": "Clients that listen by them.",
}
_TIMED = {
    "waits": ("flightmode_proxy_wait_seconds", "How long clients waited for a server.", "wait_s"),
    "lasted": (
        "flightmode_proxy_transaction_seconds",
        "How long transactions took.",
        "transaction_s",
    ),
}


class ProxyCollector(Collector):
    """Asks for the counts at each scrape; `stats` answers in JSON."""

    def __init__(self, stats: Callable[[], str]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        seen: dict[str, Any] = json.loads(self._stats())
        yield from _of_all(seen)
        pools = seen["pools"]
        yield _states("flightmode_proxy_clients", "Clients by what they do.", pools, _CLIENTS)
        yield _states("flightmode_proxy_servers", "Servers by what they do.", pools, _SERVERS)
        for key, meaning in _COUNTED.items():
            counter = CounterMetricFamily(f"flightmode_proxy_{key}", meaning, labels=_POOL)
            for pool in pools:
                counter.add_metric(_pool(pool), pool[key])
            yield counter
        for key, meaning in _MEASURED.items():
            gauge = GaugeMetricFamily(f"flightmode_proxy_{key}", meaning, labels=_POOL)
            for pool in pools:
                gauge.add_metric(_pool(pool), pool[key])
            yield gauge
        for key in _TIMED:
            yield _histogram(seen, key)


def _of_all(seen: dict[str, Any]) -> Iterator[Metric]:
    topology, holds = seen["topology"], seen["holds"]
    has_primary = topology["primary"] is not None and not topology["fenced"]
    for name, meaning, value in (
        ("term", "The term that it goes by.", topology["term"]),
        ("has_primary", "1: somebody takes writes as far as it knows.", has_primary),
        ("held_clients", "Clients that wait for a primary now.", holds["now"]),
        ("longest_hold_seconds", "The longest that a client was held.", holds["longest_s"]),
        ("memory_bytes", "What it keeps for clients and servers.", seen["memory_bytes"]),
        ("draining", "1: nobody is let in any more.", seen["draining"]),
    ):
        yield GaugeMetricFamily(f"flightmode_proxy_{name}", meaning, float(value))
    for name, meaning, value in (
        ("holds_resumed", "Clients that were held and went on.", holds["resumed"]),
        ("holds_expired", "Clients that were held for too long.", holds["expired"]),
        ("logins", "Clients that were let in.", seen["logins"]["accepted"]),
    ):
        yield CounterMetricFamily(f"flightmode_proxy_{name}", meaning, float(value))
    refused = CounterMetricFamily(
        "flightmode_proxy_logins_refused", "Clients that were not let in.", labels=("sqlstate",)
    )
    for sqlstate, count in seen["logins"]["refused"].items():
        refused.add_metric((sqlstate,), count)
    yield refused


def _states(
    name: str, meaning: str, pools: list[dict[str, Any]], states: dict[str, str]
) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(name, meaning, labels=(*_POOL, "state"))
    for pool in pools:
        for state, key in states.items():
            gauge.add_metric((*_pool(pool), state), pool[key])
    return gauge


def _histogram(seen: dict[str, Any], key: str) -> HistogramMetricFamily:
    name, meaning, total = _TIMED[key]
    family = HistogramMetricFamily(name, meaning, labels=_POOL)
    limits = [*(f"{bound:g}" for bound in seen["bounds_s"]), "+Inf"]
    for pool in seen["pools"]:
        buckets: list[tuple[str, float]] = []
        so_far = 0
        for limit, count in zip(limits, pool[key]["counts"], strict=True):
            so_far += count
            buckets.append((limit, so_far))
        family.add_metric(_pool(pool), buckets, pool[total])
    return family


def _pool(pool: dict[str, Any]) -> tuple[str, str]:
    return pool["database"], pool["user"]


def registry(stats: Callable[[], str]) -> CollectorRegistry:
    """A registry of the proxy's metrics alone."""
    made = CollectorRegistry()
    made.register(ProxyCollector(stats))
    return made


_ONE_POOL: dict[str, Any] = {
    "topology": {"primary": None, "fenced": False, "term": 0},
    "holds": {"now": 0, "longest_s": 0.0, "resumed": 0, "expired": 0},
    "memory_bytes": 0,
    "draining": False,
    "logins": {"accepted": 0, "refused": {"28P01": 0}},
    "bounds_s": [],
    "pools": [
        {"database": "", "user": ""}
        | dict.fromkeys((*_CLIENTS.values(), *_SERVERS.values(), *_COUNTED, *_MEASURED), 0)
        | {key: {"counts": [0]} for key in _TIMED}
        | {total: 0.0 for _, _, total in _TIMED.values()}
    ],
}
"""As the data path tells it of a proxy with one pool: each metric is there once."""


def reference() -> str:
    """The proxy's part of docs/reference/metrics.md."""
    rows = []
    for family in ProxyCollector(lambda: json.dumps(_ONE_POOL)).collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found = {label for sample in family.samples for label in sample.labels} - {"le"}
        labels = ", ".join(sorted(found))
        rows.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    table = "\n".join(sorted(rows))
    return (
        "\n## Of the proxy\n\n"
        "With `proxy.metrics_port`, a proxy answers `http://127.0.0.1:PORT/metrics` on its own "
        "machine.\n\n"
        "| name | type | labels | meaning |\n|---|---|---|---|\n"
        f"{table}\n"
    )
