"""docs/tutorial/three-servers.md as somebody follows it: its commands, as they stand on the page.

The story in test_three_servers.py names each line of the page and types it here; the examples of
the page give way to what the test has.  tests/house/test_tutorial.py holds that no command of the
page is left out, without a host.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import tomlkit

from tests.hosts.machines import APP, Founder, Ran

PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "three-servers.md"
PROGRAMS = ("flightmode", "runuser")
ELSEWHERE = {"./dev hosts-test": "runs this very test"}
"""Commands that are named in a sentence and not typed: why."""
SHOWN = ("ams is primary ",)
"""How a block begins that is neither a command nor a part of flightmode.toml: what is printed."""

_BLOCK = re.compile(r"^```\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"`((?:flightmode|runuser|\./dev) [^`]+)`")


def blocks(text: str) -> list[str]:
    return _BLOCK.findall(text)


def settings(text: str) -> list[str]:
    """The parts of flightmode.toml on the page."""
    return [block for block in blocks(text) if block.startswith("[")]


def commands(text: str) -> list[str]:
    """Each command of the page once, in its order.

    Raises ValueError: a block is of no known kind.
    """
    found: list[tuple[int, str]] = []
    for match in _BLOCK.finditer(text):
        lines = match[1].splitlines()
        typed = [line for line in lines if line.partition(" ")[0] in PROGRAMS]
        if typed and typed != lines:
            raise ValueError(f"a block is typed in part only:\n{match[1]}")
        if not typed and not match[1].startswith(("[", *SHOWN)):
            raise ValueError(f"is this typed, or shown?\n{match[1]}")
        found += [(match.start(), line) for line in typed]
    prose = _BLOCK.sub(lambda match: " " * len(match[0]), text)
    found += [(m.start(), m[1]) for m in _NAMED.finditer(prose) if m[1] not in ELSEWHERE]
    return list(dict.fromkeys(line for _, line in sorted(found)))


class Page:
    """The page in the hands of a founder."""

    def __init__(self, me: Founder) -> None:
        self._me, self._text = me, PAGE.read_text()
        self.left = commands(self._text)
        """What was not typed yet."""
        address = {name: machine.address for name, machine in me.hosts.machines.items()}
        self._examples = {
            "cluster/flightmode.toml": str(me.toml),
            "cluster": str(me.home),
            "10.0.0.1": address["ams"],
            "10.0.0.2": address["fra"],
            "10.0.0.3": address["wit"],
            "10.0.0.9": address[APP],
            "/home/you/.ssh/id_ed25519": str(me.hosts.key),
            "shop": "ledger",
        }

    def types(self, line: str, examples: Mapping[str, str] | None = None) -> Ran:
        """On the founder's own machine; it went well."""
        program, *words = shlex.split(self._ours(line, examples))
        assert program == "flightmode"
        if words[0] == "config":
            # In a sentence it is named without saying which file.
            words += ["--config", str(self._me.toml)]
        ran = self._me.types(*words)
        assert ran.status == 0, ran.out
        return ran

    def answers(self, line: str, said: str) -> Ran:
        """The same for one that asks something."""
        program, *words = shlex.split(self._ours(line, None))
        assert program == "flightmode"
        argv = [sys.executable, "-m", "flightmode.cli.main", *words]
        done = subprocess.run(
            argv, input=f"{said}\n", capture_output=True, text=True, timeout=300, cwd="/"
        )
        print(f"$ {line}\n{said}\n{done.stdout}{done.stderr}-> {done.returncode}")
        return Ran(done.returncode, done.stdout, 0.0)

    def on_primary(self, line: str) -> str:
        """As root there."""
        return self._me.hosts.ssh(self._me.primary, self._ours(line, None))

    def describes(self) -> None:
        """What the page has for flightmode.toml: a line that is uncommented, a table at its end."""
        (text,) = settings(self._text)
        provision = tomlkit.parse(self._in_place(text, {})).unwrap()["provision"]
        assert provision.keys() == {"ssh_key", "apps"}, "the page says more than is done here"
        self._me.edits("#ssh_key = …", f'ssh_key = "{provision["ssh_key"]}"')
        apps = tomlkit.dumps({"provision": {"apps": provision["apps"]}})
        self._me.toml.write_text(f"{self._me.toml.read_text()}\n{apps}")

    def _ours(self, line: str, examples: Mapping[str, str] | None) -> str:
        assert line in commands(self._text), f"{line}: not on the page"
        if line in self.left:
            self.left.remove(line)
        return self._in_place(line, examples or {})

    def _in_place(self, text: str, examples: Mapping[str, str]) -> str:
        table = {**self._examples, **examples}
        longest = sorted(table, key=len, reverse=True)
        return re.sub("|".join(map(re.escape, longest)), lambda match: table[match[0]], text)
