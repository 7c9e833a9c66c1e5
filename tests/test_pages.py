"""README and docs: links lead somewhere, commands are understood, and every room is described."""

import re
import shlex

import pytest
import test_architecture

from llmft_helpers.__main__ import _parser
from llmft_helpers.runs import ROOT

PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "data" / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}
COMMAND = re.compile(r"-m llmft_helpers ([a-z][^`|\n]*)")


def anchors(text: str) -> set[str]:
    """What a code host calls the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: str, text: str) -> list[str]:
    """Relative links of a page whose file, or whose heading in it, does not exist."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        if "://" in link:
            continue
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    return broken


def unknown_commands(text: str) -> list[str]:
    found = []
    for command in COMMAND.findall(text):
        try:
            _parser().parse_args(shlex.split(command, comments=True))
        except SystemExit:
            found.append(command)
    return found


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    assert broken_links(page, PAGES[page]) == []


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_understood(page):
    assert unknown_commands(PAGES[page]) == []


@pytest.mark.parametrize("page", PAGES)
def test_named_scripts_exist(page):
    named = set(re.findall(r"\b(?:benchmarks|tests)/\w+\.py\b", PAGES[page]))
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_a_broken_link_and_an_unknown_command_are_found():
    text = "[a](docs/nothing.md) [b](README.md#no-such-heading) [c](#start-here) [d](https://example.org)"
    assert broken_links("README.md", text) == ["docs/nothing.md", "README.md#no-such-heading"]
    assert unknown_commands("python -m llmft_helpers run 02 --profile demo  # a comment") == []
    assert unknown_commands("python -m llmft_helpers solve --input a.jsonl") == ["solve --input a.jsonl"]
    assert len(COMMAND.findall(PAGES["README.md"])) >= 8


def test_the_page_on_architecture_names_every_room_and_module_as_they_are():
    page = PAGES["docs/architecture.md"]
    rooms = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert sorted(rooms) == sorted(test_architecture.MAY_USE)
    named = {name for name in re.findall(r"`(\w+/\w+\.py)`", page) if not name.startswith(("benchmarks/", "tests/"))}
    assert [name for name in sorted(named) if not (test_architecture.PACKAGE / name).is_file()] == []


def test_the_page_on_architecture_says_what_each_room_may_use():
    table = re.findall(r"^\| `(\w+)` \| .* \| ([a-z, ]+) \|$", PAGES["docs/architecture.md"], re.MULTILINE)
    may_use = test_architecture.MAY_USE
    for room, uses in table:
        named = {"everything": set(may_use) - {room}, "nothing": set()}.get(uses, set(uses.split(", ")))
        assert named.union(*(may_use[name] for name in named)) == may_use[room], room
    assert len(table) == len(may_use)
