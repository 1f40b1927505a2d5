"""The tutorial's commands are those that the story on real hosts types: all of them."""

import ast
import inspect

import pytest

from tests.hosts import test_three_servers as story
from tests.hosts.tutorial import PAGE, commands, settings

TYPED = ("types", "answers", "on_primary")


def typed_by_the_story() -> list[str]:
    """The lines that it hands to the page."""
    calls = [
        node
        for node in ast.walk(ast.parse(inspect.getsource(story)))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "page"
    ]
    # Handed on as a function too: `asyncio.to_thread(page.types, LINE)`.
    handed = [
        node
        for node in ast.walk(ast.parse(inspect.getsource(story)))
        if isinstance(node, ast.Call)
        and node.args
        and isinstance(node.args[0], ast.Attribute)
        and isinstance(node.args[0].value, ast.Name)
        and node.args[0].value.id == "page"
        and node.args[0].attr in TYPED
    ]
    lines = [
        node.args[0]
        for node in calls
        if isinstance(node.func, ast.Attribute) and node.func.attr in TYPED
    ]
    lines += [node.args[1] for node in handed]
    return [str(ast.literal_eval(line)) for line in lines]


def test_the_story_types_every_command_of_the_page_and_no_other_as_its() -> None:
    found = commands(PAGE.read_text())
    assert len(found) >= 9
    assert sorted(set(typed_by_the_story())) == sorted(found)


def test_the_page_has_one_part_of_flightmode_toml() -> None:
    (text,) = settings(PAGE.read_text())
    assert "[provision.apps.web]" in text


def test_commands_are_found_in_blocks_and_in_sentences() -> None:
    text = (
        "```\nflightmode a\nflightmode b\n```\n`flightmode c` and `./dev hosts-test`, `flightmode`"
    )
    assert commands(text) == ["flightmode a", "flightmode b", "flightmode c"]
    assert commands("`flightmode b`\n```\nflightmode a\n```\n") == ["flightmode b", "flightmode a"]


@pytest.mark.parametrize("block", ["ssh root@10.0.0.1", "flightmode a\nssh root@10.0.0.1", "$ x"])
def test_a_block_of_no_known_kind_is_not_passed_over(block: str) -> None:
    with pytest.raises(ValueError, match="typed"):
        commands(f"```\n{block}\n```\n")
