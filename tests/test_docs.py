"""The documentation: links lead somewhere, and tables hold what the code has."""

import re
from pathlib import Path

import pytest

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


def test_the_docs_explain_each_kind_of_oddity_and_its_effect():
    section = prose(ROOT / "docs" / "logs.md").partition("\n## Oddities\n")[2].partition("\n## ")[0]
    explained = dict(re.findall(r"^\| `(\w+)` \| \S.* \| (\w+) \|$", section, re.MULTILINE))
    effects = {str(kind): str(effect) for kind, effect in EFFECTS.items()}
    assert sorted(effects.keys() - explained.keys()) == [], "kinds of oddities that docs/logs.md does not explain"
    assert sorted(explained.keys() - effects.keys()) == [], "kinds in docs/logs.md that do not exist"
    wrong = {kind: effect for kind, effect in explained.items() if effect != effects[kind]}
    assert wrong == {}, "kinds to which docs/logs.md gives another effect"
