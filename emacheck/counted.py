"""How many there are of something, in words."""


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
