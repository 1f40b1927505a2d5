"""The shape of the house: sizes, names, and that nothing lies about."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

from flightmode.cli.verbs import VERBS

ROOT = Path(__file__).parents[2]
DOORS = (
    "flightmode.cli.main",
    "flightmode.daemon.node",
    "flightmode.daemon.proxy",
    "flightmode.demo.sweep",
)
FUNCTION_LINES = 60
FILE_LINES = 500
# A Rust file holds its unit tests.
RUST_LINES = 600
# The story of one real thing and its faults is told in one place.
TEST_LINES = 600
NO_ROOMS = {"utils", "util", "common", "helpers", "helper", "types", "misc"}
# Spelled so that this file does not find itself.
LEFTOVERS = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX|HA" + r"CK)\b")


def tracked(*patterns: str) -> list[Path]:
    """The files that are part of the project, as git knows them and as they still are."""
    argv = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [path for name in listed.splitlines() if (path := ROOT / name).is_file()]


SOURCES = tracked("*.py")


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name} has {lines} lines"
        for path in SOURCES
        for node in functions(path)
        if (lines := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES
    ]
    assert long == []


def limit_of(path: Path) -> int:
    return TEST_LINES if path.is_relative_to(ROOT / "tests") else FILE_LINES


def test_no_file_is_longer_than_a_sitting() -> None:
    long = [
        f"{path.relative_to(ROOT)} has {lines} lines"
        for path in [*SOURCES, *tracked("dev")]
        if (lines := len(path.read_text().splitlines())) > limit_of(path)
    ]
    assert long == []


def test_rust_files_with_the_tests_inside_them_are_rarely_long() -> None:
    lengths = [len(path.read_text().splitlines()) for path in tracked("*.rs")]
    assert max(lengths) <= RUST_LINES
    assert sum(length > FILE_LINES for length in lengths) <= len(lengths) // 6


def test_no_room_has_a_name_without_a_meaning() -> None:
    named = [path for path in tracked("flightmode") if NO_ROOMS & set(path.with_suffix("").parts)]
    assert named == []


def test_nothing_is_put_off_in_a_comment() -> None:
    put_off = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in [*SOURCES, *tracked("*.rs", "*.md", "*.toml", "dev", ".ci/*")]
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if LEFTOVERS.search(line)
    ]
    assert put_off == []


def imported_by_tests() -> set[str]:
    """The modules of ours that a test names."""
    found: set[str] = set()
    for path in tracked("tests/*.py", "bench/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module)
                found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def with_packages(modules: set[str]) -> set[str]:
    """The modules, and the packages that importing them runs."""
    parts = [module.split(".") for module in modules]
    return {".".join(names[:end]) for names in parts for end in range(1, len(names) + 1)}


def test_every_module_is_reached_from_a_door_or_from_a_test() -> None:
    graph = grimp.build_graph("flightmode", cache_dir=None)
    doors = {module for module in graph.modules if module.endswith(".__main__")} | set(DOORS)
    doors |= {verb.module for verb in VERBS.values()}
    assert doors <= graph.modules, "a door is missing"
    reached = with_packages((doors | imported_by_tests()) & graph.modules)
    fresh = reached
    while fresh:
        found = {one for module in fresh for one in graph.find_modules_directly_imported_by(module)}
        fresh = with_packages(found) - reached
        reached |= fresh
    assert sorted(graph.modules - reached) == []


LINK = re.compile(r"\[[^\]]*\]\((?!https?:|#)([^)#]+)[^)]*\)")


@pytest.mark.parametrize("page", tracked("*.md"), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_links_only_to_what_exists(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert missing == []


def test_the_readme_names_only_verbs_that_exist() -> None:
    named = set(re.findall(r"\./dev ([a-z-]+)", (ROOT / "README.md").read_text()))
    verbs = set(re.findall(r"^verb_([a-z-]+)\(\)", (ROOT / "dev").read_text(), re.MULTILINE))
    assert named
    assert named <= verbs
