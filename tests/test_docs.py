"""The documentation: links lead somewhere, and tables hold what the code has."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import click
import pytest

from emacheck.cli import COMMANDS
from emacheck.oddity import EFFECTS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")


def prose(page):
    """Return the text of a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page):
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page):
    dead = []
    for place, anchor in LINK.findall(prose(page)):
        target = page.parent / place if place else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            dead.append(f"{place}#{anchor}" if anchor else place)
    assert dead == []


def test_every_page_is_in_the_index():
    index = ROOT / "docs" / "README.md"
    named = {place for place, _ in LINK.findall(prose(index))}
    assert {page.name for page in index.parent.glob("*.md")} - named == {"README.md"}


def shown_commands(page):
    """Return the words of each command of emacheck in the blocks of code of a page."""
    blocks = re.findall(
        r"^```(?:console|sh|yaml)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    lines = re.sub(r"\\\n\s*", " ", "\n".join(blocks)).splitlines()
    found = (re.search(r"(?:^|[$-] |run: |\| )emacheck ([a-z].*)", line.strip()) for line in lines)
    return [shlex.split(match[1], comments=True) for match in found if match]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_is_shown_has_the_options_that_it_is_shown_with(page):
    for words in shown_commands(page):
        command = getattr(import_module(COMMANDS[words[0]][0]), words[0])
        if isinstance(command, click.Group):
            command = command.commands[words[1]]
        known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
        asked = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert asked - known == set(), words


def test_the_docs_explain_each_kind_of_oddity_and_its_effect():
    section = prose(ROOT / "docs" / "logs.md").partition("\n## Oddities\n")[2].partition("\n## ")[0]
    explained = dict(re.findall(r"^\| `(\w+)` \| \S.* \| (\w+) \|$", section, re.MULTILINE))
    effects = {str(kind): str(effect) for kind, effect in EFFECTS.items()}
    assert sorted(effects.keys() - explained.keys()) == [], "kinds of oddities that docs/logs.md does not explain"
    assert sorted(explained.keys() - effects.keys()) == [], "kinds in docs/logs.md that do not exist"
    wrong = {kind: effect for kind, effect in explained.items() if effect != effects[kind]}
    assert wrong == {}, "kinds to which docs/logs.md gives another effect"


def test_the_page_on_vendor_images_names_every_dependency_of_the_core():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    needed = re.findall(r'^  "([a-z0-9]+)', project.partition("\ndependencies = [")[2].partition("]")[0], re.MULTILINE)
    page = (ROOT / "docs" / "vendor-images.md").read_text(encoding="utf-8")
    (said,) = re.findall(r"without the extra `train` depends on ([^;]+);", page)
    assert len(needed) > 3
    assert [name for name in needed if not re.search(rf"\b{name}\b", said)] == []
