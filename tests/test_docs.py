"""The documentation: links lead somewhere, and tables hold what the code has."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import click
import pytest
from verdicts_to_show import COMMAND, ENVIRONMENT, VERDICTS, an_audit

from emacheck.cli import COMMANDS
from emacheck.judge import RULES
from emacheck.oddity import EFFECTS
from emacheck.report.document import document
from emacheck.train.doctor.line import Line, Status

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


def options():
    """Return the options of every command, by its words."""
    commands = {name: getattr(import_module(place), name) for name, (place, *_) in COMMANDS.items()}
    groups = {name: command for name, command in commands.items() if isinstance(command, click.Group)}
    found = {name: command for name, command in commands.items() if name not in groups}
    found |= {f"{group} {name}": each for group in groups for name, each in groups[group].commands.items()}
    return {words: [p for p in command.params if isinstance(p, click.Option)] for words, command in found.items()}


def test_every_option_is_explained_somewhere():
    said = set(re.findall(r"--[a-z][a-z-]*", "\n".join(page.read_text(encoding="utf-8") for page in PAGES)))
    # Of a switch with two names it is enough to know how to turn it over.
    unsaid = {
        (words, p.opts[0])
        for words, all_of in options().items()
        for p in all_of
        if not {*p.opts, *p.secondary_opts} & said
    }
    assert unsaid == set()


def test_every_option_that_is_spoken_of_exists():
    """Options of commands that are not emacheck's stand with them in one piece of code."""
    # --no-deps is pip's.
    known = {"--help", "--no-deps"} | {
        name for all_of in options().values() for p in all_of for name in (*p.opts, *p.secondary_opts)
    }
    for page in PAGES:
        spoken = re.findall(r"`([^`\n]*)`", prose(page))
        own = {
            word
            for words in spoken
            if words.startswith(("--", "emacheck "))
            for word in re.findall(r"--[a-z][a-z-]*", words)
        }
        assert own - known == set(), page


def test_the_defaults_of_the_selftest_are_those_on_its_page():
    rows = re.findall(
        r"^\| `(--[a-z]+)[^`]*` \| (\w+) \|", (ROOT / "docs" / "selftest.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    defaults = {name: str(p.default) for p in options()["selftest"] for name in p.opts}
    assert len(rows) > 4
    assert {name: said for name, said in rows if said != "all"} == {
        name: defaults[name] for name, said in rows if said != "all"
    }


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
    blocks = re.findall(r"^### `(\w+)`\n\nEffect: (\w+)\. \S", section, re.MULTILINE)
    explained, effects = dict(blocks), {str(kind): str(effect) for kind, effect in EFFECTS.items()}
    assert sorted(effects.keys() - explained.keys()) == [], "kinds of oddities without a heading in docs/logs.md"
    assert sorted(explained.keys() - effects.keys()) == [], "kinds in docs/logs.md that do not exist"
    wrong = {kind: effect for kind, effect in explained.items() if effect != effects[kind]}
    assert wrong == {}, "kinds to which docs/logs.md gives another effect"
    assert [kind for kind, _ in blocks] == sorted(effects)
    table = re.findall(r"^\| (\w+) \| .* \| (\[.*) \|$", section, re.MULTILINE)
    listed = {kind: effect for effect, kinds in table for kind in re.findall(r"`(\w+)`", kinds)}
    assert listed == {kind: effect for kind, effect in effects.items() if effect != "NOTE"}


def test_the_page_on_vendor_images_names_every_dependency_of_the_core():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    needed = re.findall(r'^  "([a-z0-9]+)', project.partition("\ndependencies = [")[2].partition("]")[0], re.MULTILINE)
    page = (ROOT / "docs" / "vendor-images.md").read_text(encoding="utf-8")
    (said,) = re.findall(r"without the extra `train` depends on ([^;]+);", page)
    assert len(needed) > 3
    assert [name for name in needed if not re.search(rf"\b{name}\b", said)] == []


def tables(page, title):
    """Return for each table of a section that begins with the column `key` the keys in that column."""
    section = ("\n" + prose(ROOT / "docs" / page)).partition(f"\n{title}\n")[2]
    section = re.split(r"^#+ ", section, maxsplit=1, flags=re.MULTILINE)[0]
    rows = re.findall(r"(?:^\| key .*\n\|[-| ]+\n)((?:^\|.*\n)+)", section, re.MULTILINE)
    return [
        {key for row in table.splitlines() for key in re.findall(r"`(\w+)`", row.split(" | ")[0])} for table in rows
    ]


def test_the_keys_of_report_json_are_those_on_its_page():
    made = document(VERDICTS["fail"], command=COMMAND, environment=ENVIRONMENT, audit=an_audit())
    explanation = made["operators"]["explanations"][0]
    found = {
        "# The format of `report.json`": [made],
        "## A record: `reference` and `candidate`": [made["candidate"]],
        "## A finding: `findings[]`": [made["findings"][0]],
        "## Where the curves part: `first_divergence`": [made["first_divergence"]],
        "## The audit: `audit`": [made["audit"]],
        "## Operators: `operators`": [made["operators"], explanation, explanation["operators"][0]],
    }
    said = {title: tables("report-format.md", title) for title in found}
    assert said == {title: [set(each) for each in objects] for title, objects in found.items()}
    page = (ROOT / "docs" / "report-format.md").read_text(encoding="utf-8")
    inner = {*made["audit"]["worst"], *made["audit"]["findings"][0], *made["hint"], *made["pairing"]}
    inner |= {*explanation["trials"][0], *explanation["unjudged"][0], *explanation["operators"][0]["inputs"][0]}
    assert [key for key in inner if f"`{key}`" not in page] == []


def test_the_keys_of_selftest_json_are_those_on_its_page():
    pytest.importorskip("torch")
    from emacheck.audit.selftest.trials import Selftest, Trial

    trial = Trial(name="dead_channel", kind="kernel")
    made = Selftest(faults=(trial,), benign=(), precision="fp32", device="cpu").to_json()
    assert tables("selftest.md", "## selftest.json") == [set(made)]
    page = (ROOT / "docs" / "selftest.md").read_text(encoding="utf-8").partition("## selftest.json")[2]
    inner = {*made["faults"][0], *made["rules"]["audit"], *made["named"]}
    assert [key for key in inner if f"`{key}`" not in page] == []


def test_the_keys_of_a_line_of_the_doctor_are_on_its_page():
    page = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8").partition("prints one object")[2]
    line = Line(name="torch", status=Status.OK, found="2.13.0")
    assert [key for key in line.to_dict() if f"`{key}`" not in page] == []


def test_the_limits_on_the_page_of_rules_are_the_defaults():
    page = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
    table = page.partition("\n| rule | asks |")[2].partition("\n\n")[0]
    split = (re.split(r"(?<!\\)\|", row) for row in table.splitlines()[2:])
    rows = {re.findall("`(.+)`", cells[1])[0]: cells[3] for cells in split}
    said = {name: re.match(r" ([\d.e-]+)", limit) for name, limit in rows.items() if name != "envelope"}
    assert {name: float(number[1]) for name, number in said.items()} == {
        name: rule().limit for name, rule in RULES.items() if name != "envelope"
    }
