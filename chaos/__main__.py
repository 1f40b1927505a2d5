"""`python -m chaos`: faults by a seed on a real cluster, and the checkers over what was kept.

python -m chaos --minutes 10 --seed 7       torment, then check (root)
python -m chaos check DIRECTORY…            check kept histories again; needs nothing but them
python -m chaos sweep                       remove what killed and kept runs left
"""

import asyncio
import shlex
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import typer
from rich.console import Console

from chaos import disks, evidence
from chaos.checkers import Violation, judge
from chaos.clients import Clients
from chaos.history import History, Recorder, load
from chaos.lab import KIND, ChaosLab, tear_down
from chaos.nemeses import BY_NAME, Nemesis
from chaos.report import story, table, told
from chaos.run import TIMING, Run, Stage
from chaos.schedule import rounds
from flightmode.agent.clock import SystemClock
from flightmode.demo.cluster import APP, NODES, DemoCluster
from flightmode.demo.namespaces import NamespaceLab
from flightmode.demo.sweep import sweep
from flightmode.errors import FlightmodeError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_BIN = Path("/usr/lib/postgresql/15/bin")
_KEPT = Path(".flightmode/chaos")
_BROKEN, _CANNOT, _INTERRUPTED = 1, 2, 130
_KINDS = MappingProxyType({KIND: tear_down})
_FINAL_S = 60.0
_PAPER = 150
_SHOWN = 40


@app.callback(invoke_without_command=True)
def torment(
    context: typer.Context,
    minutes: Annotated[float, typer.Option(help="How long faults are begun.")] = 5.0,
    seed: Annotated[int, typer.Option(help="All that is done follows from it.")] = 1,
    only: Annotated[str, typer.Option(help="Kinds of faults, separated by commas.")] = "",
    count: Annotated[int, typer.Option(help="End after so many rounds; 0: by the clock.")] = 0,
    to: Annotated[Path | None, typer.Option(help="Where the history is kept.")] = None,
    postgres: Annotated[Path, typer.Option(help="Where initdb and postgres are.")] = _BIN,
    keep: Annotated[bool, typer.Option(help="Leave the cluster as it is at the end.")] = False,
) -> None:
    """Torment a real cluster, and check what its clients were told.

    Exit status: 0 every promise was kept; 1 one was broken; 2 this machine cannot; 130 interrupted.
    """
    if context.invoked_subcommand is not None:
        return
    console = Console() if sys.stdout.isatty() else Console(width=_PAPER)
    nemeses = _wanted(only, console)
    for gone in sweep(kinds=_KINDS):
        console.print(f"removed what an earlier run left: {gone.run_id}")
    missing = NamespaceLab.missing() or disks.missing()
    if missing is not None:
        console.print(f"chaos needs a machine that can do this: {missing}")
        sys.exit(_CANNOT)
    directory = to or _KEPT / f"seed-{seed}-{time.strftime('%H%M%S')}"
    torture = Torture(console, directory, nemeses, seed, minutes, count, postgres, keep=keep)
    try:
        asyncio.run(torture.interruptible())
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("interrupted; the history so far is kept")
        sys.exit(_INTERRUPTED)
    except FlightmodeError as error:
        console.print(f"[red]{error}[/red]", highlight=False)
        sys.exit(_BROKEN)
    sys.exit(_judged(console, [directory]))


@app.command()
def check(
    directories: Annotated[list[Path], typer.Argument(help="What runs kept.")],
) -> None:
    """Check kept histories, and show one table of all.  Exit status as of a run."""
    console = Console() if sys.stdout.isatty() else Console(width=_PAPER)
    sys.exit(_judged(console, directories))


@app.command("sweep")
def remove() -> None:
    """Remove what killed runs left, and kept ones too."""
    for gone in sweep(kept_too=True, kinds=_KINDS):
        print(f"removed what run {gone.run_id} had left", file=sys.stderr)


def _wanted(only: str, console: Console) -> dict[str, Nemesis]:
    names = [name.strip() for name in only.split(",") if name.strip()] or list(BY_NAME)
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        console.print(f"no such faults: {', '.join(unknown)}; there are {', '.join(BY_NAME)}")
        sys.exit(_CANNOT)
    return {name: BY_NAME[name] for name in names}


def _judged(console: Console, directories: list[Path]) -> int:
    histories = [load(directory) for directory in directories]
    console.print(table(histories))
    broken = 0
    for directory, history in zip(directories, histories, strict=True):
        violations = judge(history)
        broken += len(violations)
        console.print(f"{directory}: {told(history)}", highlight=False)
        _tell(console, directory, history, violations)
    console.print("every promise was kept" if not broken else f"[red]{broken} violations[/red]")
    return _BROKEN if broken else 0


def _tell(console: Console, directory: Path, history: History, violations: list[Violation]) -> None:
    if not violations:
        return
    text = story(history.rounds[-8:], violations[:_SHOWN])
    command = directory / "command.txt"
    again = command.read_text() if command.exists() else ""
    (directory / "failure.txt").write_text(f"{again}\n{text}")
    console.print(text, highlight=False, markup=False)
    console.print(f"to repeat it: {again.strip()}\nlogs and journals: {directory}", highlight=False)


class Torture:
    """One run from an empty machine to an empty machine."""

    def __init__(
        self,
        console: Console,
        directory: Path,
        nemeses: dict[str, Nemesis],
        seed: int,
        minutes: float,
        count: int,
        postgres: Path,
        *,
        keep: bool,
    ) -> None:
        self._console, self._directory = console, directory
        self._nemeses, self._seed, self._minutes, self._count = nemeses, seed, minutes, count
        self._postgres, self._keep = postgres, keep
        self._clock = SystemClock()
        self._began_s = self._clock.now_s()

    def say(self, text: str) -> None:
        """A line for people, with the seconds since the beginning."""
        elapsed_s = self._clock.now_s() - self._began_s
        self._console.print(f"{elapsed_s:7.1f}  {text}", highlight=False, markup=False)

    async def interruptible(self) -> None:
        """Ctrl-C, SIGTERM and a closed terminal: everything is taken down on the way out."""
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
        recorder = Recorder(self._directory)
        (self._directory / "command.txt").write_text(self._command() + self._zero())
        hosts = (*NODES, APP)
        try:
            async with ChaosLab(hosts, with_disks=NODES, logs=self._directory / "logs") as lab:
                if lab.clocks is None:
                    self.say("no C compiler here: clocks are left alone")
                    self._nemeses.pop("clock", None)
                if self._keep:
                    lab.keep()
                await self._torment(lab, recorder)
        finally:
            recorder.close()

    def _command(self) -> str:
        only = ",".join(self._nemeses) if len(self._nemeses) < len(BY_NAME) else ""
        argv = ["python", "-m", "chaos", f"--minutes={self._minutes:g}", f"--seed={self._seed}"]
        return shlex.join([*argv, *([f"--only={only}"] if only else [])]) + "\n"

    def _zero(self) -> str:
        """For whoever compares the history with a log: the two clocks side by side."""
        zero_s = self._clock.wall_s() - self._clock.now_s()
        zero = datetime.fromtimestamp(zero_s, UTC).isoformat(timespec="milliseconds")
        return f"# CLOCK_BOOTTIME 0 was {zero}\n"

    async def _torment(self, lab: ChaosLab, recorder: Recorder) -> None:
        async with DemoCluster(lab, self._postgres, timing=TIMING) as cluster:
            for name in NODES:
                await asyncio.to_thread(lab.disks.put_under, name, cluster.directory / name)
            self.say(f"starting three nodes; the history goes to {self._directory}")
            await cluster.start()
            await cluster.make_database()
            async with Clients(cluster, recorder, self._clock, self._seed) as clients:
                await clients.prepare()
                clients.start()
                stage = Stage(cluster, lab, clients, recorder, self._clock, self.say)
                whole = await self._rounds(Run(stage))
                if whole:
                    await clients.stop()
                    recorder.final(await clients.final(_FINAL_S))
                else:
                    await evidence.ask(cluster, self._directory / "nodes")
                await evidence.keep_journals(cluster, self._directory / "nodes")

    async def _rounds(self, run: Run) -> bool:
        """Whether the cluster is whole at the end."""
        await run.start()
        began_s = self._clock.now_s()
        try:
            for plan in rounds(self._seed, self._nemeses):
                done = await run.play(plan)
                if done.failure:
                    self.say(f"round {plan.number}: STUCK: {done.failure}")
                    return False
                self.say(f"round {plan.number}: whole after {done.heal_time_s:.1f} s")
                over = self._clock.now_s() - began_s > self._minutes * 60
                if plan.number == self._count or over:
                    return True
        finally:
            await run.stop()
        return True


if __name__ == "__main__":
    app()
