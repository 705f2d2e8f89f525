"""The command ``emacheck explain``."""

import re
from pathlib import Path

import pytest

from emacheck.cli.explain import sections
from emacheck.judge import RULES
from emacheck.judge.verdict import AUDIT
from emacheck.oddity import OddityKind


def test_explain_without_a_name_lists_every_rule_and_oddity_with_a_sentence(emacheck_here):
    done = emacheck_here("explain")
    assert (done.code, done.err) == (0, "")
    listed = {line.split()[0]: line.split()[1:] for line in done.out.splitlines() if line.startswith("  ")}
    assert {*RULES, AUDIT, *map(str, OddityKind)} <= {name for name, about in listed.items() if len(about) > 2}
    assert "null, *** or 2.1%." in " ".join(done.out.split())
    # Formulas say nothing to who looks for a name.
    assert [name for name in RULES if not " ".join(listed[name])[0].isupper()] == []


@pytest.mark.parametrize("name", [*RULES, AUDIT])
def test_every_rule_is_explained_with_what_its_outcomes_mean(emacheck_here, name):
    done = emacheck_here("explain", name)
    assert (done.code, done.out.splitlines()[0]) == (0, f"{name}, rule")
    assert "INCONCLUSIVE" in done.out
    assert not [line for line in done.out.splitlines() if line != line.rstrip()]
    # Links and marks of Markdown are for browsers.
    assert [mark for mark in ("](", "**", "`") if mark in done.out] == []


def test_an_explanation_ends_with_the_pages_that_say_more(emacheck_here):
    assert emacheck_here("explain", "envelope").out.splitlines()[-1] == (
        "See also: emacheck explain references.md, emacheck explain rules-paired.md"
    )


def test_a_name_may_be_written_as_findings_are(emacheck_here):
    assert emacheck_here("explain", "Bias[loss]").out == emacheck_here("explain", "bias").out


def test_a_name_of_a_rule_and_of_an_oddity_is_explained_as_both(emacheck_here):
    lines = emacheck_here("explain", "ranks").out.splitlines()
    assert [line for line in lines if line.startswith("ranks, ")] == ["ranks, rule", "ranks, oddity of a log"]


def test_a_page_may_be_named_without_its_suffix_unless_that_is_a_rule(emacheck_here):
    assert "In continuous integration" in emacheck_here("explain", "ci").out
    assert emacheck_here("explain", "audit").out.startswith("audit, rule\n")


@pytest.mark.parametrize("name", ["devices.md", "docs/devices.md"])
def test_a_page_that_a_message_names_is_shown_as_a_whole(emacheck_here, name):
    done = emacheck_here("explain", name)
    assert done.code == 0
    assert ("Adding a device" in done.out, "](" in done.out) == (True, False)
    assert "devices.md" in emacheck_here("explain").out


def test_every_page_that_a_message_of_the_package_names_can_be_shown():
    package = Path(__file__).parent.parent / "emacheck"
    named = {
        page for source in package.rglob("*.py") for page in re.findall(r"docs/([\w-]+\.md)", source.read_text("utf-8"))
    }
    assert named
    assert [page for page in named if not (package.parent / "docs" / page).is_file()] == []


def test_a_name_that_is_none_is_refused_with_what_was_perhaps_meant(emacheck_here):
    done = emacheck_here("explain", "bais")
    assert (done.code, done.out) == (2, "")
    said = "there is no rule, oddity or page 'bais' to explain. Did you mean bias? emacheck explain lists them."
    assert done.err == f"emacheck: {said}\n"


def test_a_section_ends_at_the_next_heading_of_its_level_or_above():
    page = "## P\n\n### `one`\n\nA.\n\n#### Deeper\n\nB.\n\n### Named\n\nC.\n\n### `two`\n\nD.\n\n## Next\n\nE.\n"
    assert sections(page) == {"one": "A.\n\n#### Deeper\n\nB.", "two": "D."}
