"""The verbs that need no cluster: init, check, why, replay, logs, fence, agent."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from socket import AF_INET, AF_INET6

import psutil
import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from flightmode.agent.journal import FileJournal, Record
from flightmode.agent.replay import records
from flightmode.cli.commands.failover import explained
from flightmode.cli.commands.logs import log_file
from flightmode.cli.commands.pause import seconds
from flightmode.cli.fencing import fence_argv
from flightmode.cli.options import Place, place
from flightmode.cli.show import duration, size, status_view
from flightmode.config import parse
from flightmode.decide import decide
from flightmode.errors import NodeUnnamed, RequestWrong
from flightmode.model.action import Admit
from flightmode.model.lsn import NOWHERE
from flightmode.pki import Authority, check_certificate
from flightmode.store import codec
from tests.unit.commands import flightmode
from tests.unit.sights import view

Capsys = pytest.CaptureFixture[str]


@pytest.fixture
def made(tmp_path: Path, capsys: Capsys) -> Path:
    """A cluster's directory as `init` makes it."""
    directory = tmp_path / "cluster"
    assert flightmode(capsys, "init", directory).status == 0
    return directory


def local(directory: Path) -> Path:
    """Its file with paths of the node `ams` below the directory itself; returns its path."""
    path = directory / "flightmode.toml"
    document = tomlkit.parse(path.read_text())
    document["tls"]["directory"] = "nodes/{node}/tls"  # type: ignore[index]
    document["secrets"]["directory"] = "nodes/{node}/secrets"  # type: ignore[index]
    document["paths"]["state_dir"] = "nodes/{node}/state"  # type: ignore[index]
    document["paths"]["run_dir"] = "nodes/{node}/run"  # type: ignore[index]
    document["postgres"]["data_dir"] = "nodes/{node}/data"  # type: ignore[index]
    document["nodes"]["ams"]["host"] = "127.0.0.1"  # type: ignore[index]
    path.write_text(tomlkit.dumps(document))
    return path


# ------------------------------------------------------------------------- init


def test_init_makes_a_file_that_is_right_with_every_setting_in_it(made: Path) -> None:
    text = (made / "flightmode.toml").read_text()
    config = parse(text)
    assert list(config.nodes) == ["ams", "fra", "wit"]
    live, example = [], False
    for line in text.splitlines():
        # A commented table is an example, not a default.
        example = line.startswith("#[") or (example and bool(line))
        setting = re.match(r"#[a-z_]+ = (?!…)", line) and not example
        live.append(line[1:] if setting else line)
    assert parse("\n".join(live)) == config, "what is called a default is the default"
    assert len([line for line in live if " = " in line and line[0] != "#"]) > 45


def test_init_gives_each_node_what_it_needs_and_no_more(made: Path) -> None:
    for name in ("ams", "fra", "wit"):
        home = made / "nodes" / name
        assert check_certificate(home / "tls", "node").name == name
        assert not list(home.rglob("ca.key"))
        assert (home / "flightmode.toml").read_text() == (made / "flightmode.toml").read_text()
    assert check_certificate(made / "operator", "client").name == "operator"


def test_every_secret_that_init_makes_is_private(made: Path) -> None:
    keys = [*made.rglob("*.key"), *made.rglob("secrets/*")]
    assert len(keys) == 5 + 4 * 6
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}
    assert stat.S_IMODE(made.stat().st_mode) == 0o700


def test_all_nodes_have_the_same_passwords(made: Path) -> None:
    for name in ("rewind", "api-token"):
        assert len({path.read_text() for path in made.rglob(f"secrets/{name}")}) == 1


def test_init_shows_no_secret(tmp_path: Path, capsys: Capsys) -> None:
    ran = flightmode(capsys, "init", tmp_path / "c")
    for path in (tmp_path / "c" / "secrets").iterdir():
        assert path.read_text().strip() not in ran.out + ran.err


def test_init_never_overwrites(made: Path, capsys: Capsys) -> None:
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    ran = flightmode(capsys, "init", made, "--json")
    assert (ran.status, ran.error["code"]) == (73, "FM403")
    assert {path: path.read_bytes() for path in made.rglob("*") if path.is_file()} == before


def test_init_takes_names_and_hosts(tmp_path: Path, capsys: Capsys) -> None:
    words = ["--name", "shop", "--database", "a=::a", "--database", "b=::b", "--witness", "w=::c"]
    ran = flightmode(capsys, "init", tmp_path / "c", *words, "--json")
    assert ran.json["nodes"] == ["a", "b", "w"]
    config = place(tmp_path / "c" / "flightmode.toml").config
    assert (config.cluster.name, config.nodes["w"].host) == ("shop", "::c")


def test_init_with_three_databases_makes_no_witness(tmp_path: Path, capsys: Capsys) -> None:
    words = [word for name in "abc" for word in ("--database", f"{name}=fd00::{name}")]
    assert flightmode(capsys, "init", tmp_path / "c", *words, "--json").json["nodes"] == [*"abc"]


@pytest.mark.parametrize("wrong", ["ams", "=10.0.0.1", "ams=", "Ams=10.0.0.1", "a=b c", "a=h.net"])
def test_init_refuses_wrong_nodes_and_leaves_nothing(
    tmp_path: Path, capsys: Capsys, wrong: str
) -> None:
    words = ["--database", wrong, "--database", "fra=10.0.0.2"]
    ran = flightmode(capsys, "init", tmp_path / "c", *words)
    assert ran.status in (64, 78)
    assert not (tmp_path / "c").exists()


def test_init_renews_certificates_and_keeps_passwords(made: Path, capsys: Capsys) -> None:
    home = made / "nodes" / "ams"
    before = [(home / p).read_text() for p in ("tls/node.crt", "tls/ca.crt", "secrets/app")]
    assert flightmode(capsys, "init", made, "--renew").status == 0
    after = [(home / p).read_text() for p in ("tls/node.crt", "tls/ca.crt", "secrets/app")]
    assert (before[0] != after[0], before[1:]) == (True, after[1:])


def test_init_does_not_renew_without_the_authority(made: Path, capsys: Capsys) -> None:
    (made / "ca" / "ca.key").unlink()
    ran = flightmode(capsys, "init", made, "--renew", "--json")
    assert (ran.status, ran.error["code"]) == (66, "FM411")


# ------------------------------------------------------------------------- check


def test_check_of_a_right_file_is_content(made: Path, capsys: Capsys) -> None:
    ran = flightmode(capsys, "check", "--config", made / "flightmode.toml", "--file-only")
    assert (ran.status, "is right: 3 nodes" in ran.out) == (0, True)


def test_check_lists_every_mistake_of_the_file(made: Path, capsys: Capsys) -> None:
    path = made / "flightmode.toml"
    path.write_text(path.read_text() + "\n[zap]\n[timng]\n")
    ran = flightmode(capsys, "check", "--config", path)
    assert ran.status == 78
    assert "error FM402:" in ran.err
    assert "timng" in ran.err
    assert "did you mean timing?" in ran.err
    assert "zap" in ran.err
    assert f"hint: sensible-editor {made / 'flightmode.toml'}" in ran.err


def test_a_missing_file_is_an_error_in_json(tmp_path: Path, capsys: Capsys) -> None:
    ran = flightmode(capsys, "check", "--config", tmp_path / "none.toml", "--json")
    assert ran.status == 66
    assert ran.error == {
        "code": "FM401",
        "message": f"there is no {tmp_path / 'none.toml'}",
        "retry": False,
        "hint": "flightmode init --help",
    }


def test_a_directory_or_a_binary_is_no_file(tmp_path: Path, capsys: Capsys) -> None:
    (tmp_path / "x").write_bytes(b"\xff\xfe")
    for path in (tmp_path, tmp_path / "x"):
        assert flightmode(capsys, "check", "--config", path, "--json").error["code"] == "FM401"


def findings(capsys: Capsys, path: Path) -> dict[str, list[str]]:
    ran = flightmode(capsys, "check", "--config", path, "--node", "ams", "--json")
    levels: dict[str, list[str]] = {"ok": [], "warning": [], "error": []}
    for each in ran.json["findings"]:
        levels[each["level"]].append(each["what"])
    assert ran.status == (78 if levels["error"] else 0)
    return levels


def test_check_looks_at_the_machine(made: Path, capsys: Capsys) -> None:
    levels = findings(capsys, local(made))
    assert "the certificate of ams is good for 825 days" in levels["ok"]
    assert "all 6 secrets are there, and private" in levels["ok"]
    assert "this machine has the address 127.0.0.1" in levels["ok"]


def test_check_finds_a_key_that_others_can_read(made: Path, capsys: Capsys) -> None:
    (made / "nodes/ams/tls/node.key").chmod(0o644)
    (made / "nodes/ams/secrets/app").chmod(0o640)
    errors = findings(capsys, local(made))["error"]
    assert [each.split(" can be read")[0].rsplit("/", 1)[1] for each in errors[:2]] == [
        "node.key",
        "app",
    ]


def test_check_finds_the_certificate_of_another_node(made: Path, capsys: Capsys) -> None:
    authority = Authority.load(made / "ca")
    authority.issue_node("fra", ["10.0.0.2"]).save(made / "nodes/ams/tls", "node")
    (found,) = [e for e in findings(capsys, local(made))["error"] if "certificate" in e]
    assert "is that of fra, this node is ams" in found


def test_check_warns_of_a_certificate_that_ends_soon(made: Path, capsys: Capsys) -> None:
    authority = Authority.load(made / "ca")
    authority.issue_node("ams", ["127.0.0.1"], days=10).save(made / "nodes/ams/tls", "node")
    assert "the certificate of ams ends in 10 days" in findings(capsys, local(made))["warning"]


def test_check_finds_missing_programs_and_users(made: Path, capsys: Capsys) -> None:
    path = local(made)
    text = path.read_text().replace("#bin_dir = …", 'bin_dir = "nowhere"')
    path.write_text(text.replace('#user = "postgres"', 'user = "nobody_of_that_name"'))
    errors = findings(capsys, path)["error"]
    assert any("nowhere: no postgres, initdb, pg_basebackup" in each for each in errors)
    assert "postgres.user: there is no user 'nobody_of_that_name' on this machine" in errors


def test_check_finds_programs_of_another_major_version(made: Path, capsys: Capsys) -> None:
    programs = made / "bin"
    programs.mkdir()
    for name in ("initdb", "pg_basebackup", "pg_controldata", "pg_receivewal", "pg_rewind"):
        (programs / name).touch()
    postgres = programs / "postgres"
    postgres.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 14.9 (Debian 14.9-1)'\n")
    postgres.chmod(0o755)
    path = local(made)
    path.write_text(path.read_text().replace("#bin_dir = …", f'bin_dir = "{programs}"'))
    told = [e for e in findings(capsys, path)["error"] if "bin_dir" in e]
    said = "'postgres (PostgreSQL) 14.9 (Debian 14.9-1)'"
    assert told == [f"postgres.bin_dir: PostgreSQL 15 is wanted, and in {programs} is {said}"]
    postgres.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 15.9'\n")
    assert f"PostgreSQL 15 is in {programs}" in findings(capsys, path)["ok"]


def test_check_finds_data_that_others_may_enter(made: Path, capsys: Capsys) -> None:
    path = local(made)
    data = made / "nodes/ams/data"
    data.mkdir(mode=0o755, parents=True)
    (found,) = [e for e in findings(capsys, path)["error"] if "can be entered" in e]
    assert found.startswith(str(data))
    data.chmod(0o700)
    assert not any("can be entered" in e for e in findings(capsys, path)["error"])


@pytest.mark.parametrize("verb", ["agent", "fence"])
def test_what_needs_a_user_of_the_system_says_that_there_is_none(made: Path, verb: str) -> None:
    if verb == "fence" and os.geteuid() != 0:
        pytest.skip("a fence that is not root runs Postgres as itself")
    path = local(made)
    path.write_text(path.read_text().replace('#user = "postgres"', 'user = "nobody_of_that_name"'))
    # A process of its own: an agent says where logs go, for the whole process.
    argv = [sys.executable, "-m", "flightmode.cli.main", verb, "--config", path, "--node", "ams"]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 78, ran.stderr
    assert "FM402" in ran.stderr
    assert "there is no user 'nobody_of_that_name' on this machine" in ran.stderr
    assert "hint: adduser --system --group nobody_of_that_name" in ran.stderr


def test_what_nobody_thought_of_has_a_code_and_a_trace(made: Path, capsys: Capsys) -> None:
    below_a_file = made / "flightmode.toml" / "below"
    ran = flightmode(capsys, "init", below_a_file, "--json")
    assert (ran.status, ran.error["code"]) == (70, "FM599")
    assert ran.error["message"].startswith("NotADirectoryError: ")
    assert "Traceback" in ran.error["trace"]
    ran = flightmode(capsys, "init", below_a_file)
    assert ran.status == 70
    assert ran.err.startswith("Traceback")
    assert "error FM599: NotADirectoryError: " in ran.err
    assert "hint: flightmode check" in ran.err


def test_check_finds_an_address_that_is_not_this_machines(made: Path, capsys: Capsys) -> None:
    path = local(made)
    path.write_text(path.read_text().replace("127.0.0.1", "192.0.2.7"))
    assert any("can't listen at 192.0.2.7" in e for e in findings(capsys, path)["error"])


# ------------------------------------------------------------------------- which node


def test_a_node_is_named_or_found_and_never_guessed(made: Path) -> None:
    here = place(made / "flightmode.toml")
    assert here.node("fra") == "fra"
    with pytest.raises(NodeUnnamed, match="these are: ams, fra, wit"):
        here.node("nobody")
    with pytest.raises(NodeUnnamed, match="which node is this machine"):
        here.node(None)


def test_a_machine_is_known_by_its_name(made: Path) -> None:
    here = place(made / "flightmode.toml")
    host = os.uname().nodename.lower()
    nodes = {**here.config.nodes, "fra": here.config.nodes["fra"].model_copy(update={"host": host})}
    renamed = Place(here.config.model_copy(update={"nodes": nodes}), here.path)
    assert renamed.node(None) == "fra"


def test_the_operators_certificate_lies_beside_the_file_else_the_nodes_is_used(made: Path) -> None:
    here = place(made / "flightmode.toml")
    assert here.tls(None, None) == (made / "operator", "client")
    assert here.tls(made / "nodes/fra/tls", None) == (made / "nodes/fra/tls", "node")
    assert place(local(made)).tls(None, "ams") == (made / "nodes/ams/tls", "node")


# ------------------------------------------------------------------------- agent and fence


def test_the_fence_gets_what_the_file_asks_for(made: Path) -> None:
    path = local(made)
    text = path.read_text().replace("#nft = false", "nft = true")
    path.write_text(text.replace("#watchdog = …", 'watchdog = "/dev/watchdog"'))
    assert fence_argv(place(path), "ams", root=True, postgres_uid=105) == [
        "flightmode-fence",
        "--socket",
        str(made / "nodes/ams/run/fence.sock"),
        "--node",
        "ams",
        "--heartbeat-key",
        str(made / "nodes/ams/secrets/heartbeat"),
        "--postgres-uid",
        "105",
        "--cgroup",
        "/sys/fs/cgroup/flightmode-main-ams",
        "--nft-table",
        "flightmode-ams",
        "--nft-port",
        "5432",
        "--watchdog",
        "/dev/watchdog",
    ]


def test_without_root_the_fence_is_asked_for_nothing_that_needs_it(made: Path) -> None:
    argv = fence_argv(place(local(made)), "ams", root=False, postgres_uid=None)
    key = made / "nodes/ams/secrets/heartbeat"
    assert argv[3:] == ["--node", "ams", "--heartbeat-key", str(key)]
    key.unlink()
    argv = fence_argv(place(local(made)), "ams", root=False, postgres_uid=None)
    assert argv[3:] == ["--node", "ams"]


def test_a_witness_has_no_fence(made: Path) -> None:
    with pytest.raises(RequestWrong, match="wit is a witness"):
        fence_argv(place(local(made)), "wit", root=True, postgres_uid=1)


@pytest.mark.parametrize("verb", ["agent", "fence", "logs"])
def test_a_verb_of_a_node_asks_which_one(made: Path, capsys: Capsys, verb: str) -> None:
    ran = flightmode(capsys, verb, "--config", made / "flightmode.toml")
    assert ran.status == 64
    assert "error FM522" in ran.err


# ------------------------------------------------------------------------- why, replay, logs


@pytest.fixture
def journal(made: Path) -> Path:
    """Two decisions of ams as today's rules make them."""
    path = made / "nodes/ams/state/journal.jsonl"
    path.parent.mkdir()
    closed = replace(view().server, admits_clients=False, sync_since=NOWHERE)
    seen = [view(), replace(view(), server=closed)]
    lines = [codec.dump(Record(each, decide(each), ("FM200: no",))) for each in seen]
    path.write_bytes(b"\n".join(lines) + b'\n{"torn')
    return path


def test_a_journal_that_today_decides_the_same_replays(journal: Path, capsys: Capsys) -> None:
    ran = flightmode(capsys, "replay", journal, "--json")
    assert (ran.status, ran.json) == (0, {"records": 2, "different": []})


def test_what_a_power_loss_has_torn_is_left_out_of_a_journal(journal: Path, capsys: Capsys) -> None:
    first, second, _ = journal.read_bytes().split(b"\n")
    holes = (first[:2000] + first[300:], b"\0" * 4096, first[:500])
    journal.write_bytes(b"\n".join((first, *holes, second)) + b"\n")
    ran = flightmode(capsys, "replay", journal, "--json")
    assert (ran.status, ran.json) == (0, {"records": 2, "different": []})


def test_a_new_life_does_not_write_on_the_torn_line_of_the_last(journal: Path) -> None:
    again = FileJournal(journal.parent)
    again.write(view(), decide(view()), ())
    again.close()
    assert [number for number, _ in records(journal)] == [1, 2, 4]


def test_a_replay_shows_what_would_be_different(journal: Path, capsys: Capsys) -> None:
    seen = view()
    then = replace(decide(seen), rule="leading: other", actions=(Admit(4),))
    with journal.open("wb") as file:
        file.write(codec.dump(Record(seen, then, ())) + b"\n")
    ran = flightmode(capsys, "replay", journal)
    assert ran.status == 1
    assert f"line 1: leading: other -> {decide(seen).rule}" in ran.out
    assert "then: let clients in" in ran.out
    assert "1 decisions, 1 would be different today" in ran.out


def test_a_journal_that_is_none_is_refused(made: Path, capsys: Capsys) -> None:
    assert flightmode(capsys, "replay", made).status == 66
    ran = flightmode(capsys, "replay", made / "flightmode.toml", "--json")
    assert (ran.status, ran.error["code"]) == (65, "FM110")


def own_address() -> str:
    """One of this machine's that is not loopback, as another machine would write it."""
    addresses = [each for some in psutil.net_if_addrs().values() for each in some]
    found = [each.address for each in addresses if each.family in (AF_INET, AF_INET6)]
    mine = [each for each in found if "%" not in each and not ip_address(each).is_loopback]
    return mine[0] if mine else pytest.skip("this machine is on no network")


def test_why_tells_a_journal_of_this_machine(journal: Path, made: Path, capsys: Capsys) -> None:
    path = local(made)
    host = own_address()
    path.write_text(path.read_text().replace('host = "127.0.0.1"', f'host = "{host}"'))
    ran = flightmode(capsys, "why", "--config", path, "--json")
    assert [each["rule"] for each in ran.json] == [
        decide(view()).rule,
        "leading: closed",
    ]
    words = flightmode(capsys, "why", "--config", path, "--count", 1).out
    assert "clients wait until a standby holds" in " ".join(words.split())


def test_logs_shows_the_last_lines_of_the_newest_file(made: Path, capsys: Capsys) -> None:
    state = made / "nodes/ams/state"
    state.mkdir(parents=True)
    (state / "agent.log").write_text("".join(f"line {n}\n" for n in range(9)))
    (state / "postgres.log").write_text("LOG: \xff ready\n", "latin-1")
    path = local(made)
    ran = flightmode(capsys, "logs", "--config", path, "--node", "ams", "--lines", 2)
    assert ran.out == "line 7\nline 8\n"
    ran = flightmode(capsys, "logs", "--config", path, "--node", "ams", "--postgres", "--json")
    assert ran.json["lines"] == ["LOG: � ready"]
    assert log_file(place(path), "ams", "fence") is None


def test_postgres_writes_where_logs_looks_also_with_the_paths_of_a_host(
    made: Path,
) -> None:
    here = place(made / "flightmode.toml")
    assert here.locations("ams").socket_dir.parent == Path("/run/flightmode")
    assert log_file(here, "ams", "postgres") == Path("/var/lib/flightmode/postgres.log")
    assert here.locations("ams").postgres_log == Path("/var/lib/flightmode/postgres.log")


def test_logs_of_postgres_never_shows_another_program_s(made: Path, capsys: Capsys) -> None:
    path = local(made)
    state = made / "nodes/ams/state"
    state.mkdir(parents=True)
    (state / "fence.log").write_text("of the fence\n")
    for more in ([], ["--follow"], ["--json"]):
        ran = flightmode(
            capsys, "logs", "--config", path, "--node", "ams", "--postgres", "--json", *more
        )
        assert (ran.status, ran.error["code"]) == (66, "FM411")
        assert ran.error["hint"] == f"ls -l {state / 'postgres.log'}"


def test_logs_that_are_followed_can_be_read_by_a_program(made: Path) -> None:
    state = made / "nodes/ams/state"
    state.mkdir(parents=True)
    (state / "postgres.log").write_text("one\n")
    words = ["logs", "--config", local(made), "--node", "ams", "--postgres", "--json", "-f"]
    with subprocess.Popen(
        [sys.executable, "-m", "flightmode.cli.main", *map(str, words)], stdout=subprocess.PIPE
    ) as following:
        assert following.stdout is not None
        try:
            assert json.loads(following.stdout.readline())["line"] == "one"
            with (state / "postgres.log").open("a") as log:
                log.write("two\n")
            assert json.loads(following.stdout.readline())["line"] == "two"
            following.send_signal(signal.SIGINT)
            assert following.wait(10) == 130
        finally:
            following.kill()


# ------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), (" 1.5 min ", 90)]
)
def test_durations_are_read_as_people_write_them(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "x", "-5", "0", "25h", "1d", "5 m 3", "nan", "inf"])
def test_what_is_no_duration_is_a_usage_error(made: Path, capsys: Capsys, text: str) -> None:
    ran = flightmode(capsys, "pause", f"--for={text}", "--config", made / "flightmode.toml")
    assert (ran.status, "is no duration" in " ".join(ran.err.split())) == (2, True)


@given(st.floats(0, 1e9))
def test_any_number_can_be_said(value: float) -> None:
    assert duration(value)
    assert size(value)


def test_sizes_and_durations_are_short() -> None:
    assert [size(n) for n in (0, 512, 3_500_000, 5e13)] == ["0", "512 B", "3.3 MiB", "45.5 TiB"]
    assert [duration(s) for s in (0.4, 12, 300, 7300, 400000)] == [
        "0.4 s",
        "12 s",
        "5 min",
        "2 h",
        "5 d",
    ]


def test_the_version_is_said(capsys: Capsys) -> None:
    assert flightmode(capsys, "--version").out.startswith("flightmode 0.")


def test_an_unknown_verb_is_a_usage_error(capsys: Capsys) -> None:
    assert flightmode(capsys, "fly").status == 2


def test_pictures_can_be_drawn_of_nothing() -> None:
    from rich.console import Console

    from flightmode.api.status import status_of
    from tests.unit.sights import NOW_S, member, seen, store

    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    for each in (store(state=None), store(seen(member("ams")), reachable=False)):
        told = status_of(view(store=each), None, NOW_S).model_dump(mode="json")
        console.print(status_view(told))
        if told["state"]:
            console.print(explained(told, "fra"))
    text = console.export_text()
    assert "no cluster yet" in text
    assert "etcd does not answer ams: this may be old" in text
    assert "promoting fra: what it may lack" in text
    console.file.close()
