"""Text from elsewhere (file names, metrics, messages) made safe to show."""

import re

NAME_LENGTH = 200
MESSAGE_LENGTH = 2000
# What CI servers obey in the output of a job: GitHub "::error::" at the start of a line, which any word may come to be
# where sentences are wrapped, and "##[error]", Azure "##vso[...]", TeamCity "##teamcity[...]" anywhere.
_COMMAND = re.compile(r"(?<!\S):(?=:)|#(?=#\w*\[)")


def printable(text: str, *, newlines: bool = False, length: int | None = NAME_LENGTH) -> str:
    r"""Return ``text`` with everything that a terminal would obey, hide or reorder shown as an escape.

    Escaped are control characters (ESC, DEL and the C1 set among them), format characters such as bidirectional
    overrides and zero-width spaces, lone surrogates, unassigned characters, and every space but the ordinary one; and
    what a CI server would take for a command.

    Args:
        text: Text that somebody else wrote.
        newlines: Keep line feeds as they are.
        length: Shorten longer text in the middle; None keeps all of it.

    Returns:
        The text, at most ``length`` characters long.

    Example:
        >>> print(printable("loss\x1b[31m\n"))
        loss\x1b[31m\n
        >>> printable("a very long name", length=9)
        'a v...ame'
        >>> print(printable("::error::loss, aten::add ##[error]"))
        \x3a:error::loss, aten::add \x23#[error]
    """
    text = _COMMAND.sub(lambda found: f"\\x{ord(found[0]):x}", text)
    if text.isprintable():
        return shortened(text, length)
    shown = "".join(c if c.isprintable() or (newlines and c == "\n") else _escaped(c) for c in text)
    return shortened(shown, length)


def shortened(text: str, length: int | None) -> str:
    """Return ``text`` with its middle left out where it is longer than ``length``.

    Example:
        >>> shortened("work_dirs/emanet/20240101.log", 15)
        'work_d...01.log'
    """
    if length is None or len(text) <= length:
        return text
    kept = max(length - 3, 2)
    return f"{text[: kept - kept // 2]}...{text[-(kept // 2) :]}"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
