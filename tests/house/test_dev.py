"""`./dev`: what it asks root for, and what not."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

DEV = Path(__file__).parents[2] / "dev"


def ask(question: str, *words: str, path: str = os.environ["PATH"]) -> int:
    """The exit status of one function of `./dev`, with those words."""
    bash = shutil.which("bash")
    assert bash is not None
    cut = f"source <(sed -n '/^{question}()/,/^}}/p' '{DEV}'); {question} \"$@\""
    argv = [bash, "-c", f"PATH={path!r}:$PATH; {cut}", "dev", *words]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, check=False).returncode


@pytest.mark.parametrize("words", [(), ("--keep",), ("--clients", "3")])
def test_a_demo_with_namespaces_wants_root(words: tuple[str, ...]) -> None:
    assert ask("wants_namespaces", *words) == 0


@pytest.mark.parametrize("words", [("--help",), ("--keep", "--no-namespaces")])
def test_a_demo_without_namespaces_needs_no_root(words: tuple[str, ...]) -> None:
    assert ask("wants_namespaces", *words) == 1


@pytest.mark.parametrize(("status", "works"), [(0, 0), (1, 1)])
def test_a_sudo_that_refuses_is_not_gone_through(tmp_path: Path, status: int, works: int) -> None:
    sudo = tmp_path / "sudo"
    sudo.write_text(f"#!/bin/sh\nexit {status}\n")
    sudo.chmod(0o755)
    assert ask("sudo_works", path=str(tmp_path)) == works
