"""``emacheck explain``: what a rule or an oddity means, and what to do about it."""

from __future__ import annotations

import re
import shutil
import sys
from difflib import get_close_matches
from pathlib import Path

import click

from emacheck.errors import UsageError

# The pages of the documentation whose sections are explanations, and what these are about.
PAGES = {"rules.md": "Rules", "logs.md": "Oddities of a log"}
WIDEST = 100
_HEADING = re.compile(r"^### `(\w+)`$", re.MULTILINE)
_NEXT = re.compile(r"^#{1,3} ", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_SENTENCE = re.compile(r".*?[.?](?=\s|$)", re.DOTALL)


@click.command()
@click.argument("name", required=False)
def explain(name: str | None) -> None:
    """Explain a rule, such as bias, or an oddity of a log, such as gap: what it means, and what to do.

    Without NAME, list all of them.
    """
    explanations = {title: sections(text) for title, text in _pages().items()}
    if name is None:
        click.echo("\n".join(_listed(explanations)))
    else:
        _print(*_found(name, explanations))


def sections(page: str) -> dict[str, str]:
    r"""Return what a page says under each heading that is a single name in backticks.

    Args:
        page: The page in Markdown.

    Returns:
        The text below each such heading, up to the next one, without the targets of its links.

    Example:
        >>> sections("# Page\n\n### `gap`\n\nRecords are [missing](x.md).\n\n### Other\n\nMore.\n")
        {'gap': 'Records are missing.'}
    """
    found = {}
    for heading in _HEADING.finditer(page):
        after = _NEXT.search(page, heading.end())
        body = page[heading.end() : after.start() if after else None].strip()
        found[heading[1]] = _LINK.sub(r"\1", body)
    return found


def _pages() -> dict[str, str]:
    package = Path(__file__).resolve().parent.parent
    shipped = package / "docs"
    root = shipped if shipped.is_dir() else package.parent / "docs"
    return {title: (root / name).read_text(encoding="utf-8") for name, title in PAGES.items()}


def _listed(explanations: dict[str, dict[str, str]]) -> list[str]:
    lines = []
    for title, of in explanations.items():
        formatter = click.HelpFormatter(width=_width())
        with formatter.section(title):
            formatter.write_dl([(name, _first_sentence(body)) for name, body in of.items()])
        lines += [formatter.getvalue()]
    return [*lines, "emacheck explain NAME says more."]


def _first_sentence(body: str) -> str:
    found = _SENTENCE.match(body)
    return " ".join(_plain(found[0] if found else body).split())


def _plain(text: str) -> str:
    return text.replace("\\|", "|").replace("`", "").replace("**", "")


def _found(name: str, explanations: dict[str, dict[str, str]]) -> tuple[str, str]:
    """Return a name and its explanation; a name may be written as findings are, such as bias[loss]."""
    known = {each: body for of in explanations.values() for each, body in of.items()}
    asked = name.partition("[")[0].strip().lower()
    if asked in known:
        return asked, known[asked]
    near = get_close_matches(asked, known, n=1)
    meant = f" Did you mean {near[0]}?" if near else ""
    raise UsageError(f"there is no rule or oddity {name!r} to explain.{meant} emacheck explain lists them.")


def _print(name: str, body: str) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console(file=sys.stdout, width=_width(), highlight=False)
    with console.capture() as made:
        console.print(Markdown(body))
    lines = made.get().splitlines()
    click.echo("\n".join([click.style(name, bold=True), "", *(line.rstrip() for line in lines)]))


def _width() -> int:
    return min(shutil.get_terminal_size().columns, WIDEST)
