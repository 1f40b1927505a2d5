"""Green means green: what a cluster may lack although its primary has a standby."""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flightmode.cli.commands.wholeness import is_whole, lacks
from flightmode.config import parse
from flightmode.provision.serving import PYTHON, probe, read, script
from tests.unit.provision.test_plan import CONFIG, TEXT, want


def node(name: str, **more: object) -> dict[str, Any]:
    told = {"kind": "database", "heard": True, "streaming": False, "sync": False}
    return {"name": name, **told, **more}


def status(**more: object) -> dict[str, Any]:
    """Of a cluster that is whole."""
    nodes = [node("ams"), node("fra", streaming=True, sync=True), node("wit", kind="witness")]
    told = {"node": "ams", "writes": "ams", "route": "why", "store_reachable": True, "nodes": nodes}
    return {**told, **more}


def with_node(name: str, **more: object) -> dict[str, Any]:
    found = status()
    next(each for each in found["nodes"] if each["name"] == name).update(more)
    return found


def test_a_cluster_with_everything_is_whole() -> None:
    assert is_whole(status())


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (status(writes=None), "why"),
        (status(store_reachable=False), "etcd does not answer ams"),
        (with_node("wit", heard=False), "nothing is heard of wit"),
        (with_node("ams", heard=False), "nothing is heard of ams"),
        (with_node("fra", streaming=False), "fra does not follow"),
        (with_node("fra", sync=False), "no standby holds every commit"),
    ],
)
def test_a_cluster_that_lacks_something_is_not_whole(found: dict[str, Any], words: str) -> None:
    assert lacks(found) == (words,)


def test_of_two_standbys_one_holds_every_commit_and_both_follow() -> None:
    found = status()
    found["nodes"][2] = node("ber", streaming=True)
    assert is_whole(found)
    found["nodes"][2] = node("ber")
    assert lacks(found) == ("ber does not follow",)


# ----------------------------------------------------------------------------- on the hosts

SYSTEMCTL = """#!/bin/sh
for unit; do :; done
case "$unit" in flightmode-etcd.service) echo "$ETCD" ;; *) echo active ;; esac
"""


def asked(tmp_path: Path, name: str, etcd: str = "active", python: str = "true") -> tuple[str, ...]:
    (tmp_path / "systemctl").write_text(SYSTEMCTL)
    (tmp_path / "systemctl").chmod(0o755)
    text = script(CONFIG, want(name)).replace(PYTHON, python)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "ETCD": etcd}
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, env=environment)
    return read(done.stdout)


def test_a_host_on_which_all_runs_lacks_nothing(tmp_path: Path) -> None:
    for name in ("ams", "wit", "web"):
        assert asked(tmp_path, name) == ()


def test_an_etcd_that_does_not_run_is_named(tmp_path: Path) -> None:
    for name in ("ams", "wit"):
        assert asked(tmp_path, name, "failed") == ("flightmode-etcd.service is failed",)


def test_a_proxy_that_answers_nobody_is_named(tmp_path: Path) -> None:
    (told,) = asked(tmp_path, "web", python="false")
    assert "its proxy does not serve" in told
    assert asked(tmp_path, "ams", python="false") == ()


def test_an_answer_that_was_cut_off_is_no_good_news() -> None:
    assert read("") == ("it did not say what serves there",)
    assert read("a is b\nc is") == ("a is b", "it did not say what serves there")
    assert read("end\n") == ()


def test_the_probe_asks_through_the_proxy_and_knocks_where_it_has_no_name() -> None:
    text = probe(CONFIG)
    compile(text, "probe", "exec")
    assert "SELECT 1" in text
    assert "/etc/flightmode/secrets/app" in text
    users = parse(f"{TEXT}[proxy]\nusers_file = '/etc/users'\nport = 7000\n", name="it")
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
        knock = probe(users).replace("7000", str(port))
        assert subprocess.run([sys.executable, "-c", knock], check=False).returncode == 0
    refused = subprocess.run([sys.executable, "-c", knock], capture_output=True, check=False)
    assert refused.returncode != 0
