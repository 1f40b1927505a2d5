"""Plans and files as they come out, kept as texts beside this: `golden/CASE/…`.

A change of what a host gets is read there, in the diff.  `./dev golden` writes them anew.
"""

import difflib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from flightmode.config import Config, parse
from flightmode.config.edit import with_node_exchanged
from flightmode.config.schema import NodeSettings
from flightmode.model.member import NodeKind
from flightmode.provision.facts import Facts
from flightmode.provision.plan import Plan, Step, plan, summary
from flightmode.provision.rejoin import existing
from flightmode.provision.removal import removal
from flightmode.provision.turns import in_two, order
from flightmode.provision.wanted import ETC, Bundle, File, Wanted, wanted
from tests.unit.provision.test_plan import BARE, NOW_S, RELEASE, TEXT, done

HOME = Path(__file__).parent / "golden"
Texts = Mapping[str, str]
"""Path below `golden/CASE/` -> content."""


def bundle(text: str, certificate: str = "first") -> Bundle:
    files = {
        "flightmode.toml": text,
        "tls/ca.crt": "authority",
        "tls/node.crt": f"certificate, {certificate}",
        "tls/node.key": f"key, {certificate}",
        "secrets/app": "secret",
    }
    return Bundle({path: content.encode() for path, content in files.items()})


def hosts(text: str, certificate: str = "first") -> tuple[Config, dict[str, Wanted]]:
    """What all hosts of that flightmode.toml shall have."""
    config = parse(text, name="it")
    names = [*config.nodes, *config.provision.apps]
    return config, {name: wanted(config, name, bundle(text, certificate)) for name in names}


def planned(config: Config, want: Mapping[str, Wanted], facts: Mapping[str, Facts]) -> list[Plan]:
    return [plan(config, host, facts[name], RELEASE, NOW_S) for name, host in want.items()]


# ------------------------------------------------------------------------------ as texts


def told(config: Config, plans: Sequence[Plan], primary: str | None) -> str:
    """What a person is shown first, who restarts after whom, and every command."""
    restarts = {each.name for each in plans if in_two(each)[1].steps}
    turns = [name for name in order(config, primary) if name in restarts]
    head = [*(summary(list(plans)) or ["nothing to do"]), f"in turn: {', '.join(turns) or 'none'}"]
    return "\n".join([*head, "", *(line for each in plans for line in _host(each))])


def _host(each: Plan) -> list[str]:
    lines = [f"== {each.name}: {len(each.steps)} steps"]
    for number, step in enumerate(each.steps, start=1):
        marks = [name for name in ("in_turn", "meets", "last", "tells") if getattr(step, name)]
        mark = f"  [{', '.join(marks)}]" if marks else ""
        lines.append(f"{number:3}. {step.title}{mark}")
        lines += [f"       {line}".rstrip() for line in _command(step).splitlines()]
    return [*lines, ""]


def _command(step: Step) -> str:
    if step.files:
        return "\n".join(dict.fromkeys(map(_rights, step.files)))
    return "unpack the wheels" if step.release else step.command


def _rights(file: File) -> str:
    restarts = ", ".join(file.restarts) or "nobody"
    return f"{file.owned.mode:04o} {file.owned.owner}, read again by: {restarts}"


def written(want: Wanted) -> Texts:
    """The files that are made, and not those of the operator's directory."""
    made = [file for file in want.files if not _is_brought(file)]
    return {f"{want.name}{file.path}": file.content.decode() for file in made}


def _is_brought(file: File) -> bool:
    brought = ("flightmode.toml", "tls/", "etcd-tls/", "secrets/")
    return file.path.startswith(tuple(f"{ETC}/{path}" for path in brought))


# ------------------------------------------------------------------------------ the cases


def bare() -> Texts:
    """Three bare hosts and an application's: everything, and each file that is made."""
    config, want = hosts(TEXT)
    plans = planned(config, want, dict.fromkeys(want, BARE))
    files = {path: text for host in want.values() for path, text in written(host).items()}
    return {"plan.txt": told(config, plans, None), **files}


def nothing() -> Texts:
    """The same again, once all is there."""
    config, want = hosts(TEXT)
    plans = planned(config, want, {name: done(host) for name, host in want.items()})
    return {"plan.txt": told(config, plans, "ams")}


def _after_an_edit(text: str, *, certificate: str = "first", primary: str = "ams") -> Texts:
    _, had = hosts(TEXT)
    config, want = hosts(text, certificate)
    plans = planned(config, want, {name: done(had[name]) for name in want})
    return {"plan.txt": told(config, plans, primary)}


def setting() -> Texts:
    """A setting of PostgreSQL, while fra is the primary."""
    return _after_an_edit(f"{TEXT}\n[postgres.parameters]\nwork_mem = '7MB'\n", primary="fra")


def client() -> Texts:
    """One more network that may reach PostgreSQL."""
    return _after_an_edit(TEXT.replace('"fd00::/8"', '"fd00::/8", "10.9.0.0/16"'))


def certificates() -> Texts:
    """They end soon and are issued anew, by `certs renew` or `init --renew`."""
    return _after_an_edit(TEXT, certificate="second")


def node() -> Texts:
    """`node add ber=10.0.0.4`: the witness leaves, a bare host comes."""
    _, had = hosts(TEXT)
    settings = NodeSettings(kind=NodeKind.DATABASE, host="10.0.0.4")
    config, want = hosts(with_node_exchanged(TEXT, "wit", "ber", settings))
    ber = want["ber"]
    want["ber"] = replace(ber, files=(existing(0x2A), *ber.files))
    facts = {name: done(had[name]) if name in had else BARE for name in want}
    plans = planned(config, want, facts)
    return {
        "plan.txt": told(config, plans, "ams"),
        "leaves.txt": "\n".join(_host(removal(had["wit"], ""))),
    }


CASES: Mapping[str, Callable[[], Texts]] = {
    case.__name__: case for case in (bare, nothing, setting, client, certificates, node)
}


# --------------------------------------------------------------------------- kept, compared


def kept(case: str, home: Path = HOME) -> Texts:
    room = home / case
    files = [path for path in sorted(room.rglob("*")) if path.is_file()]
    return {str(path.relative_to(room)): path.read_text() for path in files}


def differences(case: str, made: Texts, home: Path = HOME) -> str:
    """As a diff; empty: none."""
    have = kept(case, home)
    lines: list[str] = []
    for path in sorted(have.keys() | made.keys()):
        before, after = have.get(path, ""), made.get(path, "")
        if path not in have or path not in made:
            lines.append(f"{case}/{path}: {'is not kept' if path not in have else 'is not made'}\n")
        lines += difflib.unified_diff(
            before.splitlines(keepends=True), after.splitlines(keepends=True), path, path
        )
    return "".join(lines)


def write(home: Path = HOME) -> None:
    """All of them anew; what no case makes any more goes."""
    shutil.rmtree(home, ignore_errors=True)
    for case, make in CASES.items():
        for path, text in make().items():
            (home / case / path).parent.mkdir(parents=True, exist_ok=True)
            (home / case / path).write_text(text)


if __name__ == "__main__":
    write()
