"""The command that was given, as a line that a shell understands and a terminal can show."""

import os
import shlex
import sys
from collections.abc import Sequence

from emacheck.printable import printable

# They name what must not be there yet, so with them the same command would be refused.
NEW_PLACES = ("--output-dir", "--work-dir", "--output", "--junit", "--plot", "--html", "--card")


def given_command() -> str:
    """Return the command line of this process, to be pasted into a shell, without the places that it has written to."""
    return quoted(["emacheck", *without_places(sys.argv[1:])])


def without_places(words: Sequence[str]) -> list[str]:
    """Return the words of a command without the options that name a new file or directory.

    Example:
        >>> without_places(["compare", "a.log", "b.log", "--junit", "out.xml", "--plot=out.png", "--github"])
        ['compare', 'a.log', 'b.log', '--github']
    """
    end = words.index("--") if "--" in words else len(words)
    kept = [
        word
        for before, word in zip(("", *words), words[:end], strict=False)
        if before not in NEW_PLACES and word.partition("=")[0] not in NEW_PLACES
    ]
    return [*kept, *words[end:]]


def quoted(words: Sequence[str]) -> str:
    r"""Return words as a line for a shell, in which nothing that a terminal or a CI server would obey stands as it is.

    Such words are quoted as bash, ksh, zsh and POSIX (2024) have it: ``$'...'`` with the bytes as octal escapes, which
    end after three digits everywhere.

    Example:
        >>> print(quoted(["emacheck", "show", "a b", "\x1b[2Jx"]))
        emacheck show 'a b' $'\033[2Jx'
    """
    return " ".join(
        shlex.quote(word) if printable(word, length=None) == word else f"$'{_escaped(word)}'" for word in words
    )


def _escaped(word: str) -> str:
    return "".join(
        "\\" + character
        if character in "\\'"
        else character
        if character.isprintable() and character not in ":#"
        else "".join(f"\\{byte:03o}" for byte in os.fsencode(character))
        for character in word
    )
