"""Text and tables in Markdown: foreign text is shown and never obeyed."""

import re
from collections.abc import Sequence

from emacheck.printable import MESSAGE_LENGTH, printable

_ENTITIES = {character: f"&#{ord(character)};" for character in "&<>|`\\$"}
_BACKSLASHED = {character: f"\\{character}" for character in "*[]~"}
_ESCAPES = str.maketrans(_ENTITIES | _BACKSLASHED)
# GitHub makes links of names of people and numbers of issues, and tells these people.
_REFERENCE = re.compile(r"@(?=\w)|(?<!&)#(?=\d)")
_OUTER_UNDERSCORE = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def escaped(text: str, *, length: int | None = MESSAGE_LENGTH) -> str:
    r"""Return foreign text so that Markdown shows it and does not obey it, inside a line or a table.

    Example:
        >>> print(escaped("a|b <script> _c_ https://example.org @d #1"))
        a&#124;b &#60;script&#62; \_c\_ https&#58;//example.org @<!-- -->d #<!-- -->1
    """
    shown = printable(text, length=length).strip(" ").translate(_ESCAPES)
    shown = _OUTER_UNDERSCORE.sub(r"\\_", shown)
    shown = _REFERENCE.sub(r"\g<0><!-- -->", shown)
    # Renderers make links of bare addresses, too.
    shown = re.sub(r"(?<=[A-Za-z])://", "&#58;//", shown)
    return re.sub(r"(?i)\b(www)\.", r"\1&#46;", shown)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """Return a table; ``align`` holds one of l, r for each column."""
    rules = [{"l": "---", "r": "---:"}[side] for side in align]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rules, *rows))


def code_block(code: str) -> str:
    """Return a block of shell code, whatever stands in it.

    Example:
        >>> print(code_block("emacheck doctor"))
        ```sh
        emacheck doctor
        ```
    """
    longest = max(map(len, re.findall("`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sh\n{code}\n{fence}"
