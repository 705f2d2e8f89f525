"""``emacheck explain``: what a rule or an oddity means and what to do about it, or a page of the documentation."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path, PurePath

import click

from emacheck.errors import UsageError

# What is explained by name, and the page of the documentation whose sections do so.
SECTIONS_OF = {"rule": "rules.md", "oddity of a log": "logs.md"}
TITLES = {"rule": "Rules", "oddity of a log": "Oddities of a log"}
WIDEST = 100
_HEADING = re.compile(r"^### `(\w+)`$", re.MULTILINE)
_NEXT = re.compile(r"^#{1,3} ", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_PAGE = re.compile(r"\]\(([\w-]+\.md)")
_BOLD = re.compile(r"\*\*(.+?)\*\*", re.DOTALL)
_SENTENCE = re.compile(r".*?[.?](?=\s|$)", re.DOTALL)


@click.command()
@click.argument("name", required=False)
def explain(name: str | None) -> None:
    """Explain a rule, such as bias, or an oddity of a log, such as gap: what it means, and what to do.

    A page of the documentation, such as devices.md, is shown as a whole. Without NAME, list all of them.
    """
    pages = {page.name: page for page in sorted(_root().glob("*.md"))}
    explanations = {kind: sections(pages[page].read_text(encoding="utf-8")) for kind, page in SECTIONS_OF.items()}
    if name is not None and (page := _page(name, pages, explanations)) is not None:
        click.echo_via_pager("\n".join(_rendered(_LINK.sub(r"\1", page.read_text(encoding="utf-8")))))
        return
    shown = _listed(explanations, pages) if name is None else _explained(name, explanations, pages)
    click.echo("\n".join(shown))


def sections(page: str) -> dict[str, str]:
    r"""Return what a page says under each heading that is a single name in backticks.

    Args:
        page: The page in Markdown.

    Returns:
        The text below each such heading, up to the next one. The pages to which its links lead stand at its end.

    Example:
        >>> sections("# Page\n\n### `gap`\n\nRecords are [missing](x.md#y).\n\n### Other\n\nMore.\n")
        {'gap': 'Records are missing.\n\nSee also: emacheck explain x.md'}
    """
    found = {}
    for heading in _HEADING.finditer(page):
        after = _NEXT.search(page, heading.end())
        body = page[heading.end() : after.start() if after else None].strip()
        also = [f"emacheck explain {each}" for each in dict.fromkeys(_PAGE.findall(body))]
        found[heading[1]] = _LINK.sub(r"\1", body) + (f"\n\nSee also: {', '.join(also)}" if also else "")
    return found


def _root() -> Path:
    """Return the folder of the documentation: that of the installed package, or of a checkout."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "docs"
    return shipped if shipped.is_dir() else package.parent / "docs"


def _page(name: str, pages: Mapping[str, Path], explanations: Mapping[str, Mapping[str, str]]) -> Path | None:
    """Return the page of a name; without its suffix, unless that is also a rule or an oddity."""
    last = PurePath(name).name
    explained = any(last in bodies for bodies in explanations.values())
    return pages.get(last) or (None if explained else pages.get(f"{last}.md"))


def _listed(explanations: dict[str, dict[str, str]], pages: Iterable[str]) -> Iterator[str]:
    for kind, bodies in explanations.items():
        formatter = click.HelpFormatter(width=_width())
        with formatter.section(TITLES[kind]):
            formatter.write_dl([(name, _first_sentence(body)) for name, body in bodies.items()])
        yield formatter.getvalue()
    formatter = click.HelpFormatter(width=_width())
    with formatter.section("Pages"):
        formatter.write_text(", ".join(pages))
    yield formatter.getvalue()
    yield "emacheck explain NAME says more."


def _first_sentence(body: str) -> str:
    """Return what comes first, but for the effect of an oddity."""
    text = body.partition(". ")[2] if body.startswith("Effect: ") else body
    found = _SENTENCE.match(text)
    plain = _BOLD.sub(r"\1", found[0] if found else text).replace("\\|", "|").replace("`", "")
    return " ".join(plain.split())


def _explained(name: str, explanations: dict[str, dict[str, str]], pages: Iterable[str]) -> Iterator[str]:
    """Yield what is said of a name, which may be written as findings are, such as bias[loss]."""
    asked = name.partition("[")[0].strip().lower()
    found = {kind: bodies[asked] for kind, bodies in explanations.items() if asked in bodies}
    if not found:
        near = get_close_matches(asked, [*(each for bodies in explanations.values() for each in bodies), *pages], n=1)
        meant = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(f"there is no rule, oddity or page {name!r} to explain.{meant} emacheck explain lists them.")
    for at, (kind, body) in enumerate(found.items()):
        yield from [""] * bool(at)
        yield click.style(f"{asked}, {kind}", bold=True)
        yield ""
        yield from _rendered(body)


def _rendered(body: str) -> list[str]:
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console(file=sys.stdout, width=_width(), highlight=False)
    with console.capture() as made:
        console.print(Markdown(body))
    return [line.rstrip() for line in made.get().splitlines()]


def _width() -> int:
    return min(shutil.get_terminal_size().columns, WIDEST)
