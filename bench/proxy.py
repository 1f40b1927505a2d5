"""What our proxy costs, beside PgBouncer: one run, one machine, taking turns.

    ./dev bench proxy [--rounds 5] [--seconds 3] [--pgbouncer PATH] [--only cost,tps,…] [--quick]

Every figure of every contestant is taken once in each round, in an order that changes from
round to round.  A cell shows the median and, in brackets, the least and the most of the
rounds; a ratio is the median of the ratios within a round.  `--pgbouncer` names a second
PgBouncer, built from its newest source (the one of Debian has no prepared statements).
"""

import datetime
import ssl
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import proxy_load as load
import typer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from proxy_bed import BIN, Server, give, room
from proxy_peers import PGBOUNCER, Flightmode, Front, Peer, PgBouncer
from rich.console import Console
from rich.table import Table

MODES = ("simple", "extended", "prepared")
GROUPS = ("latency", "tps", "fairness", "syscalls", "logins", "idle")
OURS, OLD, NEW, DIRECT = "Flightmode", "PgBouncer 1.18", "PgBouncer HEAD", "direct"


@dataclass(frozen=True)
class Goal:
    """What a figure has to be; a limit is a factor to PgBouncer unless it is absolute."""

    limit: float
    least: bool = False
    absolute: bool = False

    def __str__(self) -> str:
        return f"{'>=' if self.least else '<='} {'' if self.absolute else 'x '}{self.limit:g}"


LESS, MORE = Goal(1.0), Goal(1.0, least=True)
Figures = dict[str, dict[str, list[float]]]
"""Of each figure and contestant, one number a round."""


@dataclass
class Plan:
    """How long, how many, and what was found."""

    seconds: float
    clients: int
    idle: int
    transactions: int
    goals: dict[str, Goal] = field(default_factory=dict)
    found: Figures = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))

    def note(self, figure: str, goal: Goal | None, peer: str, number: float) -> None:
        if goal is not None:
            self.goals[figure] = goal
        self.found[figure][peer].append(number)
        print(f"  {peer:16s} {figure}: {number:.2f}", file=sys.stderr)


@dataclass(frozen=True)
class Bed:
    """Where it happens."""

    base: Path
    server: Server
    front: Front
    makers: dict[str, Callable[[Front], Peer]]

    @contextmanager
    def running(self, name: str, *, tls: bool = False) -> Iterator[Peer]:
        peer = self.makers[name](replace(self.front, tls=tls))
        try:
            peer.start()
            yield peer
        finally:
            peer.stop()


def main(
    rounds: Annotated[int, typer.Option(min=1, max=50)] = 5,
    seconds: Annotated[float, typer.Option(min=1, max=60)] = 3,
    pgbouncer: Annotated[Path | None, typer.Option(help="A newer one.")] = None,
    only: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(GROUPS),
    ours: Annotated[bool, typer.Option(help="With Flightmode.")] = True,
    quick: Annotated[bool, typer.Option(help="Small numbers: does it work at all?")] = False,
) -> None:
    """Latency, CPU, throughput, fairness, memory and logins beside PgBouncer."""
    plan = Plan(seconds, clients=1000, idle=5000, transactions=2000)
    if quick:
        rounds, plan = 1, Plan(1, clients=100, idle=200, transactions=300)
    groups = [name.strip() for name in only.split(",")]
    with _bed(pgbouncer, ours) as bed:
        _measure(bed, plan, groups, rounds)
    Console(width=None if sys.stdout.isatty() else 200).print(_table(plan))


@contextmanager
def _bed(newer: Path | None, ours: bool) -> Iterator[Bed]:
    makers: dict[str, Callable[[Front], Peer]] = {OLD: lambda front: PgBouncer(front, name=OLD)}
    if newer is not None:
        makers[NEW] = lambda front: PgBouncer(front, program=newer, name=NEW)
    if ours:
        makers[OURS] = Flightmode
    if not PGBOUNCER.exists():
        raise SystemExit("PgBouncer is not installed: ./dev bench proxy installs it")
    with room("fm-bench-") as base, ExitStack() as stack:
        make_certificate(base)
        server = Server(base, "ams")
        server.create()
        stack.callback(server.kill)
        server.start()
        _fill(server)
        secrets = {"postgres": load.Keys.of(load.PASSWORD).secret(), "admin": "admin"}
        front = Front(base, {"ams": server.port}, "ams", secrets=secrets)
        yield Bed(base, server, front, makers)


def _fill(server: Server) -> None:
    address = ["-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", "postgres"]
    subprocess.run([BIN / "pgbench", "-q", "-i", *address], check=True, capture_output=True)


def make_certificate(base: Path) -> None:
    """One for localhost, of its own making, as `server.crt` and `server.key`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (base / "server.crt").write_bytes(made.public_bytes(pem))
    (base / "server.key").touch(mode=0o600)
    (base / "server.key").write_bytes(secret)
    for path in (base / "server.crt", base / "server.key"):
        give(path)


def _measure(bed: Bed, plan: Plan, groups: list[str], rounds: int) -> None:
    names = list(bed.makers)
    with ExitStack() as stack:
        plain = {name: stack.enter_context(bed.running(name)) for name in names}
        for turn in range(rounds):
            print(f"round {turn + 1} of {rounds}", file=sys.stderr)
            order = names[turn % len(names) :] + names[: turn % len(names)]
            peers = {name: plain[name] for name in order}
            for group in groups:
                STEPS[group](bed, plan, peers)


def _latency(bed: Bed, plan: Plan, peers: dict[str, Peer]) -> None:
    """One client.  Prepared where it can be: the cheapest transaction shows the proxy best."""
    for mode in ("simple", "prepared"):
        name = f"added p50, 1 client, {mode} (us)"
        direct = _p50(bed, plan, bed.server.port, [], mode)
        plan.note(f"p50, 1 client, {mode} (us)", None, DIRECT, direct)
        for peer in _able(peers, mode):
            there = peers[peer]
            added = _p50(bed, plan, there.port, there.pids, mode) - direct
            plan.note(name, LESS, peer, added)


def _p50(bed: Bed, plan: Plan, port: int, pids: list[int], mode: str) -> float:
    run = load.pgbench(
        port, pids, mode=mode, clients=1, seconds=plan.seconds, log_in=bed.base / "."
    )
    return statistics.median(run.latencies_us)


def _able(peers: dict[str, Peer], mode: str) -> list[str]:
    return [name for name in peers if not (mode == "prepared" and name == OLD)]


def _tps(bed: Bed, plan: Plan, peers: dict[str, Peer]) -> None:
    for mode in MODES:
        for clients in (8, 64):
            direct = load.pgbench(
                bed.server.port, [], mode=mode, clients=clients, seconds=plan.seconds
            )
            plan.note(f"tps, {clients} clients, {mode}", MORE, DIRECT, direct.tps)
            for name in _able(peers, mode):
                there = peers[name]
                run = load.pgbench(
                    there.port, there.pids, mode=mode, clients=clients, seconds=plan.seconds
                )
                plan.note(f"tps, {clients} clients, {mode}", MORE, name, run.tps)
                figure = f"CPU per transaction, {clients} clients, {mode} (us)"
                plan.note(figure, LESS, name, run.cpu_us)


def _fairness(bed: Bed, plan: Plan, peers: dict[str, Peer]) -> None:
    for name, there in peers.items():
        run = load.pgbench(
            there.port,
            there.pids,
            mode="simple",
            clients=plan.clients,
            seconds=plan.seconds * 2,
            log_in=bed.base / ".",
        )
        p50, p99 = (load.quantile(run.latencies_us, share) for share in (0.5, 0.99))
        plan.note(f"p99 / p50, {plan.clients} clients", Goal(1.5, absolute=True), name, p99 / p50)
        plan.note(f"p50, {plan.clients} clients (ms)", LESS, name, p50 / 1e3)


def _syscalls(bed: Bed, plan: Plan, peers: dict[str, Peer]) -> None:
    for clients, goal in ((1, 6.5), (64, 5.5)):
        for name in _able(peers, "prepared"):
            there = peers[name]
            total = plan.transactions * (1 if clients == 1 else 4)
            count = load.syscalls_per_transaction(
                there.port, there.pids[0], transactions=total, clients=clients
            )
            figure = f"system calls per transaction, {clients} client{'s' * (clients > 1)}"
            plan.note(figure, Goal(goal, absolute=True), name, count)


def _logins(bed: Bed, plan: Plan, peers: dict[str, Peer]) -> None:
    for name in peers:
        with bed.running(name, tls=True) as there:
            load.logins(there.port, there.pids, trusting(), seconds=1)
            rate, cpu_us = load.logins(there.port, there.pids, trusting(), seconds=plan.seconds)
        plan.note("logins per second, SCRAM and TLS", Goal(1.5, least=True), name, rate)
        plan.note("CPU per login (us)", LESS, name, cpu_us)


def _idle(bed: Bed, plan: Plan, peers: dict[str, Peer]) -> None:
    """Once a run: memory does not depend on how busy the machine is."""
    for kind, tls, limit in (("plain", None, 2048.0), ("TLS", trusting(), 12 * 1024.0)):
        figure = f"memory per idle client of {plan.idle}, {kind} (bytes)"
        for name in peers:
            if plan.found[figure][name]:
                continue
            with bed.running(name, tls=tls is not None) as there:
                with load.idle_clients(there.port, 1, tls):
                    before = load.rss_bytes(there.pids)
                with load.idle_clients(there.port, plan.idle, tls):
                    after = load.settled_rss_bytes(there.pids)
            plan.note(figure, Goal(limit, absolute=True), name, (after - before) / plan.idle)


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


STEPS = {
    "latency": _latency,
    "tps": _tps,
    "fairness": _fairness,
    "syscalls": _syscalls,
    "logins": _logins,
    "idle": _idle,
}


# ------------------------------------------------------------------ what is printed


def _table(plan: Plan) -> Table:
    table = Table(title="the proxy beside PgBouncer", title_justify="left")
    table.add_column("figure")
    shown = [name for name in (DIRECT, OLD, NEW, OURS) if any(name in f for f in _rows(plan))]
    for heading in ("goal", *shown, "ratio to 1.18", "ratio to HEAD", "met"):
        table.add_column(heading, justify="right")
    for figure, numbers in plan.found.items():
        goal = plan.goals.get(figure)
        cells = [_cell(numbers.get(name, [])) for name in shown]
        ratios = [_ratios(numbers, other) for other in (OLD, NEW)]
        met = _met(goal, numbers, ratios)
        table.add_row(figure, str(goal or ""), *cells, *map(_cell, ratios), met)
    return table


def _rows(plan: Plan) -> list[list[str]]:
    return [list(numbers) for numbers in plan.found.values()]


def _ratios(numbers: dict[str, list[float]], other: str) -> list[float]:
    ours, theirs = numbers.get(OURS, []), numbers.get(other, [])
    return [a / b for a, b in zip(ours, theirs, strict=False) if b > 0]


def _cell(figures: list[float]) -> str:
    if not figures:
        return "-"
    middle = statistics.median(figures)
    digits = 0 if middle >= 1000 else 1 if middle >= 20 else 2
    if len(figures) == 1:
        return f"{middle:.{digits}f}"
    return f"{middle:.{digits}f} ({min(figures):.{digits}f}-{max(figures):.{digits}f})"


def _met(goal: Goal | None, numbers: dict[str, list[float]], ratios: list[list[float]]) -> str:
    """A ratio has to be met against each PgBouncer that took part."""
    held = [numbers.get(OURS, [])] if goal and goal.absolute else ratios
    reached = [statistics.median(figures) for figures in held if figures]
    if goal is None or not reached:
        return ""
    if goal.least:
        return "yes" if min(reached) >= goal.limit else "no"
    return "yes" if max(reached) <= goal.limit else "no"


if __name__ == "__main__":
    typer.run(main)
