"""What is kept when something broke: logs, journals, and what each node says of its decisions."""

import asyncio
import shutil
import sys
from pathlib import Path

from flightmode.demo.cluster import NODES, DemoCluster

_ASK_S = 15.0


async def keep_journals(cluster: DemoCluster, directory: Path) -> None:
    """Copy what each node saw, decided and did: a checker may find later what nobody saw."""
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    for name in NODES:
        state = cluster.directory / name / "state"
        if state.exists():
            await asyncio.to_thread(shutil.copytree, state, directory / name, dirs_exist_ok=True)


async def ask(cluster: DemoCluster, directory: Path) -> None:
    """What a person would ask a cluster that is stuck: `flightmode status`, `why`, and `ps`."""
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    toml = str(cluster.operator_toml())
    asked = [("status",), *(("why", "--node", name, "--count", "60") for name in NODES)]
    for words in asked:
        text = await _says([*words, "--config", toml])
        (directory / f"{'-'.join(words[:1] + words[2:3])}.txt").write_text(text)
    (directory / "processes.txt").write_text(
        await _run(["ps", "-eo", "pid,ppid,stat,wchan:20,args"])
    )


async def _says(words: list[str]) -> str:
    return await _run([sys.executable, "-m", "flightmode.cli.main", *words])


async def _run(argv: list[str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(_ASK_S):
            out, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return f"no answer within {_ASK_S:.0f} s\n"
    return out.decode(errors="replace")
