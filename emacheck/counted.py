"""How many there are of something, in words."""

from collections.abc import Sequence


def counted(number: int, word: str, plural: str | None = None) -> str:
    """Return a number with the word for what is counted, in the singular for one.

    Args:
        number: How many there are.
        word: What one is called.
        plural: What several are called; the word with an *s* unless given.

    Example:
        >>> counted(1, "repeat"), counted(0, "repeat"), counted(2, "batch", "batches")
        ('1 repeat', '0 repeats', '2 batches')
    """
    return f"{number} {word if number == 1 else plural or f'{word}s'}"


def the_first(texts: Sequence[str], most: int) -> str:
    """Return the first of some texts, and how many more there are.

    Example:
        >>> the_first(["a", "b", "c"], 2), the_first(["a", "b"], 2)
        ('a, b and 1 more', 'a, b')
    """
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def and_so_on(things: Sequence[object], most: int) -> str:
    """Return the first of some things, and that there are more.

    Example:
        >>> and_so_on([1, 2, 3], 2), and_so_on([1, 2], 2)
        ('1, 2, ...', '1, 2')
    """
    return ", ".join(map(str, things[:most])) + ", ..." * (len(things) > most)
